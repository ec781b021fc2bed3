#!/usr/bin/env python3
"""Tiny GGUF files with random weights in every storage that the engine reads, and what Transformers computes in
float32 from the same weights dequantized.

    make_tiny_gguf.py [--out DIR]

Writes OUT/gguf_NAME/{model.gguf, gguf_NAME.golden} (default OUT: tiny/ beside this script). The goldens are as
make_tiny_models.py's. Simple formats are quantized by the gguf package; K-quants, which it can only read, are random
valid blocks of sensible scale. What Transformers itself makes of the first file is checked against what is recorded.

Needs torch, transformers, accelerate and gguf; runs offline.
"""
import argparse
import os
import pathlib
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, GgufConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import make_tiny_models
import tiny_tokenizer

QK_K = 256
Q = gguf.GGMLQuantizationType
SMALL = {
    **make_tiny_models.LLAMA,
    "vocab_size": tiny_tokenizer.VOCAB_SIZE,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}
# K-quants need rows of a multiple of 256.
WIDE = {
    **SMALL,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
QWEN2 = {**make_tiny_models.QWEN2, "vocab_size": tiny_tokenizer.VOCAB_SIZE, "tie_word_embeddings": True}
LLAMA3 = make_tiny_models.LLAMA3
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 4.0}


def mixed(name: str):
    """As the files called Q4_K_M: more bits where they matter most."""
    return Q.Q6_K if name in ("token_embd.weight",) or "attn_v" in name or "ffn_down" in name else Q.Q4_K


# name -> (config, storage of a matrix by its GGUF name)
VARIANTS = {
    "f32": (SMALL, lambda name: Q.F32),
    "f16": (SMALL, lambda name: Q.F16),
    "bf16": (SMALL, lambda name: Q.BF16),
    "q8_0": (SMALL, lambda name: Q.Q8_0),
    "q4_0": (SMALL, lambda name: Q.Q4_0),
    "q4_1": (SMALL, lambda name: Q.Q8_0 if name == "token_embd.weight" else Q.Q4_1),
    "q4_k_m": (WIDE, mixed),
    "q5_k": (WIDE, lambda name: Q.Q5_K),
    "q6_k": (WIDE, lambda name: Q.Q6_K),
    "untied": ({**SMALL, "tie_word_embeddings": False}, lambda name: Q.Q8_0),
    "rope_freqs": ({**SMALL, "rope_scaling": LLAMA3}, lambda name: Q.Q8_0),
    "rope_linear": ({**SMALL, "rope_scaling": LINEAR, "max_position_embeddings": 64}, lambda name: Q.Q8_0),
    "rope_yarn": ({**SMALL, "rope_scaling": YARN}, lambda name: Q.Q8_0),
    "qwen2": (QWEN2, lambda name: Q.Q8_0),
}


def half(values) -> np.ndarray:
    """f16 as two bytes each: [n, 2]."""
    return np.asarray(values, np.float16)[:, None].view(np.uint8)


def random_k_blocks(kind, shape: tuple, std: float, rng) -> np.ndarray:
    """Random valid blocks for a matrix [rows, columns], as bytes [rows, columns / 256 * block bytes], whose values
    have mean 0 and about the standard deviation `std`.

    Q4_K and Q5_K: w = d * scale * q - dmin * min with 6-bit scale and min, so dmin = d * mean(q) centres them.
    Q6_K: w = d * scale * (q - 32) with a signed 8-bit scale."""
    count = shape[0] * shape[1] // QK_K
    jitter = rng.uniform(0.7, 1.3, count)

    def bits(width):
        return rng.integers(0, 256, (count, width), np.uint8)

    if kind == Q.Q6_K:
        scales = rng.integers(-32, 32, (count, 16), np.int8).view(np.uint8)
        blocks = [bits(128), bits(64), scales, half(std / (18.5 * 18.5) * jitter)]
    else:
        top = 15 if kind == Q.Q4_K else 31
        d = std / (36.6 * top * 0.31 * 1.4) * jitter
        high = [bits(32)] if kind == Q.Q5_K else []
        blocks = [half(d), half(d * top / 2), bits(12), *high, bits(128)]
    return np.concatenate(blocks, axis=1).reshape(shape[0], -1)


def store(values: np.ndarray, kind, rng) -> tuple:
    """(bytes or values as GGUFWriter takes them, the float32 values that they mean)."""
    if kind in (Q.Q4_K, Q.Q5_K, Q.Q6_K):
        data = random_k_blocks(kind, values.shape, float(values.std()), rng)
    else:
        data = gguf.quants.quantize(values, kind)
    return data, gguf.quants.dequantize(data, kind).astype(np.float32).reshape(values.shape)


def permute(weight: np.ndarray, heads: int, back: bool = False) -> np.ndarray:
    """Between Hugging Face's order of a head's rows (first halves, then second halves of the rotated pairs) and that of
    GGUF's llama (pairs side by side)."""
    shape = (heads, -1, 2) if back else (heads, 2, -1)
    return weight.reshape(*shape, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def gguf_name(name: str) -> str:
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{parts[rest]}.{kind}"
    return f"{parts[stem]}.{kind}"


def add_metadata(writer, config: dict) -> None:
    head = config["hidden_size"] // config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(config["vocab_size"])
    scaling = config.get("rope_scaling", {})
    if scaling.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling.get("rope_type") == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])


def llama3_factors(config: dict) -> np.ndarray:
    """What rope_freqs.weight holds: the plain frequencies over the scaled ones, [head_size / 2]."""
    plain = LlamaConfig(**{k: v for k, v in config.items() if k != "rope_scaling"})
    scaled = LlamaForCausalLM(LlamaConfig(**config)).model.rotary_emb.inv_freq
    return (LlamaForCausalLM(plain).model.rotary_emb.inv_freq / scaled).numpy().astype(np.float32)


def write_model(path: pathlib.Path, config: dict, kind_of, seed: int):
    """Writes the file and returns Transformers' model of what it means."""
    rng = np.random.default_rng(seed)
    arch = config["model_type"]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(path.parent.name)
    add_metadata(writer, config)
    tiny_tokenizer.add_to_gguf(writer)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    state = {}
    for name, tensor in make_tiny_models.random_weights(config, seed).items():
        values = tensor.numpy()
        rotated = next((h for part, h in heads.items() if part in name and arch == "llama"), 0)
        if rotated:
            values = permute(values, rotated)
        kind = kind_of(gguf_name(name)) if values.ndim == 2 else Q.F32
        data, meant = store(np.ascontiguousarray(values), kind, rng)
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
        state[name] = torch.from_numpy((permute(meant, rotated, back=True) if rotated else meant).copy())
    if config.get("rope_scaling") is LLAMA3:
        writer.add_tensor("rope_freqs.weight", llama3_factors(config), raw_dtype=Q.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    classes = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[arch]
    settings = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "torch_dtype")}
    model = classes[1](classes[0](**settings, attn_implementation="eager")).float().eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(name != "lm_head.weight" for name in missing):
        raise SystemExit(f"{path}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def check_against_transformers(path: pathlib.Path, model) -> None:
    """The metadata, the names and the order of rows are right if Transformers reads the same model from the file."""
    loaded = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=GgufConfig(dequantize=True),
    ).eval()
    prompt = list(range(3, 43))
    difference = np.abs(make_tiny_models.forward(loaded, prompt) - make_tiny_models.forward(model, prompt)).max()
    if difference > 1e-4:
        raise SystemExit(f"{path}: Transformers reads a model that differs by {difference}")


def check_scaling_matters(name: str, model, config: dict) -> None:
    plain = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in model.config.to_dict().items() if k != "rope_parameters"}))
    plain.config.rope_parameters = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    plain.model.rotary_emb = type(plain.model.rotary_emb)(plain.config)
    plain.load_state_dict(model.state_dict())
    prompt = list(range(3, 99))
    difference = np.abs(make_tiny_models.forward(plain.eval(), prompt) - make_tiny_models.forward(model, prompt)).max()
    if difference < make_tiny_models.MIN_DIFFERENCE:
        raise SystemExit(f"{name}: without scaling it differs by {difference:.2e} only")
    print(f"{name}: without scaling it differs by {difference:.2g}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent / "tiny")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scratch = pathlib.Path(tempfile.mkdtemp())
    for seed, (variant, (config, kind_of)) in enumerate(VARIANTS.items(), 101):
        name = f"gguf_{variant}"
        directory = args.out / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        model = write_model(directory / "model.gguf", config, kind_of, seed)
        if "rope_scaling" in config:
            check_scaling_matters(name, model, config)
        else:
            check_against_transformers(directory / "model.gguf", model)
        make_tiny_models.record(name, directory, model, [], scratch)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
