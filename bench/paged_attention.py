#!/usr/bin/env python3
"""Makes the figures of docs/paged-attention.md, each by its name: from `pagemill simulate` or, those that begin with
engine_, from `pagemill bench` on the demo model, which takes minutes on a machine that does nothing else.

bench/paged_attention.py fig2          prints one and puts it into the page
bench/paged_attention.py all           every one
bench/paged_attention.py fig2 --quick  prints it from a few requests, to see that it works; the page stays as it is
"""

import argparse
import json
import os
import pathlib
import random
import re
import shlex
import statistics
import subprocess
import sys
import tempfile

from pages import put_into_page, table
from workloads import lognormal_lengths, random_tokens, write_workload

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/paged-attention.md"
PLOTS = ROOT / "docs/paged-attention"
POLICIES = ["orca-max", "orca-pow2", "orca-oracle", "paged"]
MEMORY_POLICIES = [*POLICIES, "paged-full"]

# The paper's: Kwon et al., SOSP 2023. Figure 2: token states, % of the KV memory; figure 13: requests in the batch.
PAPER_FIG2 = {"orca-max": 20.4, "orca-pow2": 26.8, "orca-oracle": 38.2, "paged": 96.3, "paged-full": 96.3}
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
# Weights of 16 bits, as the paper's, and KV memory for 6,800 tokens: three sequences of the greatest length.
LATENCY_ENGINE = ("--dtype", "bfloat16", "--kv-cache-memory", "150MiB", "--max-model-len", 2048, "--no-prefix-caching")
LATENCY_RATES = [0.6, 1.0, 1.4, 1.8, 2.4]
LATENCY_REQUESTS = 32
# Mean tokens in and out, tight KV memory. Prompts of ShareGPT's length with answers of Alpaca's: mostly prompt.
SHARING_WORKLOADS = {"161 in, 58 out": (161, 58, "45MiB"), "19 in, 58 out": (19, 58, "33MiB")}
SHARING_SEQUENCES = 60
ROUNDS = 3
PREFIX_SHARED, PREFIX_OWN, PREFIX_OUT, PREFIX_REQUESTS, PREFIX_RATE = 512, 60, 32, 64, 1.2
# Work in tokens over the KV memory's, and what a token of the demo model takes there.
OVERLOAD, DEMO_KV_BYTES = 10, 23040


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

    def count(self, requests: int) -> int:
        """How many requests to make of these."""
        return max(12, requests // 5) if self.options.quick else requests

    @property
    def rounds(self) -> int:
        return 1 if self.options.quick else ROUNDS

    def __call__(self, *arguments: object) -> dict:
        """The JSON that `pagemill simulate` prints for these arguments."""
        return json.loads(self.run("simulate", *arguments, "--json"))

    def bench(self, *arguments: object, kind: str = "throughput") -> dict:
        """The JSON of one `pagemill bench` of the demo model."""
        line = json.loads(self.run("bench", kind, "demo", "--repeats", 1, *arguments).splitlines()[-1])
        if line["requests_failed"]:
            raise SystemExit(f"{line['requests_failed']} of {line['requests']} requests failed")
        return line

    def data(self, name: str) -> pathlib.Path:
        path = self.options.data / name
        if not path.exists():
            raise SystemExit(f"{path}: not there; --data or PAGEMILL_DATA names the folder of traces")
        return path


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def fig2(simulate: Simulator) -> str:
    result = simulate("--synthetic", "sharegpt", "--rate", 0, "--num-requests", 5000, "--policy", ",".join(MEMORY_POLICIES))
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
            keep_plot(pathlib.Path(folder) / "latency.svg", f"latency-{name}.svg", simulate)
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
            keep_plot(pathlib.Path(folder) / name, name, simulate)
    return "\n".join(f"![{name}](paged-attention/{name})" for name in names)


def keep_plot(source: pathlib.Path, name: str, simulate: Simulator) -> None:
    if simulate.options.quick:
        return
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
    runs = {f"reserving {name}": ["--kv-reservation", name] for name in ("max", "pow2", "oracle")}
    for name, options in {**runs, "paged": [], "paged, no headroom": ["--no-admission-headroom"]}.items():
        line = simulate.bench(*TIGHT, "--no-prefix-caching", *options)
        full = f"{percent(line['kv_full_steps'] / line['kv_steps'], 0)} of steps"
        waste = percent(line["kv_full_waste"], 2) if line["kv_full_steps"] else "-"
        rows.append([name, f"{line['kv_sequences']:.1f}", f"{line['output_tokens_per_s']:.0f}", full, waste, str(line["preemptions"])])
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


def sustained(rates: list[float], latencies: list[float], limit: float) -> str:
    """Where a curve crosses the limit, between two rates by linear interpolation: as the simulator does it."""
    if latencies[0] > limit:
        return f"under {rates[0]}/s"
    for i in range(1, len(rates)):
        if latencies[i] > limit:
            part = (limit - latencies[i - 1]) / (latencies[i] - latencies[i - 1])
            return f"{rates[i - 1] + part * (rates[i] - rates[i - 1]):.2f}/s"
    return f"{rates[-1]}/s or more"


def engine_latency(simulate: Simulator) -> str:
    source, count = random.Random(1), simulate.count(LATENCY_REQUESTS)
    inputs = lognormal_lengths(source, count, 160, 1.0, 4, 1024)
    outputs = lognormal_lengths(source, count, 200, 0.9, 4, 512)
    rates = LATENCY_RATES[::2] if simulate.options.quick else LATENCY_RATES
    reservations = {"orca-max": "max", "paged": "none"}
    measured: dict[str, list[float]] = {policy: [] for policy in reservations}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        workload = write_workload(folder / "workload.jsonl",
                                  [(random_tokens(source, tokens), output) for tokens, output in zip(inputs, outputs)])
        (folder / "trace.csv").write_text("input_tokens,output_tokens\n" + "".join(
            f"{tokens},{output}\n" for tokens, output in zip(inputs, outputs)))
        for rate in rates:
            for policy, reservation in reservations.items():
                line = simulate.bench("--workload", workload, "--rate", rate, *LATENCY_ENGINE, "--kv-reservation",
                                      reservation, kind="serve")
                measured[policy].append(line["normalized_latency_s"])
        (folder / "measured.jsonl").write_text("".join(
            json.dumps({"label": f"{policy}, measured", "rate": rate, "normalized_latency_s": latency}) + "\n"
            for policy, latencies in measured.items() for rate, latency in zip(rates, latencies)))
        # The same lengths and, with bench's seed, the same arrivals.
        result = simulate("--trace", folder / "trace.csv", "--rate", ",".join(map(str, rates)), "--num-requests", count,
                          "--seed", 1, "--measure", "demo", "--dtype", "bfloat16", "--kv-slots", line["kv_slots"],
                          "--max-model-len", 2048, "--no-prefix-caching", "--policy", ",".join(reservations), "--plot",
                          folder, "--measured", folder / "measured.jsonl")
        keep_plot(folder / "latency.svg", "latency-engine.svg", simulate)
    rows, errors = [], []
    predicted = {curve["policy"]: curve["normalized_latency_s"] for curve in result["curves"]}
    for i, rate in enumerate(rates):
        cells = [f"{rate}/s"]
        for policy in reservations:
            ours, theirs = measured[policy][i], predicted[policy][i]
            errors.append(abs(theirs / ours - 1))
            cells += [f"{1e3 * ours:.1f}", f"{1e3 * theirs:.1f}", f"{100 * (theirs / ours - 1):+.1f} %"]
        rows.append(cells)
    limit = result["latency_limit_s"]
    knees = [f"{policy}: measured {sustained(rates, measured[policy], limit)}, predicted "
             f"{sustained(rates, predicted[policy], limit)}" for policy in reservations]
    head = ["requests", *(f"{policy}: {what}" for policy in reservations for what in ("measured", "predicted", "error"))]
    return (f"Mean normalized latency in ms a token of {count} requests, {line['kv_slots']:,} KV slots:\n\n"
            + table(head, rows)
            + f"\n\nThe errors' mean is {percent(statistics.fmean(errors))}. Sustained up to {1e3 * limit:.0f} ms a token; "
            + "; ".join(knees) + f". Cost model: {result['setting']['machine']}."
            + "\n\n![Measured and predicted latency](paged-attention/latency-engine.svg)")


def interleaved(simulate: Simulator, runs: dict[object, tuple], kind: str = "throughput") -> dict[object, dict]:
    """Each of the runs, ROUNDS times in turn: medians of what `pagemill bench` says in numbers."""
    lines: dict[object, list[dict]] = {key: [] for key in runs}
    for _ in range(simulate.rounds):
        for key, arguments in runs.items():
            lines[key].append(simulate.bench(*arguments, kind=kind))
    return {key: {name: statistics.median(line[name] for line in of) for name, value in of[0].items()
                  if isinstance(value, (int, float))} for key, of in lines.items()}


def sharing_throughput(simulate: Simulator, tight: bool) -> str:
    # A multiple of every width, also when there are few.
    sequences = 12 if simulate.options.quick else SHARING_SEQUENCES
    runs = {}
    for name, (mean_in, mean_out, memory_size) in SHARING_WORKLOADS.items():
        for width in (2, 4, 6):
            common = ["--input-len", mean_in, "--output-len", mean_out, "--num-prompts", sequences // width,
                      "--no-prefix-caching", "--max-model-len", 1152]
            if tight:
                common += ["--kv-cache-memory", memory_size]
            runs[name, width, "off"] = (*common, "--n", width, "--independent")
            runs[name, width, "on"] = (*common, "--n", width)
            runs[name, width, "beams"] = (*common, "--beam-width", width)
    lines = interleaved(simulate, runs)
    rows = []
    for name in SHARING_WORKLOADS:
        for width in (2, 4, 6):
            off, on, beams = (lines[name, width, kind] for kind in ("off", "on", "beams"))
            speed = [line["output_tokens_per_s"] for line in (off, on, beams)]
            rows.append([f"{name}; {width}", f"{speed[0]:.0f}", f"{speed[1]:.0f}", f"{speed[1] / speed[0]:.2f}x",
                         f"{off['kv_sequences']:.1f}", f"{on['kv_sequences']:.1f}", f"{speed[2]:.0f}",
                         percent(speed[2] / speed[1], 0)])
    slots = "" if not tight else " KV slots: " + ", ".join(
        f"{lines[name, 2, 'on']['kv_slots']:,.0f} ({name})" for name in SHARING_WORKLOADS) + "."
    return (f"{sequences} sequences, medians of {simulate.rounds} runs.{slots}\n\n"
            + table(["lengths; width", "n, off: tokens/s", "n, on", "on / off", "in the batch, off", "on", "beams: tokens/s",
                     "beams / n"], rows))


def engine_sharing_throughput(simulate: Simulator) -> str:
    return sharing_throughput(simulate, tight=True)


def engine_sharing_throughput_ample(simulate: Simulator) -> str:
    return sharing_throughput(simulate, tight=False)


def engine_prefix(simulate: Simulator) -> str:
    source, count = random.Random(1), simulate.count(PREFIX_REQUESTS)
    shots = random_tokens(source, PREFIX_SHARED)
    with tempfile.TemporaryDirectory() as folder:
        workload = write_workload(pathlib.Path(folder) / "workload.jsonl",
                                  [(shots + random_tokens(source, PREFIX_OWN), PREFIX_OUT) for _ in range(count)])
        runs = {"off": ("--workload", workload, "--no-prefix-caching"), "on": ("--workload", workload)}
        at_once = interleaved(simulate, runs)
        arriving = interleaved(simulate, {key: (*run, "--rate", PREFIX_RATE) for key, run in runs.items()}, "serve")
    rows = []
    for key in runs:
        once, rate = at_once[key], arriving[key]
        rows.append([f"prefix caching {key}", f"{once['total_tokens_per_s']:.0f}", f"{once['output_tokens_per_s']:.0f}",
                     f"{once['ttft_p50_ms']:.0f} ms", f"{once['ttft_p99_ms']:.0f} ms", f"{rate['ttft_p50_ms']:.0f} ms",
                     f"{rate['ttft_p99_ms']:.0f} ms", percent(rate["cached_tokens"] / rate["input_tokens"])])
    ratios = [once_on / once_off for once_on, once_off in
              ((at_once["on"][name], at_once["off"][name]) for name in
               ("total_tokens_per_s", "output_tokens_per_s", "ttft_p50_ms", "ttft_p99_ms"))]
    ratios += [arriving["on"][name] / arriving["off"][name] for name in ("ttft_p50_ms", "ttft_p99_ms")]
    rows.append(["on / off", *(f"{ratio:.2f}" for ratio in ratios), ""])
    return (f"{count} requests, medians of {simulate.rounds} runs.\n\n"
            + table(["", "at once: tokens/s, in and out", "out", "TTFT p50", "TTFT p99", f"{PREFIX_RATE}/s: TTFT p50",
                     "TTFT p99", "prompt tokens cached"], rows))


def engine_overload(simulate: Simulator) -> str:
    longest = 1536
    workload = ("--num-prompts", simulate.count(128), "--max-model-len", longest)
    ample = simulate.bench(*workload)
    work = ample["input_tokens"] + ample["output_tokens"]
    small = (*workload, "--kv-cache-memory", max(work // OVERLOAD, longest + 64) * DEMO_KV_BYTES)
    lines = {"ample memory": ample}
    lines["no preemption: lengths known"] = simulate.bench(*small, "--kv-reservation", "oracle")
    lines["preempted: recompute"] = recompute = simulate.bench(*small, "--preemption-mode", "recompute")
    lines["no headroom: recompute"] = simulate.bench(*small, "--preemption-mode", "recompute", "--no-admission-headroom")
    for mode in ("swap", "auto"):
        with tempfile.TemporaryDirectory() as folder:
            line = simulate.bench(*small, "--preemption-mode", mode, "--kv-disk-path", folder)
        if mode == "swap" and (line["tier_saved_bytes"] <= 0 or line["tier_loaded_bytes"] <= 0):
            raise SystemExit("swapping moved no bytes")
        lines[f"preempted: {mode}"] = line
    fitting = max(1, round(recompute["kv_sequences"]))
    limited = simulate.bench(*small, "--preemption-mode", "recompute", "--max-num-seqs", fitting)
    lines[f"at most {fitting} sequences, recompute"] = limited
    rows = []
    for name, line in lines.items():
        against = [percent(1 - line["output_tokens_per_s"] / other["output_tokens_per_s"]) for other in (ample, limited)]
        moved = [f"{line[f'tier_{what}_bytes'] / 1e6:.0f} MB" for what in ("saved", "loaded")]
        rows.append([name, f"{line['output_tokens_per_s']:.0f}", *against, f"{line['kv_sequences']:.1f}",
                     str(line["preemptions"]), *moved])
    return (f"{work:,} tokens of work on {recompute['kv_slots']:,} KV slots, {work / recompute['kv_slots']:.1f} times as many.\n\n"
            + table(["", "output tokens/s", "loss to ample memory", f"loss to at most {fitting} sequences",
                     "sequences in the batch", "preemptions", "saved", "read back"], rows))


def block_size_kernel(simulate: Simulator) -> str:
    program = pathlib.Path(simulate.options.pagemill).parents[2] / "bench/pm_attention_bench"
    if not program.exists():
        raise SystemExit(f"{program}: not built: ninja pm_attention_bench")
    command = [str(program), "--benchmark_filter=block_size", "--benchmark_format=json", "--benchmark_min_time=0.3",
               f"--benchmark_repetitions={simulate.rounds}", "--benchmark_enable_random_interleaving=true"]
    print(f"+ {shlex.join(command)}", file=sys.stderr, flush=True)
    result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    shapes = {"decode_64x300": "GB/s", "decode_1x2000": "GB/s", "prefill_512": "GFLOP/s", "prefill_2048": "GFLOP/s",
              "chunk_256_of_2048": "GFLOP/s"}
    speeds: dict[tuple[str, int], list[float]] = {}
    for line in result["benchmarks"]:
        if line["run_type"] == "iteration":
            shape, size = re.match(r"(\w+)/block_size:(\d+)/", line["name"]).groups()
            speeds.setdefault((shape, int(size)), []).append(line[shapes[shape]])
    rows = []
    for size in sorted({size for _, size in speeds}):
        cells = []
        for shape in shapes:
            speed = statistics.median(speeds[shape, size])
            cells.append(f"{speed:.1f} ({100 * speed / statistics.median(speeds[shape, 16]):.0f} %)")
        rows.append([str(size), *cells])
    return (f"Medians of {simulate.rounds} runs; in brackets, over blocks of 16.\n\n"
            + table(["block size", *(f"{shape}, {unit}" for shape, unit in shapes.items())], rows))


FIGURES = {figure.__name__: figure for figure in (fig2, fig13, fig12, memory, waste, block_size, prefix_cache, replicas,
                                                  block_size_kernel, engine_memory, engine_sharing, engine_latency,
                                                  engine_sharing_throughput, engine_sharing_throughput_ample,
                                                  engine_prefix, engine_overload)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=[*FIGURES, "all"])
    parser.add_argument("--pagemill", default=ROOT / "build/release/src/cli/pagemill")
    parser.add_argument("--data", type=pathlib.Path, help="the folder of traces (default: $PAGEMILL_DATA, "
                        "../shared/data)", default=os.environ.get("PAGEMILL_DATA", ROOT.parent / "shared/data"))
    parser.add_argument("--quick", action="store_true", help="few requests (of figures from the real engine), and no change "
                        "of the page")
    options = parser.parse_args()
    for name in FIGURES if options.figure == "all" else [options.figure]:
        simulate = Simulator(options)
        text = FIGURES[name](simulate)
        print(text, flush=True)
        if not options.quick:
            put_into_page(PAGE, name, f"{text}\n\nMade by `bench/paged_attention.py {name}`.\n")


if __name__ == "__main__":
    main()
