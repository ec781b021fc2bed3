#!/usr/bin/env python3
"""Tiny W8A8 checkpoints in compressed-tensors format with random weights, and what the format means in torch: each
linear layer but lm_head quantizes its input token by token, multiplies integers, and applies both scales.

    make_tiny_w8a8.py [--out DIR]

Writes OUT/w8a8_NAME/{config.json, model.safetensors, w8a8_NAME.golden} (default OUT: tiny/ beside this script), goldens
as make_tiny_models.py's. What is not quantized is stored in float32, so that nothing but the format rounds.

An engine whose float32 sums differ in their last bits rounds an activation that lies half-way between two integers to the
other one, and its logits are off by far more than 1e-3 with nobody at fault. The prompts' tokens are therefore drawn so
that no activation of any layer, in any of the changed models too, comes near such a tie.

Needs torch, transformers and safetensors; runs offline in some minutes.
"""
import argparse
import json
import os
import pathlib
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import safetensors.torch
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import make_tiny_models

PROMPT_MARGIN = 4e-4  # least distance from a tie, in steps of the quantization; engines differ by some 1e-5
CONTINUATION_MARGIN = 1.5e-4  # greedy tokens can't be drawn: only the prompt's last tokens are
MAX_TRIES = 150

INTEGERS = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None, "observer_kwargs": {}}
QUANTIZATION = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "kv_cache_scheme": None,
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**INTEGERS, "strategy": "channel", "dynamic": False, "observer": "minmax"},
            "input_activations": {**INTEGERS, "strategy": "token", "dynamic": True, "observer": None},
            "output_activations": None,
        }
    },
}


def scale(layer: int, module: str) -> str:
    return f"model.layers.{layer}.{module}_proj.weight_scale"


# name -> (config, seed, [(label, change that must be noticed)])
VARIANTS = {
    "w8a8_llama": (
        make_tiny_models.LLAMA,
        101,
        [
            ("V's scales for K's", {"copy": {scale(0, "self_attn.k"): scale(0, "self_attn.v")}}),
            ("up's scales for gate's", {"copy": {scale(1, "mlp.gate"): scale(1, "mlp.up")}}),
            ("O's scales for Q's", {"copy": {scale(1, "self_attn.q"): scale(1, "self_attn.o")}}),
            ("down's scales zero", {"zero": [scale(0, "mlp.down")]}),
        ],
    ),
    "w8a8_qwen2": (
        make_tiny_models.QWEN2,
        102,
        [("no v bias", {"zero": [f"model.layers.{i}.self_attn.v_proj.bias" for i in (0, 1)]})],
    ),
    "w8a8_odd_sizes": (
        {
            **make_tiny_models.LLAMA,
            "vocab_size": 101,
            "hidden_size": 63,
            "intermediate_size": 77,
            "num_hidden_layers": 1,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 18,
            "tie_word_embeddings": True,
        },
        103,
        [("up's scales for gate's", {"copy": {scale(0, "mlp.gate"): scale(0, "mlp.up")}})],
    ),
}


def quantize(weight: torch.Tensor) -> tuple:
    """(int8 [N, K], bfloat16 scales [N, 1]) by rounding to nearest."""
    scales = (weight.abs().amax(1, keepdim=True) / 127).to(torch.bfloat16)
    return torch.clamp(torch.round(weight / scales.float()), -128, 127).to(torch.int8), scales


class W8A8Linear(torch.nn.Module):
    """y = sum(q_x q_w) * scale_x * scale_w + bias, the sum exact."""

    least_margin = float("inf")  # of all instances since it was last set

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor, bias):
        super().__init__()
        self.weight, self.scales, self.bias = weight.double(), scales.float().flatten(), bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = x.abs().amax(-1, keepdim=True) / 127
        steps = x / scale
        q = torch.round(steps)  # to nearest, ties to even
        margin = float((0.5 - (steps - q).abs()).min())
        W8A8Linear.least_margin = min(W8A8Linear.least_margin, margin)
        y = (q.double() @ self.weight.T).float() * scale * self.scales  # doubles hold the integers' sums exactly
        return y if self.bias is None else y + self.bias


def load(directory: pathlib.Path):
    config = AutoConfig.from_pretrained(directory)
    del config.quantization_config  # transformers needs another package to make something of it
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    model.load_state_dict({k: v for k, v in tensors.items() if v.is_floating_point()}, strict=False)
    model.tie_weights()
    for name, tensor in tensors.items():
        if tensor.dtype != torch.int8:
            continue
        path = name.removesuffix(".weight")
        linear = W8A8Linear(tensor, tensors[f"{name}_scale"], tensors.get(f"{path}.bias"))
        model.set_submodule(path, linear)
    return model


def store(config: dict, seed: int, directory: pathlib.Path) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in make_tiny_models.random_weights(config, seed).items():
        if name.endswith("_proj.weight"):
            # Rows of unequal size, so that another row's scale is another result.
            weight = weight * torch.exp(0.5 * torch.randn(weight.shape[0], 1, generator=generator))
            tensors[name], tensors[f"{name}_scale"] = quantize(weight)
        else:
            tensors[name] = weight
    safetensors.torch.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    quantized = {**config, "torch_dtype": "float32", "quantization_config": QUANTIZATION}
    (directory / "config.json").write_text(json.dumps(quantized, indent=2) + "\n")


def margin(model, tokens: list, cache=None) -> tuple:
    """The least distance from a tie while `tokens` are computed, and the model's output."""
    W8A8Linear.least_margin = float("inf")
    output = model(torch.tensor([tokens]), past_key_values=cache, use_cache=True)
    return W8A8Linear.least_margin, output


def continuation_margin(model, prompt: list) -> float:
    W8A8Linear.least_margin = float("inf")
    make_tiny_models.continue_greedily(model, prompt)
    return W8A8Linear.least_margin


def is_clear(models: list, caches: list, token: int) -> bool:
    """Whether every model computes `token` after what its cache holds without coming near a tie."""
    for i, model in enumerate(models):
        distance, output = margin(model, [token], caches[i])
        caches[i] = output.past_key_values
        if distance < PROMPT_MARGIN:
            return False
    return True


def truncate(caches: list, length: int) -> None:
    for cache in caches:
        if cache is not None and cache.get_seq_length() > length:
            cache.crop(length - cache.get_seq_length())  # negative: so many are dropped


def draw_prompt(models: list, length: int, rng, continued: bool) -> list:
    """Tokens that are clear of ties in every model; if `continued`, the first model's greedy continuation is as well."""
    prompt, caches = [], [None] * len(models)
    tries = 0  # at this length; a few tokens back there are other ways to go
    while len(prompt) < length:
        token = int(rng.integers(3, models[0].config.vocab_size))
        good = is_clear(models, caches, token)
        if good and continued and len(prompt) + 1 == length:
            good = continuation_margin(models[0], [*prompt, token]) >= CONTINUATION_MARGIN
        if good:
            prompt.append(token)
            tries = 0
            continue
        tries += 1
        if tries > MAX_TRIES:
            del prompt[-3:]
            tries = 0
        truncate(caches, len(prompt))
    return prompt


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=make_tiny_models.HERE / "tiny")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scratch = pathlib.Path(tempfile.mkdtemp())
    for name, (config, seed, changes) in VARIANTS.items():
        directory = args.out / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        store(config, seed, directory)
        model = load(directory)
        models = [model, *(make_tiny_models.changed_model(directory, change, scratch, load) for _, change in changes)]
        rng = np.random.default_rng(seed)
        lengths = make_tiny_models.PROMPT_LENGTHS
        prompts = [draw_prompt(models, length, rng, length == lengths[-1]) for length in lengths]
        make_tiny_models.record(name, directory, model, changes, scratch, load, prompts)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
