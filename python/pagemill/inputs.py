"""What a prompt may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Union

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ChatMessage", "PromptType", "TextPrompt", "TokensPrompt"]


class TextPrompt(TypedDict):
    """A text, which the model's tokenizer encodes with the special tokens that it adds."""

    prompt: str


class TokensPrompt(TypedDict):
    """Token ids: 1..max_model_len-1 of them, each below the vocabulary's size."""

    prompt_token_ids: "Sequence[int] | np.ndarray"


PromptType = Union[str, Sequence[int], "np.ndarray", TextPrompt, TokensPrompt]
"""A text, token ids (a sequence or a 1-D array of integers), or one of these in a dict."""

ChatMessage = Mapping[str, Any]
"""OpenAI's message: role, content (a string or a list of text parts), and what else the chat template reads."""
