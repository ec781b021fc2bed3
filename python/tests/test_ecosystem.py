"""What people build around it: scripts written for vLLM, prometheus_client, Ray."""

import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import prometheus_client
import pytest

import sdist
from pagemill import LLM, SamplingParams

DEMO = pathlib.Path(os.environ.get("PAGEMILL_HOME", pathlib.Path.home() / ".cache/pagemill"),
                    "models/SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> pathlib.Path:
    try:
        return sdist.fetch("vllm", "0.6.6", tmp_path_factory.mktemp("vllm")) / "examples"
    except LookupError as error:
        pytest.skip(str(error))


def run_example(path: pathlib.Path, model: str, folder: pathlib.Path) -> str:
    """Runs it with only the import changed, where the name of its model leads to the demo model."""
    (folder / model).parent.mkdir()
    (folder / model).symlink_to(DEMO)
    script = folder / path.name
    script.write_text(path.read_text().replace("from vllm", "from pagemill"))
    done = subprocess.run([sys.executable, script.name], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_vllms_basic_example(examples, tmp_path):
    shown = run_example(examples / "offline_inference.py", "facebook/opt-125m", tmp_path)
    assert shown.count("Prompt: ") == shown.count(", Generated text: ") == 4
    # Either quote: the text is random, and Python writes one that has the other in it.
    assert re.search("""Prompt: 'The capital of France is', Generated text: ['"]""", shown)


def test_vllms_chat_example(examples, tmp_path):
    shown = run_example(examples / "offline_inference_chat.py", "meta-llama/Meta-Llama-3-8B-Instruct", tmp_path)
    assert shown.count("Generated text: ") == 11 and "<|im_start|>assistant" in shown


def test_vllms_prefix_caching_example(examples, tmp_path):
    shown = run_example(examples / "offline_inference_with_prefix.py", "facebook/opt-125m", tmp_path)
    assert "Generated answers are the same: True" in shown


def test_vllms_generation_config_example(examples, tmp_path):
    shown = run_example(examples / "offline_inference_with_default_generation_config.py", "Qwen/Qwen2.5-0.5B-Instruct",
                        tmp_path)
    assert shown.count("Generated text: ") == 4


def test_a_prometheus_summary_exports_while_it_runs(llm):
    registry = prometheus_client.CollectorRegistry()
    summary = prometheus_client.Summary("generate_seconds", "Time of generate", registry=registry)

    @summary.time()
    def generate(prompt, params):
        return llm.generate(prompt, params)

    params = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
    generate("Once upon", SamplingParams(max_tokens=1))
    thread = threading.Thread(target=generate, args=("Once upon", params))
    thread.start()
    exported = ""
    while thread.is_alive():
        if llm.stats()["num_requests_running"] == 1:
            exported = prometheus_client.generate_latest(registry).decode()
        time.sleep(0.005)
    assert "generate_seconds_count 1.0" in exported  # while the second one ran
    assert registry.get_sample_value("generate_seconds_count") == 2.0


def test_ray_actors_each_hold_an_llm(tiny_path):
    ray = pytest.importorskip("ray")

    @ray.remote(num_cpus=1)
    class Actor:
        def __init__(self, llm: LLM) -> None:
            self.llm = llm

        def generate(self, prompts, params):
            return os.getpid(), self.llm.generate(prompts, params, use_tqdm=False)

    params = SamplingParams(temperature=0, max_tokens=4)
    llm = LLM(tiny_path)
    [expected] = llm.generate("a", params)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        actors = [Actor.remote(llm) for _ in range(2)]
        answers = ray.get([actor.generate.remote("a", params) for actor in actors])
    finally:
        ray.shutdown()
    assert len({pid for pid, _ in answers} | {os.getpid()}) == 3
    for _, [output] in answers:
        assert output.outputs == expected.outputs
