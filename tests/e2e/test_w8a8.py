"""A W8A8 checkpoint in compressed-tensors format, by its directory alone."""

import json
import shutil

import pytest
from conftest import ROOT
from test_cli import pagemill

DIRECTORY = ROOT / "tests/golden/tiny/w8a8_llama"


def test_inspect_shows_what_it_computes_in():
    done = pagemill("inspect", DIRECTORY, "--tensors")
    assert done.returncode == 0, done.stderr
    for line in ("computes in        I8", "  I8               14 tensors", "memory plan",
                 "model.layers.0.self_attn.k_proj.weight_scale"):
        assert line in done.stdout, line


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_serves_token_ids(start_server, dtype):
    server = start_server("--dtype", dtype, "--served-model-name", "tiny", model=str(DIRECTORY))
    answer = server.client().completions.create(model="tiny", prompt=[5, 6, 7, 8], max_tokens=9, temperature=0,
                                                extra_body={"ignore_eos": True})
    assert answer.usage.prompt_tokens == 4 and answer.usage.completion_tokens == 9


@pytest.mark.parametrize(("key", "value"), [("num_bits", 4), ("strategy", "group"), ("symmetric", False)])
def test_another_scheme_is_refused_by_its_key(tmp_path, key, value):
    copy = shutil.copytree(DIRECTORY, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["weights"][key] = value
    (copy / "config.json").write_text(json.dumps(config))
    done = pagemill("inspect", copy)
    assert done.returncode != 0
    expected = f"copy/config.json: quantization_config.config_groups.group_0.weights.{key}: expected"
    assert expected in done.stderr and f"got {json.dumps(value)}; supported: compressed-tensors" in done.stderr
