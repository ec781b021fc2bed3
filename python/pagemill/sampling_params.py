"""How tokens are chosen: SamplingParams (from the engine's own list of fields) and BeamSearchParams."""

from __future__ import annotations

import dataclasses
import enum

from ._engine import SamplingParams

__all__ = ["BeamSearchParams", "RequestOutputKind", "SamplingParams"]

SamplingParams.__module__ = __name__


class RequestOutputKind(enum.IntEnum):
    """What AsyncLLM.generate yields."""

    CUMULATIVE = 0
    """All of the output so far, each time."""
    DELTA = 1
    """What is new since the last."""
    FINAL_ONLY = 2
    """One output, when the request has finished."""


@dataclasses.dataclass
class BeamSearchParams:
    """A beam search; see SamplingParams' use_beam_search, which this is turned into."""

    beam_width: int
    """Beams, 1..128; as many hypotheses are returned."""
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    """Must be 0: a beam search ranks tokens and draws none."""
    length_penalty: float = 1.0
    """Scores are divided by length to this power."""

    def to_sampling_params(self) -> SamplingParams:
        return SamplingParams(n=self.beam_width, use_beam_search=True, beam_width=self.beam_width,
                              max_tokens=self.max_tokens, ignore_eos=self.ignore_eos, temperature=self.temperature,
                              length_penalty=self.length_penalty, logprobs=0)
