#!/usr/bin/env python3
"""Random-weight models of a few thousand parameters, one for each variant of a configuration, with what Transformers
computes for them in float32.

    make_tiny_models.py [--out DIR]

Writes OUT/NAME/{config.json, model.safetensors or another storage, NAME.golden} (default OUT: tiny/ beside this
script). The configurations are written by hand as published models have them; variants that share their weights link
to one file. The golden holds the prompts' token ids, 64 columns of the logits at every position, and a greedy
continuation of the longest prompt with the same columns of each step.

`meta.without` lists changes that switch a feature off ("config" is a JSON merge patch for config.json; "zero", "one" and
"copy" change tensors) with the greatest difference in logits that the change makes. This script fails where a change
makes too little difference to be noticed, or where logits have a standard deviation below 1: a golden that a wrong
engine could pass is no golden.

Needs torch, transformers and safetensors; runs offline in two minutes.
"""
import argparse
import copy
import json
import math
import os
import pathlib
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import safetensors.torch
import torch
import transformers
from transformers import AutoModelForCausalLM

import golden_format
import tiny_tokenizer

HERE = pathlib.Path(__file__).resolve().parent
PROMPT_LENGTHS = (5, 19, 96)  # past every window and original context below
CONTINUATION = 16
NUM_COLUMNS = 64
MIN_DIFFERENCE = 1e-2  # ten times the tolerance of the test
MIN_STD = 1.0

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
MISTRAL = {**LLAMA, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}
QWEN2 = {
    **LLAMA,
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
    "sliding_window": 24,
    "max_window_layers": 2,
}
NO_SCALING = ("no scaling", {"config": {"rope_scaling": None}})


def scaling(original: int, **rope_scaling) -> dict:
    return {**LLAMA, "max_position_embeddings": original, "rope_scaling": rope_scaling}


def yarn(**extra) -> dict:
    base = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    return {**LLAMA, "max_position_embeddings": 128, "rope_scaling": {**base, **extra}}


def drop(*keys) -> dict:
    return {"config": {"rope_scaling": {key: None for key in keys}}}


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# name -> (config, weights of (another variant or None for its own), storage, [(label, change that must be noticed)])
VARIANTS = {
    "gqa": (
        LLAMA,
        None,
        "bf16",
        [
            ("output tied to the embedding", {"copy": {"lm_head.weight": "model.embed_tokens.weight"}}),
            ("no final norm weight", {"one": ["model.norm.weight"]}),
            ("no layer norm weight", {"one": ["model.layers.1.post_attention_layernorm.weight"]}),
        ],
    ),
    "mha": ({**LLAMA, "num_key_value_heads": 4}, None, "bf16", []),
    "mha_default": ({k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}, "mha", "bf16", []),
    "mqa": ({**LLAMA, "num_key_value_heads": 1}, None, "bf16", []),
    "tied": ({**LLAMA, "tie_word_embeddings": True}, None, "bf16", []),
    "attention_bias": (
        {**LLAMA, "attention_bias": True},
        None,
        "bf16",
        [
            (f"no {p} bias", {"zero": [f"model.layers.{i}.self_attn.{p}_proj.bias" for i in (0, 1)]})
            for p in ("q", "k", "v", "o")
        ],
    ),
    "mlp_bias": (
        {**LLAMA, "mlp_bias": True},
        None,
        "bf16",
        [
            (f"no {p} bias", {"zero": [f"model.layers.{i}.mlp.{p}_proj.bias" for i in (0, 1)]})
            for p in ("gate", "up", "down")
        ],
    ),
    "head_dim": ({**LLAMA, "head_dim": 32, "num_hidden_layers": 1}, None, "bf16", []),
    "odd_sizes": (
        {
            **LLAMA,
            "vocab_size": 101,
            "hidden_size": 60,
            "intermediate_size": 76,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 20,
        },
        None,
        "bf16",
        [],
    ),
    "rms_norm_eps": (
        {**LLAMA, "rms_norm_eps": 0.1},
        "gqa",
        "bf16",
        [("usual eps", {"config": {"rms_norm_eps": 1e-5}})],
    ),
    "rope_theta": (
        {**LLAMA, "rope_theta": 500.0},
        "gqa",
        "bf16",
        [("usual theta", {"config": {"rope_theta": 10000.0}}), ("no theta", {"config": {"rope_theta": None}})],
    ),
    "rope_linear": (scaling(64, type="linear", factor=4.0), "gqa", "bf16", [NO_SCALING]),
    "rope_dynamic": (scaling(64, type="dynamic", factor=4.0), "gqa", "bf16", [NO_SCALING]),
    "rope_llama3": (
        {**LLAMA, "rope_scaling": LLAMA3},
        "gqa",
        "bf16",
        [
            NO_SCALING,
            ("other low factor", {"config": {"rope_scaling": {"low_freq_factor": 2.0}}}),
            ("other high factor", {"config": {"rope_scaling": {"high_freq_factor": 8.0}}}),
            ("no original length", drop("original_max_position_embeddings")),
        ],
    ),
    "rope_parameters": (
        {
            **{k: v for k, v in LLAMA.items() if k not in ("rope_theta", "torch_dtype")},
            "dtype": "bfloat16",
            "rope_parameters": {**LLAMA3, "rope_theta": 500.0},
        },
        "gqa",
        "bf16",
        [
            ("no scaling", {"config": {"rope_parameters": {"rope_type": "default"}}}),
            ("usual theta", {"config": {"rope_parameters": {"rope_theta": 10000.0}}}),
        ],
    ),
    "rope_yarn": (yarn(), "gqa", "bf16", [NO_SCALING, ("no original length", drop("original_max_position_embeddings"))]),
    "rope_yarn_attention_factor": (
        yarn(attention_factor=0.7),
        "gqa",
        "bf16",
        [NO_SCALING, ("no attention_factor", drop("attention_factor"))],
    ),
    "rope_yarn_beta": (
        yarn(beta_fast=1.0, beta_slow=0.25, original_max_position_embeddings=64),
        "gqa",
        "bf16",
        [("no beta_fast", drop("beta_fast")), ("no beta_slow", drop("beta_slow"))],
    ),
    "rope_yarn_mscale": (
        yarn(mscale=1.0, mscale_all_dim=0.4),
        "gqa",
        "bf16",
        [("no mscale", drop("mscale", "mscale_all_dim"))],
    ),
    "rope_yarn_truncate": (
        yarn(beta_fast=1.0, beta_slow=0.25, original_max_position_embeddings=64, truncate=False),
        "gqa",
        "bf16",
        [("truncate", drop("truncate"))],
    ),
    "mistral": (
        MISTRAL,
        "gqa",
        "bf16",
        [("a window", {"config": {"sliding_window": 24}})],
    ),
    "mistral_window": (
        {**MISTRAL, "sliding_window": 24},
        "gqa",
        "bf16",
        [
            ("no window", {"config": {"sliding_window": None}}),
            ("one token more", {"config": {"sliding_window": 25}}),
            ("one token less", {"config": {"sliding_window": 23}}),
        ],
    ),
    "qwen2": (
        QWEN2,
        None,
        "bf16",
        [
            (f"no {p} bias", {"zero": [f"model.layers.{i}.self_attn.{p}_proj.bias" for i in (0, 1)]})
            for p in ("q", "k", "v")
        ],
    ),
    "qwen2_tied": ({**QWEN2, "tie_word_embeddings": True}, None, "bf16", []),
    "qwen2_window": (
        {**QWEN2, "use_sliding_window": True, "max_window_layers": 1},
        "qwen2",
        "bf16",
        [
            ("no window", {"config": {"use_sliding_window": False}}),
            ("window in every layer", {"config": {"max_window_layers": 0}}),
            ("window in no layer", {"config": {"max_window_layers": 2}}),
            ("one token more", {"config": {"sliding_window": 25}}),
        ],
    ),
    "qwen2_layer_types": (
        {**QWEN2, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]},
        "qwen2",
        "bf16",
        [("other layers", {"config": {"layer_types": ["full_attention", "sliding_attention"]}})],
    ),
    "stored_f32": ({**LLAMA, "num_hidden_layers": 1, "torch_dtype": "float32"}, None, "f32", []),
    "stored_f16": ({**LLAMA, "num_hidden_layers": 1, "torch_dtype": "float16"}, None, "f16", []),
    "sharded": ({**LLAMA, "tie_word_embeddings": True}, None, "sharded", []),
    "torch_bin": ({**LLAMA, "num_hidden_layers": 1}, None, "torch", []),
    "torch_bin_sharded": ({**LLAMA, "num_hidden_layers": 1, "tie_word_embeddings": True}, None, "torch-sharded", []),
    # With a tokenizer and a chat template: what a server can be tested with.
    "chat": (
        {**LLAMA, "vocab_size": tiny_tokenizer.VOCAB_SIZE, "tie_word_embeddings": True, "max_position_embeddings": 2048},
        None,
        "bf16",
        [],
    ),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16}


def random_weights(config: dict, seed: int) -> dict:
    """Float32 tensors by Hugging Face name. Scores spread widely (attention is far from uniform), every norm weight
    differs from one, biases are as large as what they are added to."""
    generator = torch.Generator().manual_seed(seed)
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    q, kv = heads * head, config.get("num_key_value_heads", heads) * head
    qwen = config["model_type"] == "qwen2"

    def normal(*shape, std):
        return torch.randn(shape, generator=generator) * std

    def norm():
        return 1 + normal(hidden, std=0.2)

    tied = config["tie_word_embeddings"]
    weights = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden, std=2.8 / math.sqrt(hidden) if tied else 1.0)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes = {
            "self_attn.q_proj": (q, hidden, 1.5, config.get("attention_bias") or qwen),
            "self_attn.k_proj": (kv, hidden, 1.5, config.get("attention_bias") or qwen),
            "self_attn.v_proj": (kv, hidden, 1.0, config.get("attention_bias") or qwen),
            "self_attn.o_proj": (hidden, q, 1.0, config.get("attention_bias")),
            "mlp.gate_proj": (inner, hidden, 1.0, config.get("mlp_bias")),
            "mlp.up_proj": (inner, hidden, 1.0, config.get("mlp_bias")),
            "mlp.down_proj": (hidden, inner, 1.0, config.get("mlp_bias")),
        }
        for name, (rows, columns, gain, bias) in shapes.items():
            weights[f"{prefix}{name}.weight"] = normal(rows, columns, std=gain / math.sqrt(columns))
            if bias:
                weights[f"{prefix}{name}.bias"] = normal(rows, std=1.0)
        weights[f"{prefix}input_layernorm.weight"] = norm()
        weights[f"{prefix}post_attention_layernorm.weight"] = norm()
    weights["model.norm.weight"] = norm()
    if not tied:
        weights["lm_head.weight"] = normal(config["vocab_size"], hidden, std=2.0 / math.sqrt(hidden))
    return weights


def store(weights: dict, storage: str, directory: pathlib.Path) -> None:
    tensors = {name: tensor.to(DTYPES.get(storage, torch.bfloat16)) for name, tensor in weights.items()}
    if storage in DTYPES or storage == "bf16":
        safetensors.torch.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    if storage == "torch":
        torch.save(tensors, directory / "pytorch_model.bin")
        return
    stem, suffix = ("model", "safetensors") if storage == "sharded" else ("pytorch_model", "bin")
    names, weight_map = list(tensors), {}
    for part, chosen in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"{stem}-{part:05}-of-00002.{suffix}"
        shard = {name: tensors[name] for name in chosen}
        if storage == "sharded":
            safetensors.torch.save_file(shard, directory / file, metadata={"format": "pt"})
        else:
            torch.save(shard, directory / file)
        weight_map.update({name: file for name in chosen})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / f"{stem}.{suffix}.index.json").write_text(json.dumps(index, indent=1) + "\n")


def merge_patch(target: dict, patch: dict) -> dict:
    """RFC 7396."""
    result = copy.deepcopy(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge_patch(result[key], value)
        else:
            result[key] = value
    return result


def load(directory: pathlib.Path):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def forward(model, prompt: list) -> np.ndarray:
    """A fresh pass over a whole prompt: [len, vocab]."""
    return model(torch.tensor([prompt]), use_cache=False).logits[0].numpy()


def continue_greedily(model, prompt: list) -> tuple:
    output = model(torch.tensor([prompt]), use_cache=True)
    tokens, steps = [], []
    for _ in range(CONTINUATION):
        steps.append(output.logits[0, -1].numpy())
        tokens.append(int(steps[-1].argmax()))
        output = model(torch.tensor([[tokens[-1]]]), past_key_values=output.past_key_values, use_cache=True)
    return tokens, np.stack(steps)


def changed_model(directory: pathlib.Path, change: dict, scratch: pathlib.Path, load=load):
    """The model of `directory` with a feature switched off, through a changed copy of the directory."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(directory, scratch)
    config = merge_patch(json.loads((scratch / "config.json").read_text()), change.get("config", {}))
    (scratch / "config.json").write_text(json.dumps(config))
    tensors = safetensors.torch.load_file(scratch / "model.safetensors")
    for name in change.get("zero", []):
        tensors[name] = torch.zeros_like(tensors[name])
    for name in change.get("one", []):
        tensors[name] = torch.ones_like(tensors[name])
    for target, source in change.get("copy", {}).items():
        tensors[target] = tensors[source].clone()
    safetensors.torch.save_file(tensors, scratch / "model.safetensors", metadata={"format": "pt"})
    return load(scratch)


def record(name: str, directory: pathlib.Path, model, changes: list, scratch: pathlib.Path, load=load, prompts=None) -> None:
    """Writes NAME.golden; `changes`: [(label, change)]. `load` is how a changed directory becomes a model."""
    vocab = model.config.vocab_size
    rng = np.random.default_rng(sum(name.encode()))
    prompts = prompts or [rng.integers(3, vocab, length).tolist() for length in PROMPT_LENGTHS]
    columns = np.sort(rng.choice(vocab, NUM_COLUMNS, replace=False))
    logits = [forward(model, prompt)[:, columns] for prompt in prompts]
    tokens, steps = continue_greedily(model, prompts[-1])
    std = float(np.concatenate(logits).std())
    if std < MIN_STD:
        raise SystemExit(f"{name}: logits have a standard deviation of {std:.3f}")
    best = np.sort(steps, -1)

    without = []
    for label, change in changes:
        changed = changed_model(directory, change, scratch, load)
        difference = max(float(np.abs(forward(changed, p)[:, columns] - l).max()) for p, l in zip(prompts, logits))
        if difference < MIN_DIFFERENCE:
            raise SystemExit(f"{name}, {label}: differs by {difference:.2e} only")
        without.append({"label": label, **change, "difference": difference})

    golden_format.write(
        directory / f"{name}.golden",
        {
            "oracle": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "std": std,
            "without": without,
        },
        {
            "prompt_tokens": ("u16", np.concatenate(prompts)),
            "prompt_offsets": ("i32", np.cumsum([0, *PROMPT_LENGTHS])),
            "column_ids": ("i32", columns),
            "logits": ("f32", np.concatenate(logits)),
            "continuation": ("u16", tokens),
            "continuation_logits": ("f32", steps[:, columns]),
            "continuation_gaps": ("f32", best[:, -1] - best[:, -2]),
        },
    )
    details = ", ".join(f"{w['label']} {w['difference']:.2g}" for w in without)
    print(f"{name}: std {std:.2f}, least gap {np.min(best[:, -1] - best[:, -2]):.3f}; {details}", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "tiny")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scratch = pathlib.Path(tempfile.mkdtemp())
    for seed, (name, (config, shared, storage, changes)) in enumerate(VARIANTS.items(), 1):
        directory = args.out / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if shared:
            (directory / "model.safetensors").symlink_to(f"../{shared}/model.safetensors")
        else:
            store(random_weights(config, seed), storage, directory)
        if name == "chat":
            tiny_tokenizer.write_hugging_face(directory)
        record(name, directory, load(directory), changes, scratch)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
