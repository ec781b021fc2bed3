"""bench/peers with the one engine that is here: what it measures, and what it writes of it."""

import json
import pathlib
import sys

import pytest
from conftest import BINARY, ROOT, free_port

PEERS = ROOT / "bench/peers"
REQUESTS, TOKENS = 3, 6


@pytest.fixture
def peers(monkeypatch):
    """Its modules, which find each other beside themselves."""
    monkeypatch.syspath_prepend(str(PEERS))
    before = set(sys.modules)
    import engines
    import report

    yield engines, report
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def job(peers, tmp_path, demo_path, monkeypatch):
    engines, _ = peers
    monkeypatch.setattr(engines, "PORT", free_port())
    workload = tmp_path / "workload.jsonl"
    prompts = [[100 * request + token for token in range(200, 280)] for request in range(REQUESTS)]
    workload.write_text("".join(json.dumps({"prompt_token_ids": prompt, "output_len": TOKENS}) + "\n" for prompt in prompts))
    return engines.Job(models=pathlib.Path(demo_path).parent, workload=workload, folder=tmp_path, pagemill=BINARY, prefill_lens=(32,))


def check(result):
    assert result["first_token_s"] > 0 and result["decode_tokens_per_s"] > 0 and result["prefill_tokens_per_s"]["32"] > 0
    assert result["workload"]["requests"] == REQUESTS and result["workload"]["output_tokens"] == REQUESTS * TOKENS
    assert result["peak_memory_mib"] > 50 and result["cpu_s"] > 0 and 0 <= result["others_share"] <= 1


def test_in_process(peers, job, demo_path):
    engines, _ = peers
    check(engines.Pagemill("pagemill", "Q4_1", pathlib.Path(demo_path).name).measure(job))


def test_behind_a_server_as_llama_cpp(peers, job, demo_path):
    engines, _ = peers

    class Served(engines.LlamaCpp):
        server = engines.Pagemill.server
        alone = lambda self: self  # its slots are not ours
        options = engines.Pagemill.options

    check(Served("pagemill", "Q4_1", pathlib.Path(demo_path).name).measure(job))


def test_serving_and_report(peers, job, demo_path, tmp_path, monkeypatch):
    engines, report = peers
    engine = engines.Pagemill("pagemill", "Q4_1", pathlib.Path(demo_path).name)
    result = engines.measure_serving(engine, job, concurrencies=(2,), rates=(20.0,))
    assert [(load["kind"], load["requests_ok"]) for load in result["loads"]] == [("concurrency", REQUESTS), ("rate", REQUESTS)]
    monkeypatch.setattr(report, "ROUNDS", tmp_path / "rounds")
    line = {"suite": "s", "engine": engine.name, "time": "2026-01-01T00:00:00", "commit": "c", "cpu": "a machine", "versions": {},
            "flags": {"a": 1}, "max_requests": None, "probe_before": {"worth_threads": 1.9},
            "probe_after": {"worth_threads": 2.0}, "result": result}
    report.add_round(line)
    report.add_round(line)
    table = report.serving_table("s").splitlines()
    assert len(table) == 4 and table[2].startswith("| pagemill, Q4_1: 2 at once |")
    assert "2 rounds" in report.conditions("s") and "1.9 to 2.0" in report.conditions("s")


def test_a_server_that_does_not_start(peers, job):
    engines, _ = peers
    with pytest.raises(engines.EngineFailed, match="did not start"):
        engines.Server(engines.Pagemill("pagemill", "none", "no-such.gguf"), job).__enter__()
