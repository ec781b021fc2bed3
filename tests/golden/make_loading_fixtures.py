#!/usr/bin/env python3
"""Writes loading/: tiny checkpoints by the real writers (torch, safetensors, gguf).

Needs the PyPI packages `torch`, `safetensors`, `gguf`, `numpy`; the tests only read the files.
Every tensor's values follow from its name alone (see `values`), so that a test can tell them apart.
"""

import collections
import json
import pathlib
import shutil
import zlib

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).parent / "loading"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "vocab_size": 10,
    "tie_word_embeddings": False,
}
SHAPES = {
    "model.embed_tokens.weight": (10, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 12),
    "model.norm.weight": (8,),
    "lm_head.weight": (10, 8),
}


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Element i is (crc32(name) % 97 + i) / 8: exact in bf16 up to 32."""
    count = int(np.prod(shape))
    return ((np.arange(count) + zlib.crc32(name.encode()) % 97) / 8).astype(np.float32).reshape(shape)


def tensors(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {n: torch.from_numpy(values(n, s)).to(dtype) for n, s in SHAPES.items()}


def folder(name: str, config: dict) -> pathlib.Path:
    path = ROOT / name
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return path


def halves(state: dict) -> tuple[dict, dict]:
    names = list(state)
    return {n: state[n] for n in names[:2]}, {n: state[n] for n in names[2:]}


def write_index(path: pathlib.Path, shards: dict[str, dict]) -> None:
    weight_map = {tensor: shard for shard, part in shards.items() for tensor in part}
    path.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}) + "\n")


def safetensors_folders() -> None:
    v5 = dict(CONFIG, dtype="float32")
    v5["rope_parameters"] = {"rope_type": "linear", "rope_theta": 50000.0, "factor": 2.0}
    path = folder("safetensors_f32", v5)
    save_file(tensors(torch.float32), path / "model.safetensors", {"format": "pt"})
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}) + "\n")

    classic = dict(CONFIG, torch_dtype="bfloat16", rope_theta=1000000, rope_scaling=None)
    path = folder("safetensors_sharded", classic)
    first, second = halves(tensors(torch.bfloat16))
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file(first, path / names[0], {"format": "pt"})
    save_file(second, path / names[1], {"format": "pt"})
    write_index(path / "model.safetensors.index.json", {names[0]: first, names[1]: second})


def torch_folders() -> None:
    path = folder("torch_f16", dict(CONFIG, torch_dtype="float16"))
    state = collections.OrderedDict(tensors(torch.float16))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]  # tied: one storage
    both = torch.arange(16, dtype=torch.float16)
    state["model.norm.weight"] = torch.nn.Parameter(both[8:])  # a view with an offset
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # as Module.state_dict() adds
    torch.save(state, path / "pytorch_model.bin")

    path = folder("torch_sharded", CONFIG)
    first, second = halves(tensors(torch.float32))
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    torch.save(first, path / names[0])
    torch.save(second, path / names[1], pickle_protocol=4)
    write_index(path / "pytorch_model.bin.index.json", {names[0]: first, names[1]: second})

    torch.save({"w": torch.arange(6.0).reshape(2, 3).T}, ROOT / "torch_transposed.bin")
    torch.save({"w": torch.zeros(2)}, ROOT / "torch_legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), ROOT / "torch_module.bin")


def gguf_file(name: str, arch: str, **extra) -> None:
    writer = gguf.GGUFWriter(ROOT / name, arch)
    writer.add_name("Tiny")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(256)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_token_list(["a", "b", "c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if "yarn" in extra:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(16)
    rng = np.random.default_rng(7)
    writer.add_tensor("token_embd.weight", values("token_embd.weight", (3, 64)))
    for tensor, kind in extra["tensors"].items():
        data = rng.normal(size=(2, 256)).astype(np.float32)
        if kind in ("Q4_K", "Q5_K", "Q6_K"):  # the package has no quantizer for these
            size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
            packed = rng.integers(0, 256, size=(2, size), dtype=np.uint8)
        else:
            packed = gguf.quants.quantize(data, gguf.GGMLQuantizationType[kind])
        writer.add_tensor(tensor, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_files() -> None:
    every = {
        "blk.0.attn_q.weight": "F16",
        "blk.0.attn_k.weight": "BF16",
        "blk.0.attn_v.weight": "Q8_0",
        "blk.0.attn_output.weight": "Q4_0",
        "blk.0.ffn_gate.weight": "Q4_1",
        "blk.0.ffn_up.weight": "Q4_K",
        "blk.0.ffn_down.weight": "Q5_K",
        "output.weight": "Q6_K",
        "rope_freqs.weight": "F32",
    }
    gguf_file("llama.gguf", "llama", tensors=every)
    gguf_file("qwen2_yarn.gguf", "qwen2", yarn=True, tensors={"blk.0.attn_q.bias": "F32"})
    gguf_file("unsupported_type.gguf", "llama", tensors={"blk.0.attn_q.weight": "Q5_0"})


def main() -> None:
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    torch.manual_seed(0)
    safetensors_folders()
    torch_folders()
    gguf_files()


if __name__ == "__main__":
    main()
