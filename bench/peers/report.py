"""docs/peers.md and its plots, from the raw rounds in docs/peers/."""

import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable

import environments

sys.path.append(str(environments.ROOT / "bench"))
from pages import put_into_page, table

PAGE = environments.ROOT / "docs/peers.md"
ROUNDS = environments.ROOT / "docs/peers"
# As plots.py names them.
PLOTS, SERVING_PLOTS = ("throughput", "memory"), ("concurrency", "ttft", "itl")


def add_round(line: dict) -> None:
    ROUNDS.mkdir(parents=True, exist_ok=True)
    with open(ROUNDS / f"{line['suite']}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def rounds_of(suite: str) -> dict[str, list[dict]]:
    """By engine, in the order in which they ran first."""
    by_engine: dict[str, list[dict]] = {}
    for text in (ROUNDS / f"{suite}.jsonl").read_text().splitlines():
        line = json.loads(text)
        by_engine.setdefault(line["engine"], []).append(line)
    return by_engine


def spread(values: list[float], digits: int = 0) -> str:
    """The median, and in brackets the least and the greatest."""
    median = f"{statistics.median(values):,.{digits}f}"
    return median if len(values) == 1 else f"{median} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def results_table(suite: str) -> str:
    by_engine = rounds_of(suite)
    prefills = list(next(iter(by_engine.values()))[0]["result"]["prefill_tokens_per_s"])
    columns: list[tuple[str, Callable[[dict], float], int]] = [
        ("workload, output tokens/s", lambda result: result["workload"]["output_tokens_per_s"], 0),
        ("alone, tokens/s", lambda result: result["decode_tokens_per_s"], 0),
        *((f"prefill of {length}, tokens/s", lambda result, length=length: result["prefill_tokens_per_s"][length], 0)
          for length in prefills),
        ("start to first token, s", lambda result: result["first_token_s"], 2),
        ("peak memory, MiB", lambda result: result["peak_memory_mib"], 0)]
    rows = []
    for name, lines in by_engine.items():
        cells = [spread([value(line["result"]) for line in lines], digits) for _, value, digits in columns]
        rows.append([name, *cells])
    return table(["", *(title for title, _, _ in columns)], rows)


def serving_table(suite: str) -> str:
    rows = []
    for name, lines in rounds_of(suite).items():
        for loads in zip(*(line["result"]["loads"] for line in lines)):
            what = f"{loads[0]['load']} at once" if loads[0]["kind"] == "concurrency" else f"{loads[0]['load']}/s"
            times = [" / ".join(f"{statistics.median(load[f'{time}_p{percent}_ms'] for load in loads):,.0f}" for percent in (50, 99))
                     for time in ("ttft", "itl")]
            rows.append([f"{name}: {what}", spread([load["output_tokens_per_s"] for load in loads]), *times])
    return table(["", "output tokens/s", "time to first token, ms, p50 / p99", "between tokens, ms, p50 / p99"], rows)


def conditions(suite: str) -> str:
    """What the reader must know of the machine to trust the table."""
    lines = [line for lines in rounds_of(suite).values() for line in lines]
    worth = [line[when]["worth_threads"] for line in lines for when in ("probe_before", "probe_after")]
    others = [line["result"]["others_share"] for line in lines]
    counts = sorted({len(lines) for lines in rounds_of(suite).values()})
    rounds = " to ".join(str(count) for count in (counts[:1] + counts[1:][-1:])) + (" round" if counts == [1] else " rounds")
    commits = ", ".join(sorted({line["commit"] for line in lines}))
    peers = {name: version for line in lines for name, version in line["versions"].items()}
    return (f"{lines[0]['cpu']}; commits {commits}; {rounds}, {lines[0]['time'][:10]}. "
            f"Both threads were worth {min(worth)} to {max(worth)} of one (before and after each run), and other "
            f"processes used at most {max(others):.1%} of the machine. "
            + ", ".join(f"{name} {version}" for name, version in sorted(peers.items())) + ".")


def flags_table(suite: str) -> str:
    rows = []
    for name, lines in rounds_of(suite).items():
        cut = lines[0]["max_requests"]
        rows.append([name, f"`{json.dumps(lines[0]['flags'])}`" + (f"; the first {cut} requests" if cut else "")])
    return table(["", "flags"], rows)


def write() -> None:
    for path in sorted(ROUNDS.glob("*.jsonl")):
        suite = path.stem
        served = "loads" in next(iter(rounds_of(suite).values()))[0]["result"]
        text = "\n\n".join([serving_table(suite) if served else results_table(suite), conditions(suite), flags_table(suite)])
        plots = "\n".join(f"![{plot}](peers/{suite}-{plot}.svg)" for plot in (SERVING_PLOTS if served else PLOTS))
        put_into_page(PAGE, suite, f"{text}\n\n{plots}\n\nRaw rounds: [{path.name}](peers/{path.name}).\n")
    subprocess.run([environments.python_of("transformers"), pathlib.Path(__file__).parent / "plots.py", ROUNDS], check=True)
