"""Which engines run against which, on what work."""

import dataclasses
import pathlib
import random
import sys

from engines import THREADS, Engine, LlamaCpp, OpenVino, Pagemill, Transformers, Vllm

sys.path.append(str(pathlib.Path(__file__).parent.parent))
from workloads import lognormal_lengths, random_tokens, write_workload

VLLM_ENV = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_CPU_OMP_THREADS_BIND": f"0-{THREADS - 1}"}
OPENVINO = {"cache_gb": 4, "max_num_seqs": 64, "max_num_batched_tokens": 512,
            "properties": {"INFERENCE_NUM_THREADS": THREADS}}
# Of every sequence there is room for 2,048 tokens.
LLAMA_16 = {"slots": 16, "context": 16 * 2048, "batch": 2048, "ubatch": 512}
LLAMA_32 = {**LLAMA_16, "slots": 32, "context": 32 * 2048}


@dataclasses.dataclass(frozen=True)
class Suite:
    engines: tuple[Engine, ...]
    # Requests, mean tokens in and out, most tokens out.
    workload: tuple[int, int, int, int]
    prefill_lens: tuple[int, ...] = (512,)
    # Servers alone: requests at once, and requests a second with Poisson arrivals.
    concurrencies: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()

    def write_workload(self, path: pathlib.Path) -> pathlib.Path:
        """Log-normal lengths as of `pagemill bench`; the same on every machine."""
        count, mean_in, mean_out, most_out = self.workload
        source = random.Random(20261122)
        inputs = lognormal_lengths(source, count, mean_in, 1.0, 4, 1024)
        outputs = lognormal_lengths(source, count, mean_out, 0.9, 4, 512)
        items = [(random_tokens(source, tokens), min(output, most_out)) for tokens, output in zip(inputs, outputs)]
        return write_workload(path, items)


SUITES = {
    "smollm2": Suite(
        engines=(
            Pagemill("pagemill", "bf16", "smollm2-bf16"),
            Vllm("vllm", "bf16", "smollm2-bf16", {"max_model_len": 8192}, VLLM_ENV),
            OpenVino("openvino", "bf16", "smollm2-openvino-bf16", OPENVINO),
            LlamaCpp("llama.cpp", "bf16", "smollm2-BF16.gguf", LLAMA_16),
            Transformers("transformers", "bf16", "smollm2-bf16", {"threads": THREADS}, max_requests=24),
            Pagemill("pagemill", "w8a8", "smollm2-w8a8"),
            Vllm("vllm", "w8a8", "smollm2-w8a8", {"max_model_len": 8192}, VLLM_ENV),
            OpenVino("openvino", "int8", "smollm2-openvino-int8", OPENVINO),
            *(peer for kind in ("Q8_0", "Q4_0", "Q4_1") for peer in (
                Pagemill("pagemill", kind, f"smollm2-{kind}.gguf"),
                LlamaCpp("llama.cpp", kind, f"smollm2-{kind}.gguf", LLAMA_32))),
        ),
        workload=(128, 160, 200, 512), prefill_lens=(512, 4096)),
    "llama-1b": Suite(
        engines=(
            Pagemill("pagemill", "bf16", "llama-1b"),
            Vllm("vllm", "bf16", "llama-1b", {"max_model_len": 2048}, VLLM_ENV),
            OpenVino("openvino", "bf16", "llama-1b-openvino-bf16", OPENVINO),
            LlamaCpp("llama.cpp", "bf16", "llama-1b-BF16.gguf", LLAMA_16),
            *(peer for kind in ("Q8_0", "Q4_0") for peer in (
                Pagemill("pagemill", kind, f"llama-1b-{kind}.gguf"),
                LlamaCpp("llama.cpp", kind, f"llama-1b-{kind}.gguf", LLAMA_16))),
        ),
        workload=(24, 160, 200, 128)),
    "serving": Suite(
        engines=(
            Pagemill("pagemill", "bf16", "smollm2-bf16"),
            Vllm("vllm", "bf16", "smollm2-bf16", {"max_model_len": 8192}, VLLM_ENV),
            LlamaCpp("llama.cpp", "bf16", "smollm2-BF16.gguf", LLAMA_16),
            Pagemill("pagemill", "Q4_0", "smollm2-Q4_0.gguf"),
            LlamaCpp("llama.cpp", "Q4_0", "smollm2-Q4_0.gguf", LLAMA_32),
        ),
        workload=(64, 160, 200, 512), concurrencies=(1, 4, 16, 64), rates=(0.5, 1, 2, 3)),
}
