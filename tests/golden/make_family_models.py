#!/usr/bin/env python3
"""Random-weight models of a few thousand parameters, one or more for each family of architectures, with what
Transformers computes for them in float32.

    make_family_models.py [--out DIR] [NAME ...]

Writes OUT/NAME/{config.json, model.safetensors, NAME.golden} (default OUT: tiny/ beside this script) as
make_tiny_models.py does for LLaMA's variants: see there for what a golden holds and what "without" means. The
configurations are written by hand with the keys that published models have.

Needs torch, transformers and safetensors; runs offline in two minutes.
"""
import argparse
import json
import math
import pathlib
import shutil
import tempfile
import zlib

import safetensors.torch
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import make_tiny_models as tiny

COMMON = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
SIZES = {
    **COMMON,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GQA = {**SIZES, "num_key_value_heads": 2}


def family(architecture: str, model_type: str, base: dict, **extra) -> dict:
    return {"architectures": [architecture], "model_type": model_type, **base, **extra}


def off(label: str, **config) -> tuple:
    return label, {"config": config}


def layers(template: str) -> list:
    return [template.format(i) for i in (0, 1)]


def zero(label: str, *names: str) -> tuple:
    return label, {"zero": list(names)}


def zero_layers(label: str, template: str) -> tuple:
    return zero(label, *layers(template))


def one_layers(label: str, template: str) -> tuple:
    return label, {"one": layers(template)}


GPT2 = family(
    "GPT2LMHeadModel",
    "gpt2",
    {**COMMON, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_ctx": 256},
    activation_function="gelu_new",
    layer_norm_epsilon=1e-5,
)
BIGCODE = {**GPT2, "architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode", "n_inner": 80}
NEOX = family(
    "GPTNeoXForCausalLM",
    "gpt_neox",
    SIZES,
    hidden_act="gelu",
    layer_norm_eps=1e-5,
    rotary_pct=0.5,
    rotary_emb_base=10000,
    use_parallel_residual=True,
    tie_word_embeddings=False,
)
GPTJ = family(
    "GPTJForCausalLM",
    "gptj",
    {**COMMON, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    rotary_dim=8,
    activation_function="gelu_new",
    layer_norm_epsilon=1e-5,
    tie_word_embeddings=False,
)
OPT = family(
    "OPTForCausalLM",
    "opt",
    {**SIZES, "ffn_dim": 80, "word_embed_proj_dim": 48},
    activation_function="relu",
    do_layer_norm_before=True,
    pad_token_id=1,
)
BLOOM = family(
    "BloomForCausalLM",
    "bloom",
    {**COMMON, "n_embed": 48, "n_layer": 2, "num_attention_heads": 6},
    layer_norm_epsilon=1e-5,
    seq_length=256,
)
MPT = family(
    "MptForCausalLM",
    "mpt",
    {**COMMON, "d_model": 48, "n_layers": 2, "n_heads": 4, "max_seq_len": 256, "expansion_ratio": 4},
    attn_config={"alibi": True, "alibi_bias_max": 8, "attn_type": "multihead_attention", "clip_qkv": 1.5},
    no_bias=True,
)
FALCON = family(
    "FalconForCausalLM",
    "falcon",
    {**COMMON, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6, "max_position_embeddings": 256},
    alibi=False,
    bias=False,
    multi_query=True,
    parallel_attn=True,
    new_decoder_architecture=False,
    layer_norm_epsilon=1e-5,
)
FALCON_NEW = {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}
PHI = family(
    "PhiForCausalLM",
    "phi",
    SIZES,
    hidden_act="gelu_new",
    layer_norm_eps=1e-5,
    partial_rotary_factor=0.5,
    rope_theta=10000.0,
    qk_layernorm=False,
    tie_word_embeddings=False,
)
PHI3 = family(
    "Phi3ForCausalLM",
    "phi3",
    GQA,
    hidden_act="silu",
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rope_scaling=None,
    sliding_window=24,
    original_max_position_embeddings=256,
    pad_token_id=0,
    tie_word_embeddings=False,
)
STABLELM = family(
    "StableLmForCausalLM",
    "stablelm",
    GQA,
    hidden_act="silu",
    layer_norm_eps=1e-5,
    partial_rotary_factor=0.5,
    rope_theta=10000,
    use_qkv_bias=True,
    tie_word_embeddings=False,
)
STARCODER2 = family(
    "Starcoder2ForCausalLM",
    "starcoder2",
    GQA,
    hidden_act="gelu_pytorch_tanh",
    norm_epsilon=1e-5,
    use_bias=True,
    rope_theta=100000,
    sliding_window=24,
)
OLMO = family(
    "OlmoForCausalLM",
    "olmo",
    GQA,
    hidden_act="silu",
    clip_qkv=1.0,
    rope_theta=10000.0,
    tie_word_embeddings=False,
)
OLMO2 = family(
    "Olmo2ForCausalLM",
    "olmo2",
    GQA,
    hidden_act="silu",
    rms_norm_eps=1e-6,
    rope_theta=500000,
    tie_word_embeddings=False,
)
GRANITE = family(
    "GraniteForCausalLM",
    "granite",
    GQA,
    hidden_act="silu",
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    embedding_multiplier=3.0,
    attention_multiplier=0.4,
    residual_multiplier=0.6,
    logits_scaling=2.0,
    tie_word_embeddings=True,
)
COHERE = family(
    "CohereForCausalLM",
    "cohere",
    GQA,
    hidden_act="silu",
    layer_norm_eps=1e-5,
    logit_scale=0.5,
    rope_theta=10000.0,
    use_qk_norm=False,
)
COHERE2 = family(
    "Cohere2ForCausalLM",
    "cohere2",
    {**GQA, "num_hidden_layers": 4},
    hidden_act="silu",
    layer_norm_eps=1e-5,
    logit_scale=0.5,
    rope_theta=10000.0,
    sliding_window=24,
    sliding_window_pattern=4,
)
GEMMA = family(
    "GemmaForCausalLM",
    "gemma",
    GQA,
    head_dim=16,
    hidden_act="gelu",
    hidden_activation="gelu_pytorch_tanh",
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
)
GEMMA2 = {
    **GEMMA,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 5.0,
    "sliding_window": 24,
    "cache_implementation": "hybrid",
}
GEMMA3 = {
    **GEMMA,
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "query_pre_attn_scalar": 20,
    "sliding_window": 24,
    "sliding_window_pattern": 2,
    "rope_theta": 100000.0,
    "rope_local_base_freq": 1000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 4.0},
}
QWEN3 = family(
    "Qwen3ForCausalLM",
    "qwen3",
    GQA,
    head_dim=16,
    hidden_act="silu",
    rms_norm_eps=1e-6,
    rope_theta=1000000.0,
    attention_bias=False,
    use_sliding_window=False,
    sliding_window=None,
    tie_word_embeddings=False,
)
MIXTRAL = family(
    "MixtralForCausalLM",
    "mixtral",
    GQA,
    hidden_act="silu",
    num_local_experts=4,
    num_experts_per_tok=2,
    rms_norm_eps=1e-5,
    rope_theta=1000000.0,
    sliding_window=None,
    tie_word_embeddings=False,
)
QWEN3_MOE = {
    **QWEN3,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 3,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
}
QWEN2_MOE = family(
    "Qwen2MoeForCausalLM",
    "qwen2_moe",
    GQA,
    hidden_act="silu",
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    shared_expert_intermediate_size=64,
    norm_topk_prob=False,
    decoder_sparse_step=1,
    rms_norm_eps=1e-6,
    rope_theta=1000000.0,
    use_sliding_window=False,
    max_window_layers=2,
    tie_word_embeddings=False,
)
LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.0, 2.0, 3.0, 4.0, 6.0, 8.0],
}
GPT_NAMES = "transformer.h.{}."
LLAMA_NAMES = "model.layers.{}."

# name -> (config, [what must be noticed when it is switched off])
FAMILIES = {
    "gpt2": (
        GPT2,
        [
            zero("no positions", "transformer.wpe.weight"),
            zero_layers("no QKV bias", GPT_NAMES + "attn.c_attn.bias"),
            zero_layers("no norm bias", GPT_NAMES + "ln_2.bias"),
            off("other activation", activation_function="relu"),
            off("unscaled scores", scale_attn_weights=False),
        ],
    ),
    "gpt2_inner": ({**GPT2, "n_inner": 80, "activation_function": "gelu"}, []),
    "gpt_bigcode": (BIGCODE, [zero_layers("no QKV bias", GPT_NAMES + "attn.c_attn.bias")]),
    "gpt_bigcode_mha": ({**BIGCODE, "multi_query": False}, []),
    "gpt_neox": (
        NEOX,
        [
            off("serial blocks", use_parallel_residual=False),
            off("whole heads turned", rotary_pct=1.0),
            off("other base", rotary_emb_base=100),
            zero_layers("no QKV bias", "gpt_neox.layers.{}.attention.query_key_value.bias"),
        ],
    ),
    "gpt_neox_serial": ({**NEOX, "use_parallel_residual": False, "rotary_pct": 1.0}, []),
    "gptj": (
        GPTJ,
        [off("more of a head turned", rotary_dim=16), zero("no output bias", "lm_head.bias")],
    ),
    "opt": (
        OPT,
        [
            zero("no positions", "model.decoder.embed_positions.weight"),
            off("other activation", activation_function="gelu"),
            zero_layers("no bias", "model.decoder.layers.{}.self_attn.out_proj.bias"),
        ],
    ),
    "bloom": (
        BLOOM,
        [
            ("no embedding norm weight", {"one": ["transformer.word_embeddings_layernorm.weight"]}),
            zero_layers("no QKV bias", GPT_NAMES + "self_attention.query_key_value.bias"),
        ],
    ),
    "mpt": (MPT, [off("no clipping", attn_config={"clip_qkv": None}), off("other scale", attn_config={"softmax_scale": 0.5})]),
    "falcon_mqa": (FALCON, [one_layers("no norm weight", GPT_NAMES + "input_layernorm.weight")]),
    "falcon_serial": ({**FALCON, "multi_query": False, "parallel_attn": False, "bias": True, "ffn_hidden_size": 80}, []),
    "falcon_gqa": (FALCON_NEW, [one_layers("no MLP norm weight", GPT_NAMES + "ln_mlp.weight")]),
    "falcon_gqa_one_norm": ({**FALCON_NEW, "num_ln_in_parallel_attn": 1}, []),
    "phi": (
        PHI,
        [
            off("whole heads turned", partial_rotary_factor=1.0),
            zero("no output bias", "lm_head.bias"),
            zero_layers("no bias", LLAMA_NAMES + "mlp.fc2.bias"),
        ],
    ),
    "phi_qk_norm": ({**PHI, "qk_layernorm": True}, [zero_layers("no Q norm bias", LLAMA_NAMES + "self_attn.q_layernorm.bias")]),
    "phi3": (PHI3, [off("no window", sliding_window=None)]),
    "phi3_partial": ({**PHI3, "partial_rotary_factor": 0.5, "sliding_window": None}, []),
    "phi3_longrope": (
        {**PHI3, "sliding_window": None, "original_max_position_embeddings": 32, "rope_scaling": LONGROPE},
        [
            off("no scaling", rope_scaling=None),
            off("short factors alone", rope_scaling={"long_factor": LONGROPE["short_factor"]}),
            off("other short factors", rope_scaling={"short_factor": LONGROPE["long_factor"]}),
        ],
    ),
    "stablelm": (STABLELM, [off("whole heads turned", partial_rotary_factor=1.0)]),
    "stablelm_parallel": (
        {**STABLELM, "use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": False},
        [("no norm of the first query head", {"one": ["model.layers.0.self_attn.q_layernorm.norms.0.weight"]})],
    ),
    "starcoder2": (
        STARCODER2,
        [off("no window", sliding_window=None), zero_layers("no bias", LLAMA_NAMES + "mlp.c_proj.bias")],
    ),
    "olmo": (OLMO, [off("no clipping", clip_qkv=None)]),
    "olmo2": (
        OLMO2,
        [
            one_layers("no Q norm weight", LLAMA_NAMES + "self_attn.q_norm.weight"),
            one_layers("no norm weight", LLAMA_NAMES + "post_feedforward_layernorm.weight"),
        ],
    ),
    "granite": (
        GRANITE,
        [
            off("no embedding multiplier", embedding_multiplier=1.0),
            off("no attention multiplier", attention_multiplier=1.0),
            off("no residual multiplier", residual_multiplier=1.0),
            off("no logits scaling", logits_scaling=1.0),
        ],
    ),
    "cohere": (COHERE, [off("no logit scale", logit_scale=1.0)]),
    "cohere_qk_norm": (
        {**COHERE, "use_qk_norm": True},
        [one_layers("no K norm weight", LLAMA_NAMES + "self_attn.k_norm.weight")],
    ),
    "cohere2": (COHERE2, [off("no window", sliding_window=256), off("window in every layer", sliding_window_pattern=5)]),
    "gemma": (GEMMA, [zero("no final norm weight", "model.norm.weight")]),
    "gemma2": (
        GEMMA2,
        [
            off("other score softcap", attn_logit_softcapping=50.0),
            off("other logit softcap", final_logit_softcapping=30.0),
            off("other scale", query_pre_attn_scalar=64),
            off("no window", sliding_window=256),
            zero_layers("no post norm weight", LLAMA_NAMES + "post_attention_layernorm.weight"),
        ],
    ),
    "gemma3": (
        GEMMA3,
        [
            off("no window", sliding_window=256),
            off("other local base", rope_local_base_freq=10000.0),
            off("no scaling", rope_scaling=None),
            zero_layers("no K norm weight", LLAMA_NAMES + "self_attn.k_norm.weight"),
        ],
    ),
    "gemma3_layer_types": (
        {
            **{k: v for k, v in GEMMA3.items() if not k.startswith(("rope", "sliding_window_pattern"))},
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
            },
        },
        [off("other layers", layer_types=["sliding_attention", "full_attention"])],
    ),
    "qwen3": (
        QWEN3,
        [
            one_layers("no Q norm weight", LLAMA_NAMES + "self_attn.q_norm.weight"),
            one_layers("no K norm weight", LLAMA_NAMES + "self_attn.k_norm.weight"),
        ],
    ),
    "mixtral": (MIXTRAL, [off("one expert", num_experts_per_tok=1), off("a window", sliding_window=24)]),
    "qwen2_moe": (
        QWEN2_MOE,
        [
            off("weights that sum to one", norm_topk_prob=True),
            zero_layers("no shared expert", LLAMA_NAMES + "mlp.shared_expert.down_proj.weight"),
            zero_layers("no weight of the shared expert", LLAMA_NAMES + "mlp.shared_expert_gate.weight"),
        ],
    ),
    "qwen3_moe": (
        QWEN3_MOE,
        [off("weights as they are", norm_topk_prob=False), zero("no first expert", "model.layers.0.mlp.experts.0.down_proj.weight")],
    ),
}
# Names that models are also published with.
RENAMED = {"gpt2_inner": ("transformer.", "")}
GAIN = {"q_proj": 1.5, "k_proj": 1.5, "c_attn": 1.5, "query_key_value": 1.5, "Wqkv": 1.5, "qkv_proj": 1.5, "lm_head": 2.0,
        "embed_out": 2.0}


def randomize(model, seed: int) -> None:
    """Scores spread widely, every norm weight differs from what it is when it does nothing, biases are as large as what
    they are added to."""
    generator = torch.Generator().manual_seed(seed)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    stores_less_one = "gemma" in model.config.model_type
    for name, parameter in model.named_parameters():
        module = name.split(".")[-2]
        values = torch.randn(parameter.shape, generator=generator)
        if parameter is model.get_input_embeddings().weight:
            values *= 2.8 / math.sqrt(parameter.shape[1]) if tied else 1.0
        elif name.endswith("bias"):
            values *= 0.5
        elif parameter.dim() == 1 or "norm" in module:
            values = values * 0.2 + (0 if stores_less_one else 1)
        elif module in ("wpe", "embed_positions"):
            values *= 0.7
        else:
            transposed = type(model.get_submodule(name.rsplit(".", 1)[0])).__name__ == "Conv1D"
            # Experts of one tensor: [num_experts, out, in].
            values *= GAIN.get(module, 1.0) / math.sqrt(parameter.shape[0 if transposed else -1])
        parameter.copy_(values)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=tiny.HERE / "tiny")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scratch = pathlib.Path(tempfile.mkdtemp())
    for name, (config, changes) in FAMILIES.items():
        if args.names and name not in args.names:
            continue
        directory = args.out / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
        randomize(model, zlib.crc32(name.encode()))
        model.to(torch.bfloat16).save_pretrained(scratch / "saved")  # under the names that are published
        weights = safetensors.torch.load_file(scratch / "saved" / "model.safetensors")
        old, new = RENAMED.get(name, ("", ""))
        weights = {key.replace(old, new) if old else key: tensor for key, tensor in weights.items()}
        safetensors.torch.save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        tiny.record(name, directory, tiny.load(directory), changes, scratch)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
