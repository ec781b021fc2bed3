#!/usr/bin/env python3
"""Makes the figures of docs/paged-attention.md, each by its name: from `pagemill simulate` or, those that begin with
engine_, from `pagemill bench` on the demo model, which takes minutes.

bench/paged_attention.py fig2          prints one and puts it into the page
bench/paged_attention.py all           every one
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/paged-attention.md"
PLOTS = ROOT / "docs/paged-attention"
POLICIES = ["orca-max", "orca-pow2", "orca-oracle", "paged"]

# The paper's: Kwon et al., SOSP 2023. Figure 2: token states, % of the KV memory; figure 13: requests in the batch.
PAPER_FIG2 = {"orca-max": 20.4, "orca-pow2": 26.8, "orca-oracle": 38.2, "paged": 96.3}
PAPER_FIG13 = {
    ("sharegpt", 2): {"orca-max": 7.0, "orca-pow2": 9.8, "orca-oracle": 13.6, "paged": 30.4},
    ("alpaca", 30): {"orca-max": 7.0, "orca-pow2": 43.2, "orca-oracle": 72.8, "paged": 132.4},
}

# Traces and the machine whose KV memory they fill: the paper's 15,700 slots where their longest requests fit.
SMALL, LARGE = "opt-13b@a100-40gb", "llama-3.1-8b@h100-80gb"
TRACES = {
    "azure_conv_2023.csv": SMALL,
    "azure_code_2023.csv": SMALL,
    "sharegpt_lengths.csv": SMALL,
    "arena_multitenant.csv": SMALL,
    "arxiv_summarization_lengths.csv": SMALL,
    "sharegpt_multiturn_blocks.jsonl": SMALL,
    "servegen_deepseek_r1_sampled.csv": LARGE,
    "mooncake_conversation.jsonl": LARGE,
    "mooncake_synthetic.jsonl": LARGE,
}
BLOCK_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256]

# Reference hit rates of the Mooncake traces (whole files), in %: of blocks at these sizes, of tokens without limit.
CACHE_BLOCKS = [1000, 3000, 10000, 30000, 0]
REFERENCE_HITS = {"mooncake_conversation.jsonl": [4.3, 6.4, 20.6, 31.3, 34.7],
                  "mooncake_synthetic.jsonl": [1.7, 5.2, 16.7, 31.2, 32.2]}


# Of one length distribution: mean tokens in and out, requests on the real engine.
ENGINE_WORKLOADS = {"sharegpt": (161, 338, 24), "alpaca": (19, 58, 128)}
# Blocks saved by sharing, %: the paper's figure 15, the Alpaca trace.
PAPER_FIG15 = {("n", 2): 6.1, ("n", 4): 8.5, ("n", 6): 9.8,
               ("beam-width", 2): 37.6, ("beam-width", 4): 53.1, ("beam-width", 6): 55.2}
# So little that the mixed workload fills it: 13,600 tokens.
TIGHT = ("--kv-cache-memory", "300MiB", "--max-model-len", 2048)


class Simulator:
    def __init__(self, options: argparse.Namespace):
        self.options = options

    def run(self, *arguments: object) -> str:
        command = [str(self.options.pagemill), *map(str, arguments)]
        print(f"+ {shlex.join(command)}", file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{shlex.join(command)}: exit status {done.returncode}")
        return done.stdout

    def __call__(self, *arguments: object) -> dict:
        """The JSON that `pagemill simulate` prints for these arguments."""
        return json.loads(self.run("simulate", *arguments, "--json"))

    def bench(self, *arguments: object) -> dict:
        """The JSON of one `pagemill bench throughput` of the demo model."""
        return json.loads(self.run("bench", "throughput", "demo", "--repeats", 1, *arguments).splitlines()[-1])

    def data(self, name: str) -> pathlib.Path:
        path = self.options.data / name
        if not path.exists():
            raise SystemExit(f"{path}: not there; --data or PAGEMILL_DATA names the folder of traces")
        return path


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def fig2(simulate: Simulator) -> str:
    result = simulate("--synthetic", "sharegpt", "--rate", 0, "--num-requests", 5000, "--policy", ",".join(POLICIES))
    rows = []
    for run in result["runs"]:
        memory, paper = run["memory_while_queued"], PAPER_FIG2[run["policy"]]
        tokens = 100 * memory["tokens"]
        rows.append([run["policy"], f"{tokens:.1f} %", f"{paper} %", f"{tokens - paper:+.1f}", percent(memory["reserved"]),
                     percent(memory["internal"]), percent(memory["rounding"]), percent(memory["free"]),
                     percent(memory["waste"])])
    return table(["policy", "token states", "paper", "difference", "reserved, used later", "held, never used",
                  "rounded to 2^n", "free", "waste (held, empty)"], rows)


def fig13(simulate: Simulator) -> str:
    rows = []
    for (name, rate), paper in PAPER_FIG13.items():
        count = {"sharegpt": 5000, "alpaca": 20000}[name]
        at_rate = simulate("--synthetic", name, "--rate", rate, "--duration", 3600, "--policy", ",".join(POLICIES))
        full = simulate("--synthetic", name, "--rate", 0, "--num-requests", count, "--policy", ",".join(POLICIES))
        for run, run_full in zip(at_rate["runs"], full["runs"]):
            theirs, ours = paper[run["policy"]], run["mean_batch"]
            saturated = run_full["memory_while_queued"]["mean_batch"]
            rows.append([f"{name} {rate}/s: {run['policy']}", f"{ours:.1f}", f"{theirs}", f"{ours - theirs:+.1f}",
                         f"{saturated:.1f}", f"{saturated - theirs:+.1f}"])
    return table(["", "at this rate", "paper", "difference", "queue never empty", "difference"], rows)


def fig12(simulate: Simulator) -> str:
    rates = {
        "sharegpt": [0.25 * i for i in range(1, 19)],
        "alpaca": [2, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 70, 80, 90, 100, 110, 120, 130],
    }
    parts = []
    for name, sweep in rates.items():
        with tempfile.TemporaryDirectory() as folder:
            result = simulate("--synthetic", name, "--rate", ",".join(f"{rate:g}" for rate in sweep), "--duration", 1800,
                              "--policy", ",".join([*POLICIES, "static"]), "--plot", folder)
            keep_plot(pathlib.Path(folder) / "latency.svg", f"latency-{name}.svg")
        knees = {curve["policy"]: curve["sustained_rate"] for curve in result["curves"]}
        rows = [[policy, f"{knee:.2f}/s" if knee > 0 else f"under {sweep[0]}/s", f"{knees['paged'] / knee:.2f}x" if knee > 0 else "-"]
                for policy, knee in knees.items()]
        parts.append(f"{name.capitalize()}-like; sustained up to {1e3 * result['latency_limit_s']:.0f} ms a token, five "
                     f"times the {1e3 * result['idle_latency_s']:.1f} ms of an idle machine:\n\n"
                     + table(["policy", "sustained", "paged over it"], rows)
                     + f"\n\n![Normalized latency against request rate](paged-attention/latency-{name}.svg)")
    return "\n\n".join(parts)


def memory(simulate: Simulator) -> str:
    with tempfile.TemporaryDirectory() as folder:
        simulate("--synthetic", "sharegpt", "--rate", 1.5, "--duration", 600, "--policy", ",".join(POLICIES), "--plot",
                 folder)
        names = ["memory-orca-max.svg", "memory-orca-oracle.svg", "memory-paged.svg", "batch.svg"]
        for name in names:
            keep_plot(pathlib.Path(folder) / name, name)
    return "\n".join(f"![{name}](paged-attention/{name})" for name in names)


def keep_plot(source: pathlib.Path, name: str) -> None:
    PLOTS.mkdir(parents=True, exist_ok=True)
    (PLOTS / name).write_text(source.read_text())


def full_pool(simulate: Simulator, name: str, *arguments: object) -> dict:
    """A trace or a made-up workload, all at once, on a machine that it fills; sharing would only lower the waste."""
    common = ["--rate", 0, "--max-num-seqs", 4096, "--no-prefix-caching", *arguments]
    if name not in TRACES:
        return simulate("--synthetic", name, "--num-requests", 20000, *common)
    memory_size = ["--max-model-len", 15000] if TRACES[name] == SMALL else ["--kv-slots", 140_000]
    return simulate("--trace", simulate.data(name), "--machine", TRACES[name], *memory_size, *common)


def waste(simulate: Simulator) -> str:
    rows = []
    for name in [*TRACES, "sharegpt", "alpaca"]:
        paged = full_pool(simulate, name)["runs"][0]
        small = full_pool(simulate, name, "--block-size", 4)["runs"][0]
        full, full_small = paged["memory_while_90_percent_held"], small["memory_while_90_percent_held"]
        rows.append([name if name in TRACES else f"{name}-like", TRACES.get(name, SMALL), f"{paged['requests']}",
                     percent(full["seconds"] / paged["seconds"], 0), percent(full["waste"], 2),
                     percent(full_small["waste"], 2)])
    return table(["workload", "machine", "requests", "time at 90 % or more", "waste, blocks of 16", "waste, blocks of 4"],
                 rows)


def block_size(simulate: Simulator) -> str:
    sizes = ",".join(map(str, BLOCK_SIZES))
    wasted = {}
    for name in [*TRACES, "sharegpt", "alpaca"]:
        lines = full_pool(simulate, name, "--block-sizes", sizes)["block_sizes"]
        wasted[name] = [percent((line["memory_while_90_percent_held"] or line["memory"])["waste"], 2) for line in lines]
    hits = {}
    for name in ["mooncake_conversation.jsonl", "mooncake_synthetic.jsonl", "sharegpt_multiturn_blocks.jsonl"]:
        lines = simulate("--trace", simulate.data(name), "--hash-block-tokens", 16, "--max-model-len", 8192,
                         "--block-sizes", sizes)["block_sizes"]
        hits[name] = [percent(line["prefix_hit_rate"]) for line in lines]
    head = ["", *map(str, BLOCK_SIZES)]
    return ("Waste:\n\n" + table(head, [[name, *cells] for name, cells in wasted.items()]) +
            "\n\nPrefix-cache hits, by prompt tokens:\n\n" + table(head, [[name, *cells] for name, cells in hits.items()]))


def prefix_cache(simulate: Simulator) -> str:
    rows = []
    for name, reference in REFERENCE_HITS.items():
        result = simulate("--trace", simulate.data(name), "--prefix-cache-blocks", ",".join(map(str, CACHE_BLOCKS)))
        for line, expected in zip(result["prefix_cache"], reference):
            kind = "block" if line["blocks"] else "token"
            ours, engine = 100 * line[f"reference_{kind}_rate"], 100 * line[f"engine_{kind}_rate"]
            if abs(ours - expected) > 0.0501:
                raise SystemExit(f"{name}, {line['blocks']} blocks: {ours:.2f} % instead of {expected} %")
            if engine < ours:
                raise SystemExit(f"{name}, {line['blocks']} blocks: the engine's order hits less: {engine:.2f} %")
            size = f"{line['blocks']:,} blocks" if line["blocks"] else "unlimited (tokens)"
            rows.append([f"{name}: {size}", f"{expected} %", f"{ours:.2f} %", f"{engine:.2f} %"])
    return table(["", "reference figure", "reference order", "engine's order"], rows)


def replicas(simulate: Simulator) -> str:
    rows = []
    for split in ("least-loaded", "round-robin"):
        result = simulate("--trace", simulate.data("azure_conv_2023.csv"), "--machine", SMALL, "--max-model-len", 15000,
                          "--replicas-for", "ttft_p99=2000,itl_p99=250", "--split", split)
        for trial in sorted(result["trials"], key=lambda trial: trial["replicas"]):
            rows.append([f"{split}, {trial['replicas']}", f"{trial['ttft_p99_ms']:.0f} ms", f"{trial['itl_p99_ms']:.0f} ms",
                         "yes" if trial["holds"] else "no"])
    return table(["split, replicas", "TTFT p99", "ITL p99", "holds"], rows)


def engine_memory(simulate: Simulator) -> str:
    rows = []
    for reservation in ("max", "pow2", "oracle", "none"):
        line = simulate.bench(*TIGHT, "--no-prefix-caching", "--kv-reservation", reservation)
        full = f"{percent(line['kv_full_steps'] / line['kv_steps'], 0)} of steps"
        waste = percent(line["kv_full_waste"], 2) if line["kv_full_steps"] else "-"
        rows.append([{"none": "paged"}.get(reservation, f"reserving {reservation}"), f"{line['kv_sequences']:.1f}",
                     f"{line['output_tokens_per_s']:.0f}", full, waste, str(line["preemptions"])])
    return table(["", "sequences in the batch", "output tokens/s", "90 % or more referenced", "waste then", "preemptions"], rows)


def engine_sharing(simulate: Simulator) -> str:
    rows = []
    for option in ("n", "beam-width"):
        for width in (2, 4, 6):
            cells = [f"beams, width {width}" if option == "beam-width" else f"n = {width}"]
            for name, (mean_in, mean_out, count) in ENGINE_WORKLOADS.items():
                sampling = ["--sampling"] if option == "n" else []
                line = simulate.bench("--input-len", mean_in, "--output-len", mean_out, "--num-prompts", count // width,
                                      "--no-prefix-caching", f"--{option}", width, *sampling)
                cells.append(percent(line["kv_saved_by_sharing"]))
            rows.append([*cells, f"{PAPER_FIG15[option, width]} %"])
    return table(["", *(f"{name}-like" for name in ENGINE_WORKLOADS), "paper, Alpaca"], rows)


FIGURES = {figure.__name__: figure for figure in (fig2, fig13, fig12, memory, waste, block_size, prefix_cache, replicas,
                                                  engine_memory, engine_sharing)}


def put_into_page(name: str, text: str) -> None:
    page = PAGE.read_text()
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE}: no place for {name}")
    PAGE.write_text(pattern.sub(lambda match: match.group(1) + text + match.group(2), page))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=[*FIGURES, "all"])
    parser.add_argument("--pagemill", default=ROOT / "build/release/src/cli/pagemill")
    parser.add_argument("--data", type=pathlib.Path, help="the folder of traces (default: $PAGEMILL_DATA, "
                        "../shared/data)", default=os.environ.get("PAGEMILL_DATA", ROOT.parent / "shared/data"))
    options = parser.parse_args()
    for name in FIGURES if options.figure == "all" else [options.figure]:
        simulate = Simulator(options)
        text = FIGURES[name](simulate)
        print(text, flush=True)
        put_into_page(name, f"{text}\n\nMade by `bench/paged_attention.py {name}`.\n")


if __name__ == "__main__":
    main()
