"""Keyword arguments of LLM and AsyncLLM: the engine's own, and those of vLLM's that change nothing on a CPU."""

from __future__ import annotations

import warnings
from typing import Any

from . import _engine

# vLLM's arguments that have one meaning here: any other value is refused.
FIXED = {
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "quantization": None,
    "revision": None,
    "enable_lora": False,
    "skip_tokenizer_init": False,
    "enable_chunked_prefill": True,
    "load_format": "auto",
    "tokenizer_mode": "auto",
    "task": "generate",
    "runner": "generate",
    "generation_config": "auto",
}

# vLLM's arguments that have no effect here whatever they are, and why.
IGNORED = {
    "gpu_memory_utilization": "kv_cache_memory_bytes bounds the KV cache",
    "swap_space": "kv_disk_path keeps blocks on a disk",
    "cpu_offload_gb": "the weights are in the CPU's memory",
    "enforce_eager": "there are no CUDA graphs",
    "max_seq_len_to_capture": "there are no CUDA graphs",
    "compilation_config": "nothing is compiled at run time",
    "disable_custom_all_reduce": "there is one process",
    "distributed_executor_backend": "there is one process",
    "trust_remote_code": "no code of a model's repository runs",
    "disable_log_stats": "LLM.stats() has them",
    "disable_log_requests": "requests are not logged",
    "allowed_local_media_path": "prompts are text",
    "limit_mm_per_prompt": "prompts are text",
    "mm_processor_kwargs": "prompts are text",
}


def engine_options(model: str, tokenizer: object, options: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """What the engine takes, of an LLM's arguments. Raises TypeError for an argument that does not exist, ValueError for
    one that can't be had; warns of one that changes nothing."""
    if tokenizer is not None and tokenizer != model:
        raise ValueError(f"tokenizer: expected the model's own ({model!r}, or None), got {tokenizer!r}; prompts may be "
                         "token ids of any tokenizer")
    for name, value in others.items():
        if name in IGNORED:
            warnings.warn(f"{name} changes nothing: {IGNORED[name]}", stacklevel=4)
        elif name not in FIXED:
            known = ", ".join(["tokenizer", *_engine.default_engine_options()])
            raise TypeError(f"LLM has no argument '{name}'; it has {known}")
        elif value != FIXED[name]:
            raise ValueError(f"{name}: expected {FIXED[name]!r}, got {value!r}")
    return {"model": model, **options}
