"""`pagemill simulate`: policies, sweeps, replicas, prefix caches and plots, on made-up traces."""

import json
import pathlib
import re
import subprocess
import xml.etree.ElementTree

import pytest
from conftest import BINARY

DATA = pathlib.Path(__file__).parent / "data"
CSV, MOONCAKE = DATA / "tiny_trace.csv", DATA / "tiny_trace.jsonl"
POLICIES = ["paged", "paged-full", "orca-max", "orca-pow2", "orca-oracle", "static"]


def run(*arguments):
    return subprocess.run([str(BINARY), "simulate", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def simulate(*arguments) -> dict:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_policies_on_a_trace_file():
    result = simulate("--trace", CSV, "--policy", ",".join(POLICIES), "--kv-slots", 4096)
    assert result["setting"]["kv_slots"] == 4096
    runs = {line["policy"]: line for line in result["runs"]}
    assert list(runs) == POLICIES
    for line in runs.values():
        assert line["requests"] == 30 and line["requests_refused"] == 0
        memory = line["memory"]
        parts = sum(memory[state] for state in ("tokens", "reserved", "internal", "rounding", "cached", "free"))
        assert abs(parts - 1) < 1e-9
    assert runs["paged"]["memory"]["waste"] < 0.2 < runs["orca-max"]["memory"]["waste"]
    assert runs["orca-max"]["max_batch"] == runs["static"]["max_batch"] == 2
    assert runs["paged"]["normalized_latency_s"] < runs["orca-max"]["normalized_latency_s"]


def test_the_table_says_what_was_assumed():
    done = run("--synthetic", "alpaca", "--rate", 5, "--duration", 20, "--seed", 7)
    assert done.returncode == 0, done.stderr
    for part in ("log-normal lengths, input mean 19 (sigma 1), output mean 58 (sigma 0.9)", "seed 7",
                 "opt-13b@a100-40gb", "1555 GB/s", "15700 KV slots"):
        assert part in done.stdout
    assert done.stdout == run("--synthetic", "alpaca", "--rate", 5, "--duration", 20, "--seed", 7).stdout


def test_figures_of_another_machine():
    result = simulate("--trace", CSV, "--weights-bytes", 0, "--kv-bytes-per-token", 0, "--step-overhead-ms", 10)
    # Nothing but the overhead takes time: a decoding step is 10 ms; the smallest prompts add nothing.
    assert 9.999 < result["runs"][0]["itl_ms"]["p50"] < 10.5


def test_a_sweep_of_rates_draws_its_plots(tmp_path):
    result = simulate("--synthetic", "sharegpt", "--rate", "0.5,2,8", "--duration", 120, "--policy", "paged,orca-max",
                      "--plot", tmp_path / "plots")
    sustained = {curve["policy"]: curve["sustained_rate"] for curve in result["curves"]}
    assert 0 < sustained["orca-max"] < sustained["paged"]
    names = {"latency.svg", "batch.svg", "memory-paged.svg", "memory-orca-max.svg"}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == names
    for name in names:
        root = xml.etree.ElementTree.parse(tmp_path / "plots" / name).getroot()
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        paths = list(root.iter("{http://www.w3.org/2000/svg}path"))
        assert len(paths) >= 2 and all(path.get("d").startswith("M") for path in paths)
        assert len(texts) > 10 and all(texts)


def test_measured_latencies_are_drawn_beside_the_curves(tmp_path):
    measured = tmp_path / "measured.jsonl"
    measured.write_text("".join(f'{{"label": "an engine", "rate": {rate}, "normalized_latency_s": {latency}}}\n'
                                for rate, latency in [(2, 0.04), (0.5, 0.02)]))
    sweep = ["--synthetic", "sharegpt", "--rate", "0.5,2", "--duration", 60, "--plot", tmp_path]
    texts, paths = {}, {}
    for name, extra in {"without": [], "with": ["--measured", measured]}.items():
        simulate(*sweep, *extra)
        root = xml.etree.ElementTree.parse(tmp_path / "latency.svg").getroot()
        texts[name] = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        paths[name] = [path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert set(texts["with"]) - set(texts["without"]) == {"an engine"}
    (drawn,) = set(paths["with"]) - set(paths["without"])
    # By rate, whatever the order in the file.
    xs = [float(x) for x in re.findall(r"[ML]\s*([\d.]+)", drawn)]
    assert len(xs) == 2 and xs[0] < xs[1]
    measured.write_text('{"label": "an engine", "rate": 1}\n')
    done = run(*sweep, "--measured", measured)
    assert done.returncode != 0 and f"{measured}:1: expected" in done.stderr


def test_replicas_that_hold_targets():
    targets = "ttft_p99=200,itl_p99=40"
    result = simulate("--synthetic", "sharegpt", "--rate", 12, "--duration", 60, "--replicas-for", targets)
    needed = result["replicas"]
    trials = {trial["replicas"]: trial["holds"] for trial in result["trials"]}
    assert needed > 1 and trials[needed] and not trials[needed - 1]
    done = run("--synthetic", "sharegpt", "--rate", 12, "--duration", 60, "--replicas-for", targets, "--split",
               "round-robin")
    assert done.returncode == 0 and "(round-robin split)" in done.stdout


def test_prefix_caches_in_both_orders():
    result = simulate("--trace", MOONCAKE, "--prefix-cache-blocks", "0,10,16")
    unlimited, small, middle = result["prefix_cache"]
    assert unlimited["reference_block_rate"] == unlimited["engine_block_rate"] > 0.5
    for line in (small, middle):
        assert line["reference_block_rate"] < line["engine_block_rate"] < unlimited["engine_block_rate"]


def test_block_sizes():
    one, sixteen, large = simulate("--trace", CSV, "--block-sizes", "1,16,64")["block_sizes"]
    assert one["memory"]["waste"] < 1e-9 < sixteen["memory"]["waste"] < large["memory"]["waste"]
    shared = simulate("--trace", MOONCAKE, "--hash-block-tokens", 16, "--block-sizes", "1,16,64")["block_sizes"]
    assert shared[0]["prefix_hit_rate"] >= shared[1]["prefix_hit_rate"] > shared[2]["prefix_hit_rate"] > 0


@pytest.mark.parametrize("arguments, message", [
    ([], "--trace or --synthetic is needed"),
    (["--trace", "nowhere.csv"], "cannot open 'nowhere.csv'"),
    (["--trace", CSV, "--machine", "abacus"], "expected one of opt-13b@a100-40gb"),
    (["--trace", CSV, "--replicas-for", "ttft_p98=1"], "expected a target such as ttft_p99=500"),
    (["--trace", CSV, "--replicas-for", "itl_p99=0.001", "--max-replicas", 2], "do not hold"),
    (["--trace", CSV, "--prefix-cache-blocks", "10"], "no ids of shared blocks"),
    (["--trace", CSV, "--kv-slots", 100, "--policy", "static"], "one row of max_model_len"),
    (["--trace", CSV, "--plot", "/proc/no"], "cannot write"),
])
def test_errors_say_what_would_be_right(arguments, message):
    done = run(*arguments)
    assert done.returncode == 1 and message in done.stderr


def test_a_bad_trace_names_its_line(tmp_path):
    trace = tmp_path / "bad.csv"
    trace.write_text("input_tokens,output_tokens\n5,5\n5,five\n")
    done = run("--trace", trace, "--rate", 1)
    assert done.returncode == 1 and "bad.csv:3: output_tokens: expected an integer" in done.stderr


def test_a_machine_measured_with_a_model(demo_path):
    result = simulate("--measure", demo_path, "--synthetic", "alpaca", "--rate", 1, "--duration", 10)
    assert "measured:" in result["setting"]["cost"] and "on this machine" in result["setting"]["machine"]
    assert result["runs"][0]["itl_ms"]["p50"] > 0.1
