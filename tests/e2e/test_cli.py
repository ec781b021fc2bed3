"""The other subcommands of the binary."""

import json
import subprocess

import pytest
from conftest import BINARY

SUBCOMMANDS = ["serve", "generate", "chat", "bench", "inspect", "simulate"]


def pagemill(*arguments, stdin="", limit_s=120, **options):
    return subprocess.run([str(BINARY), *map(str, arguments)], input=stdin, capture_output=True, text=True,
                          timeout=limit_s, **options)


def test_help_lists_the_subcommands():
    done = pagemill("--help")
    assert done.returncode == 0 and all(name in done.stdout for name in SUBCOMMANDS)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_each_subcommand(name):
    done = pagemill(name, "--help")
    assert done.returncode == 0 and name in done.stdout and len(done.stdout.splitlines()) > 5


@pytest.mark.parametrize("name", ["throughput", "latency", "serve", "limits"])
def test_help_of_each_bench(name):
    assert pagemill("bench", name, "--help").returncode == 0


def test_bench_limits():
    done = pagemill("bench", "limits", "--threads", 2, "--repeats", 1, "--buffer-size", "16MiB")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["bench"] for line in lines} == {"limits"}
    for threads in (1, 2):
        mine = [line for line in lines if line["threads"] == threads]
        reads = [line for line in mine if "gb_per_s" in line]
        assert [(line["streams"], line["prefetch"]) for line in reads] == [
            (streams, prefetch) for streams in (1, 2, 4, 8) for prefetch in (False, True)]
        assert all(line["gb_per_s"] >= line["gb_per_s_median"] > 0 and line["buffer_bytes"] == 16 << 20
                   for line in reads)
        assert all(line["gflops"] >= line["gflops_median"] > 0 for line in mine if "gflops" in line)
        assert sum("fork_join_us" in line for line in mine) == 1
    assert "streams + prefetch" in done.stderr and "fork and join" in done.stderr


def test_bench_serve_over_http(server, model):
    before = server.metrics()["request_success_total"]
    done = pagemill("bench", "serve", "--base-url", server.url, "--model", model, "--num-prompts", 8, "--input-len", 20,
                    "--output-len", 12, "--request-rate", 20, "--max-concurrency", 4, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert (line["requests_ok"], line["requests_failed"]) == (8, 0)
    assert abs(line["input_tokens"] - 160) <= 16 and abs(line["output_tokens"] - 96) <= 16
    for name in ("ttft", "itl", "e2e"):
        assert 0 < line[f"{name}_p50_ms"] <= line[f"{name}_p90_ms"] <= line[f"{name}_p99_ms"]
    assert line["ttft_p99_ms"] < line["e2e_p99_ms"]
    assert "requests: 8 ok, 0 failed" in done.stderr and "between tokens" in done.stderr
    assert server.metrics()["request_success_total"] - before == 8


@pytest.mark.parametrize("options, message", [
    (["--model", "no-such-model"], "no-such-model"),
    ([], "--model"),
])
def test_bench_serve_says_what_a_server_refuses(server, options, message):
    done = pagemill("bench", "serve", "--base-url", server.url, "--num-prompts", 2, "--rate", 0, *options)
    assert done.returncode != 0 and message in done.stderr and not done.stdout


def test_bench_serve_waits_where_the_queue_is_full(demo_path):
    done = pagemill("bench", "serve", "demo", "--num-prompts", 6, "--input-len", 8, "--output-len", 4, "--rate", 0,
                    "--repeats", 1, "--max-queued-requests", 1, "--max-num-seqs", 1)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["requests_ok"], line["requests_failed"]) == (6, 0) and line["put_off"] > 0


def test_bench_throughput_with_and_without_sharing(demo_path):
    lines = {}
    for name, extra in {"on": [], "off": ["--independent"]}.items():
        done = pagemill("bench", "throughput", "demo", "--num-prompts", 2, "--input-len", 60, "--output-len", 8, "--n", 3,
                        "--repeats", 1, "--no-prefix-caching", *extra)
        assert done.returncode == 0, done.stderr
        lines[name] = json.loads(done.stdout.splitlines()[-1])
    on, off = lines["on"], lines["off"]
    assert (on["requests_ok"], off["requests_ok"]) == (2, 6)
    assert on["output_tokens"] == off["output_tokens"] and off["input_tokens"] == 3 * on["input_tokens"]
    assert on["kv_saved_by_sharing"] > 0.2 and off["kv_saved_by_sharing"] == 0 == off["cached_tokens"]
    assert off["normalized_latency_s"] > 0


def test_version():
    done = pagemill("--version")
    assert done.returncode == 0 and done.stdout.strip()


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["serve"], ["serve", "demo", "--no-such-option"]])
def test_bad_usage_is_an_error(arguments):
    done = pagemill(*arguments)
    assert done.returncode != 0 and (done.stderr or done.stdout)


def test_generate(demo_path):
    done = pagemill("generate", "demo", "-p", "The capital of France is", "--max-tokens", 8, "--temperature", 0)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_generate_says_the_same_by_path(demo_path):
    options = ["-p", "The capital of France is", "--max-tokens", 8, "--temperature", 0]
    assert pagemill("generate", demo_path, *options).stdout == pagemill("generate", "demo", *options).stdout


def test_generate_a_batch_from_a_file(demo_path, tmp_path):
    prompts = ["The capital of France is", "Water boils at", "The opposite of hot is"]
    source, target = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    done = pagemill("generate", "demo", "--prompts", source, "--output", target, "--max-tokens", 8, "--temperature", 0)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(rows) == 3
    assert "Paris" in rows[0]["outputs"][0]["text"]
    assert all(row["outputs"][0]["finish_reason"] == "length" for row in rows)


@pytest.mark.parametrize("content", ["not json\n", '{"no_prompt": 1}\n'])
def test_generate_names_the_bad_line_and_answers_the_others(demo_path, tmp_path, content):
    source, target = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "x"}\n' + content + '{"prompt": "y"}\n')
    done = pagemill("generate", "demo", "--prompts", source, "--output", target, "--max-tokens", 1)
    assert done.returncode != 0 and "prompts.jsonl:2" in done.stderr
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert ["error" in row for row in rows] == [False, True, False]


def test_generate_ends_where_the_model_does_and_repeats_by_seed(demo_path):
    options = ["-p", "Explain how plants grow.", "--chat", "--temperature", 0.8, "--seed", 7]
    first, second = (pagemill("generate", "demo", *options).stdout for _ in range(2))
    assert first == second and len(first.split()) > 16, "more than the API's default of 16 tokens"


def test_chat_answers_lines_of_standard_input(demo_path):
    done = pagemill("chat", "demo", "--temperature", "0", stdin="What is the capital of France?\n")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_generate_keeps_the_order_of_keys_in_tojson(demo_path, tmp_path):
    template, source, target = tmp_path / "t.jinja", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    template.write_text("""{%- set text = messages | tojson -%}
        {%- if text != '[{"role": "user", "content": "Hi"}]' -%}{{ raise_exception("got " ~ text) }}{%- endif -%}
        {{ text }}""")
    chat = ["--chat", "--chat-template", template, "--max-tokens", 2]
    done = pagemill("generate", "demo", "-p", "Hi", *chat)
    assert done.returncode == 0, done.stderr
    assert 'got [{"role": "user", "content": "Ho"}]' in pagemill("generate", "demo", "-p", "Ho", *chat).stderr
    source.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n{"prompt": "Hi"}\n')
    done = pagemill("generate", "demo", "--prompts", source, "--output", target, *chat)
    assert done.returncode == 0, done.stderr
    assert all(json.loads(row)["outputs"][0]["text"] for row in target.read_text().splitlines())


def test_inspect(demo_path):
    done = pagemill("inspect", "demo", "--tensors")
    assert done.returncode == 0, done.stderr
    for word in ("llama", "q4_1", "q8_0", "token_embd.weight", "49152"):
        assert word in done.stdout.lower(), word


@pytest.mark.parametrize("name", ["generate", "serve", "inspect"])
def test_a_model_that_is_not_there(name, tmp_path):
    missing = tmp_path / "missing.gguf"
    done = pagemill(name, missing, *(["-p", "x"] if name == "generate" else []))
    assert done.returncode != 0 and "missing.gguf" in done.stderr + done.stdout


@pytest.mark.parametrize("size", [0, 3, 24, 1000, 1_000_000])
def test_a_truncated_model_names_the_file(demo_path, tmp_path, size):
    broken = tmp_path / "broken.gguf"
    with open(demo_path, "rb") as source:
        broken.write_bytes(source.read(size))
    done = pagemill("generate", broken, "-p", "x")
    assert done.returncode not in (0, -6, -11), done.stderr
    assert "broken.gguf" in done.stderr


def test_a_bad_instruction_set_is_refused(demo_path):
    import os

    done = pagemill("generate", "demo", "-p", "x", env={**os.environ, "PAGEMILL_ISA": "z80"})
    assert done.returncode != 0 and "PAGEMILL_ISA" in done.stderr


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "avx512_bf16"])
def test_every_instruction_set_says_the_same_words(demo_path, isa):
    import os

    avx2 = {"avx2", "fma"}
    avx512 = avx2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"}
    needs = {"scalar": set(), "avx2": avx2, "avx512": avx512, "avx512_bf16": avx512 | {"avx512_bf16"}}[isa]
    if not needs <= set(open("/proc/cpuinfo").read().split()):
        pytest.skip(f"this machine has no {isa}")
    done = pagemill("generate", "demo", "-p", "The capital of France is", "--max-tokens", 3, "--temperature", 0,
                    env={**os.environ, "PAGEMILL_ISA": isa})
    assert done.returncode == 0 and "Paris" in done.stdout, done.stderr
