#!/usr/bin/env python3
"""Runs `pagemill bench` and `pagemill generate` and makes a table of medians. bench/run.sh is the way in."""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

import machine

# The server is loaded to this share of the request rate that throughput reached.
SERVE_LOAD = 0.7
START_PROMPT = "The capital of France is"


class Runner:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.commands: list[str] = []

    def command(self, *arguments: object) -> list[str]:
        command = [self.options.pagemill, *map(str, arguments)]
        self.commands.append(shlex.join(command))
        print(f"+ {self.commands[-1]}", file=sys.stderr, flush=True)
        return command

    def bench(self, name: str, dtype: str, *arguments: object) -> list[dict]:
        """The lines that one `pagemill bench` prints, without that of its start."""
        done = subprocess.run(
            self.command("bench", name, self.options.model, "--dtype", dtype, "--repeats", self.options.repeats,
                         *arguments), stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"pagemill bench {name}: exit status {done.returncode}")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return [line for line in lines if line["bench"] == name]

    def start(self, dtype: str, cold: bool) -> tuple[float, float]:
        """Seconds from process start to the first byte of text, and peak memory in MiB."""
        if cold:
            drop_from_page_cache(self.options.model_path)
        begin = time.perf_counter()
        process = subprocess.Popen(
            self.command("generate", self.options.model, "--dtype", dtype, "-p", START_PROMPT, "--max-tokens", 1,
                         "--temperature", 0), stdout=subprocess.PIPE)
        process.stdout.read(1)
        seconds = time.perf_counter() - begin
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"pagemill generate: exit status {process.returncode}")
        return seconds, usage.ru_maxrss / 1024


def drop_from_page_cache(path: pathlib.Path) -> None:
    """Asks the kernel to forget the model's files: the next start reads them from the disk."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with open(file, "rb") as opened:
            os.fdatasync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def median(lines: list[dict], key: str) -> float:
    return statistics.median(line[key] for line in lines)


def peak(lines: list[dict]) -> float:
    return max(line["peak_memory_mib"] for line in lines)


def ms_percentiles(lines: list[dict], name: str) -> str:
    return " / ".join(f"{median(lines, f'{name}_p{percent}_ms'):.0f}" for percent in (50, 90, 99)) + " ms"


def throughput_rows(name: str, lines: list[dict]) -> list[tuple[str, str]]:
    return [
        (f"{name}: output", f"{median(lines, 'output_tokens_per_s'):.0f} tokens/s"),
        (f"{name}: input + output", f"{median(lines, 'total_tokens_per_s'):.0f} tokens/s"),
        (f"{name}: peak memory", f"{peak(lines):.0f} MiB"),
    ]


def measure(runner: Runner, dtype: str) -> list[tuple[str, str]]:
    """Rows (what, figure) for one dtype."""
    rows = []
    greedy = runner.bench("throughput", dtype)
    rows += throughput_rows("throughput, greedy", greedy)
    rows += throughput_rows("throughput, sampling", runner.bench("throughput", dtype, "--sampling"))
    if runner.options.workload:
        rows += throughput_rows("throughput, own workload",
                                runner.bench("throughput", dtype, "--workload", runner.options.workload))
    latency = runner.bench("latency", dtype)
    rows += [
        ("alone: decode", f"{median(latency, 'decode_tokens_per_s'):.0f} tokens/s"),
        ("alone: prefill of 512", f"{median(latency, 'prefill_tokens_per_s'):.0f} tokens/s"),
        ("alone: first token after 16", f"{median(latency, 'ttft_short_ms'):.1f} ms"),
    ]
    rate = SERVE_LOAD * greedy[0]["requests"] / median(greedy, "wall_s")
    serve = runner.bench("serve", dtype, "--rate", f"{rate:.3f}")
    rows += [
        (f"serve at {SERVE_LOAD:.0%} load: rate", f"{rate:.2f} requests/s"),
        ("serve: time to first token, p50 / p90 / p99", ms_percentiles(serve, "ttft")),
        ("serve: between tokens, p50 / p90 / p99", ms_percentiles(serve, "itl")),
        ("serve: whole request, p50 / p90 / p99", ms_percentiles(serve, "e2e")),
    ]
    for name, cold in (("file not in memory", True), ("warm", False)):
        starts = [runner.start(dtype, cold) for _ in range(runner.options.repeats)]
        rows.append((f"start to first token, {name}", f"{1e3 * statistics.median(s for s, _ in starts):.0f} ms"))
    rows.append(("peak memory of that start", f"{statistics.median(m for _, m in starts):.0f} MiB"))
    return rows


def model_path(model: str) -> pathlib.Path:
    if model != "demo":
        return pathlib.Path(model)
    sys.path.insert(0, "scripts")
    import fetch_demo

    return fetch_demo.models_dir() / fetch_demo.FILE


def report(columns: dict[str, list[tuple[str, str]]], commands: list[str], repeats: int) -> str:
    names = list(columns)
    rows = list(zip(*columns.values()))
    lines = [machine.describe(), "", f"Medians of {repeats}; peak memory is the largest.", "",
             "| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    lines += [f"| {cells[0][0]} | " + " | ".join(value for _, value in cells) + " |" for cells in rows]
    unique = list(dict.fromkeys(commands))
    lines += ["", "Commands:", "", *(f"    {command}" for command in unique)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pagemill", default="build/release/src/cli/pagemill")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--workload", help="JSON lines with prompt_token_ids and output_len")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtypes", default="bfloat16,auto", help="a column for each; auto: as stored")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/bench/results.md"))
    options = parser.parse_args()
    options.model_path = model_path(options.model)
    if not options.model_path.exists():
        raise SystemExit(f"{options.model_path}: not there; scripts/fetch_demo.py fetches the demo model")

    runner = Runner(options)
    names = {"auto": "as stored", "bfloat16": "bf16", "float32": "f32"}
    columns = {names[dtype]: measure(runner, dtype) for dtype in options.dtypes.split(",")}
    table = report(columns, runner.commands, options.repeats)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
