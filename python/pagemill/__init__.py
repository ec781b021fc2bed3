"""Pagemill: inference and serving of large language models with PagedAttention and continuous batching.

    from pagemill import LLM, SamplingParams

    llm = LLM(model="demo")
    outputs = llm.generate(["Hello, my name is"], SamplingParams(temperature=0.8, top_p=0.95))
    outputs[0].prompt, outputs[0].outputs[0].text

Names and defaults are those of vLLM's offline API. AsyncLLM streams; `pagemill serve MODEL` is the server.
"""

from importlib.metadata import version as _version

from ._engine import Tokenizer
from .async_llm import AsyncLLM
from .inputs import TextPrompt, TokensPrompt
from .llm import LLM
from .outputs import BeamSearchOutput, BeamSearchSequence, CompletionOutput, Logprob, RequestOutput, ScoringOutput
from .sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams

__all__ = ["LLM", "AsyncLLM", "BeamSearchOutput", "BeamSearchParams", "BeamSearchSequence", "CompletionOutput", "Logprob",
           "RequestOutput", "RequestOutputKind", "SamplingParams", "ScoringOutput", "TextPrompt", "TokensPrompt",
           "Tokenizer"]
__version__ = _version("pagemill")
