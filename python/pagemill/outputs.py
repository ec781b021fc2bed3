"""What a request gives back. The fields are those that vLLM's users read; all of them pickle."""

from __future__ import annotations

import dataclasses

__all__ = ["BeamSearchOutput", "BeamSearchSequence", "CompletionOutput", "Logprob", "RequestMetrics", "RequestOutput",
           "ScoringOutput"]


@dataclasses.dataclass
class Logprob:
    """A candidate token under the raw distribution, before temperature, penalties and masks."""

    logprob: float
    """Natural logarithm, <= 0."""
    rank: int | None = None
    """1 is the most likely."""
    decoded_token: str | None = None
    """The token decoded alone, with U+FFFD for half a character."""


@dataclasses.dataclass
class CompletionOutput:
    """One generated sequence of a request."""

    index: int
    """0..n-1; under best_of and beam search 0 is the best."""
    text: str
    """Without the stop string, unless include_stop_str_in_output."""
    token_ids: list[int]
    """[num_tokens]"""
    cumulative_logprob: float | None = None
    """Sum over token_ids; None unless SamplingParams.logprobs is set."""
    logprobs: list[dict[int, Logprob]] | None = None
    """[num_tokens], the chosen token first, then the likeliest; None unless SamplingParams.logprobs is set."""
    finish_reason: str | None = None
    """"stop", "length", "abort" or "error"; None while it runs."""
    stop_reason: int | str | None = None
    """The stop string or stop token that ended it; None for EOS and length."""
    beam_score: float | None = None
    """Of a beam search: cumulative logprob / length ** length_penalty."""

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclasses.dataclass
class RequestMetrics:
    """When what happened, in seconds of time.monotonic(); 0 for what did not happen."""

    arrival_time: float
    first_scheduled_time: float
    first_token_time: float
    finished_time: float

    @property
    def time_in_queue(self) -> float:
        """Seconds from arrival to the first step."""
        return max(0.0, self.first_scheduled_time - self.arrival_time)


@dataclasses.dataclass
class RequestOutput:
    """What became of one prompt."""

    request_id: str
    prompt: str | None
    """The text, or a chat's rendered text; None for token ids."""
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    """[num_prompt_tokens], the first None: nothing predicts it. None unless SamplingParams.prompt_logprobs is set."""
    outputs: list[CompletionOutput]
    """[n]"""
    finished: bool
    metrics: RequestMetrics | None = None
    num_cached_tokens: int = 0
    """Prompt tokens found in the prefix cache."""


@dataclasses.dataclass
class BeamSearchSequence:
    """A hypothesis, the prompt included."""

    tokens: list[int]
    """[num_prompt_tokens + num_tokens]"""
    cum_logprob: float
    """Natural logarithm, summed over the generated tokens."""
    text: str
    """All of tokens, special ones included."""
    logprobs: list[dict[int, Logprob]]
    """[num_tokens]"""
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    beam_score: float | None = None
    """What hypotheses are ordered by: cum_logprob / length ** length_penalty."""


@dataclasses.dataclass
class BeamSearchOutput:
    """The hypotheses of one prompt, best first."""

    sequences: list[BeamSearchSequence]
    """[beam_width]"""


@dataclasses.dataclass
class ScoringOutput:
    """The log-likelihood of a text under the model."""

    logprob: float
    """Natural logarithm, summed over token_logprobs."""
    token_ids: list[int]
    """Tokens that are scored, [num_tokens]."""
    token_logprobs: list[float]
    """[num_tokens]"""

    @property
    def perplexity(self) -> float:
        """exp(-mean of token_logprobs); nan without tokens."""
        import math

        return math.exp(-self.logprob / len(self.token_ids)) if self.token_ids else math.nan
