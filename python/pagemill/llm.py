"""LLM: offline inference in one object. It loads a model, takes many prompts at once, and gives back finished texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _engine
from .engine_args import engine_options
from .inputs import ChatMessage, PromptType
from .outputs import BeamSearchOutput, BeamSearchSequence, RequestOutput, ScoringOutput
from .progress import Progress
from .sampling_params import BeamSearchParams, SamplingParams

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LLM"]


class LLM:
    """A model in this process, on its own threads.

    Any thread may call any method, also at the same time: all calls share the engine, request by request. The GIL is
    released while it computes. Several LLMs may live in one process. An LLM pickles as its arguments: unpickling loads
    the model again. A process that was forked since can't use it (RuntimeError).

    Args:
        model: a GGUF file, a Hugging Face directory, or "demo".
        tokenizer: None or the same as model: the model's own is used.
        dtype: "auto" (weights as stored), "float32" or "bfloat16".
        kv_cache_dtype: "auto", "float32" or "bfloat16".
        seed: base for requests without a seed; 0 is from the clock.
        max_model_len: most tokens of a sequence, prompt and output; 0 is the model's.
        max_num_seqs: most sequences that run at once.
        max_num_batched_tokens: most tokens of a step.
        max_queued_requests: most requests that wait in the engine; generate() keeps the rest itself.
        block_size: tokens of a KV block, a multiple of 16.
        enable_prefix_caching: keep full blocks for prompts that begin alike.
        kv_cache_memory_bytes: most that the KV cache may grow to; 0 is half of free memory.
        scheduling_policy: "fcfs", "priority" or "fair".
        preemption_mode: "recompute", "swap" (from kv_disk_path), or "auto".
        kv_disk_path: a directory where evicted KV blocks are kept, also for the next start; "" is none.
        kv_disk_bytes: most that they take there.
        admission_headroom: keep room for sequences to grow; False admits whatever fits now.
        chat_template: a Jinja file, or one of "chatml", "llama2", "vicuna"; "" is the model's.
        threads: compute threads; 0 is one per physical core that the process may use.
        vllm_arguments: arguments of vLLM's that change nothing on a CPU (gpu_memory_utilization, ...), with a warning, or
            that have one possible value here (tensor_parallel_size=1).

    Raises:
        FileNotFoundError: no such model.
        ValueError: the model's files are damaged or of an unsupported kind, or an argument is out of range.
        TypeError: an argument does not exist or is of the wrong type.
        RuntimeError: there is not enough memory.
    """

    def __init__(self, model: str, *, tokenizer: str | None = None, dtype: str = "auto", kv_cache_dtype: str = "auto",
                 seed: int | None = 0, max_model_len: int | None = 0, max_num_seqs: int | None = 256,
                 max_num_batched_tokens: int | None = 2048, max_queued_requests: int = 4096,
                 block_size: int | None = 16, enable_prefix_caching: bool | None = True,
                 kv_cache_memory_bytes: int | None = 0, scheduling_policy: str = "fcfs", preemption_mode: str = "auto",
                 kv_disk_path: str = "", kv_disk_bytes: int = 4 << 30, admission_headroom: bool = True,
                 chat_template: str | None = "", threads: int = 0, **vllm_arguments: Any) -> None:
        options = {name: value for name, value in locals().items()
                   if name not in ("self", "model", "tokenizer", "vllm_arguments")}
        self._arguments = {"model": model, "tokenizer": tokenizer, **options, **vllm_arguments}
        self._engine = _engine.Engine(engine_options(model, tokenizer, options, vllm_arguments))

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), self._arguments)

    def __repr__(self) -> str:
        return f"LLM(model={self._arguments['model']!r}, max_model_len={self._engine.max_model_len})"

    def generate(self, prompts: PromptType | Sequence[PromptType],
                 sampling_params: SamplingParams | Sequence[SamplingParams] | None = None, *,
                 use_tqdm: bool | Callable[..., Any] = True) -> list[RequestOutput]:
        """Generates for every prompt and returns when all are done.

        Args:
            prompts: one or a list of: a text, token ids (a sequence or a 1-D array), {"prompt": text},
                {"prompt_token_ids": token ids}. There may be any number of them.
            sampling_params: one for all, or a list of one each; None is get_default_sampling_params().
            use_tqdm: show a progress bar with tokens/s; or what makes one, such as tqdm.tqdm.

        Returns:
            A RequestOutput for each prompt, in their order.

        Raises:
            ValueError: a prompt or its parameters can't be served (the message says which and why); the others are
                computed all the same.
            TypeError: a prompt or parameter is of the wrong type.
            KeyboardInterrupt: Ctrl-C, within about 0.2 s, in the main thread: prompts that have not finished are
                aborted.
            Of these, those raised once prompts have been submitted have an attribute `outputs`: the list that would
            have been returned. There, what finished is whole, what ran has finish_reason "abort" and what it had
            generated, and a prompt that failed or never began has no outputs.
        """
        return self._generate(prompts, self._default(sampling_params), use_tqdm)

    def chat(self, messages: Sequence[ChatMessage] | Sequence[Sequence[ChatMessage]],
             sampling_params: SamplingParams | Sequence[SamplingParams] | None = None, *,
             use_tqdm: bool | Callable[..., Any] = True, chat_template: str | None = None,
             add_generation_prompt: bool = True, continue_final_message: bool = False,
             tools: Sequence[Mapping[str, Any]] | None = None,
             chat_template_kwargs: Mapping[str, Any] | None = None) -> list[RequestOutput]:
        """Generates an answer to one conversation, or to each of a list of them; as generate() otherwise.

        Args:
            messages: OpenAI's messages; a content is a text or a list of text parts.
            chat_template: a Jinja template (its text) instead of the model's.
            add_generation_prompt: end the text with the assistant's turn begun.
            continue_final_message: leave the last message open; needs add_generation_prompt=False.
            tools: OpenAI's tools, for templates that show them.
            chat_template_kwargs: more variables for the template.
        """
        is_one = len(messages) == 0 or isinstance(messages[0], Mapping)
        options: dict[str, Any] = {"add_generation_prompt": add_generation_prompt,
                                   "continue_final_message": continue_final_message}
        if tools:
            options["tools"] = tools
        if chat_template_kwargs:
            options["chat_template_kwargs"] = chat_template_kwargs
        texts = [self._engine.render_chat(json.dumps({"messages": conversation, **options}), chat_template or "")
                 for conversation in ([messages] if is_one else messages)]
        tokenizer = self.get_tokenizer()
        prompts = [{"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)} for text in texts]
        outputs = self._generate(prompts, self._default(sampling_params), use_tqdm)
        for output, text in zip(outputs, texts):
            output.prompt = text
        return outputs

    def beam_search(self, prompts: PromptType | Sequence[PromptType], params: BeamSearchParams, *,
                    use_tqdm: bool | Callable[..., Any] = False) -> list[BeamSearchOutput]:
        """The params.beam_width likeliest sequences for each prompt, best first; by Hugging Face Transformers' rules."""
        tokenizer = self.get_tokenizer()
        return [BeamSearchOutput([BeamSearchSequence(
                    tokens=output.prompt_token_ids + beam.token_ids, cum_logprob=beam.cumulative_logprob or 0.0,
                    text=tokenizer.decode(output.prompt_token_ids + beam.token_ids), logprobs=beam.logprobs or [],
                    finish_reason=beam.finish_reason, stop_reason=beam.stop_reason, beam_score=beam.beam_score)
                    for beam in output.outputs])
                for output in self._generate(prompts, params.to_sampling_params(), use_tqdm)]

    def score(self, prompts: PromptType | Sequence[PromptType], *,
              use_tqdm: bool | Callable[..., Any] = False) -> list[ScoringOutput]:
        """The log-likelihood of each text: the sum of log p(token | tokens before it), from the second token on (nothing
        predicts the first)."""
        outputs = self._generate(prompts, SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0), use_tqdm)
        scores = []
        for output in outputs:
            ids = output.prompt_token_ids[1:]
            logprobs = [position[token].logprob for token, position in zip(ids, output.prompt_logprobs[1:])]
            scores.append(ScoringOutput(sum(logprobs), ids, logprobs))
        return scores

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, with BOS and the like if add_special_tokens. ValueError without a tokenizer."""
        return self.get_tokenizer().encode(text, add_special_tokens)

    def detokenize(self, token_ids: "Sequence[int] | np.ndarray", *, skip_special_tokens: bool = False) -> str:
        """The text of token ids. ValueError without a tokenizer."""
        return self.get_tokenizer().decode(token_ids, skip_special_tokens)

    def get_tokenizer(self) -> _engine.Tokenizer:
        """The model's tokenizer. ValueError if it has none."""
        return self._engine.tokenizer()

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation config recommends; the defaults of SamplingParams where it says nothing."""
        return self._engine.default_sampling_params()

    def stats(self) -> dict[str, int | float]:
        """Counters and gauges of the engine, by name: requests, KV blocks, prefix-cache hits, tokens."""
        return self._engine.stats()

    def reset_prefix_cache(self) -> bool:
        """No prompt from now on finds a prefix that was computed before. True, as vLLM's where it succeeds."""
        self._engine.reset_prefix_cache()
        return True

    def _default(self, params: Any) -> Any:
        return self.get_default_sampling_params() if params is None else params

    def _generate(self, prompts: Any, params: Any, use_tqdm: bool | Callable[..., Any]) -> list[RequestOutput]:
        with Progress(use_tqdm) as progress:
            return self._engine.generate(prompts, params, progress.callback)


def _make(cls: type[LLM], arguments: dict[str, Any]) -> LLM:
    return cls(**arguments)
