"""The progress bar of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Progress:
    """A context manager; `callback` is what the engine reports to, or None without a bar."""

    def __init__(self, use_tqdm: bool | Callable[..., Any]) -> None:
        self._bar: Any = None
        if use_tqdm is True:
            from tqdm.auto import tqdm as use_tqdm
        self._make = use_tqdm or None
        self.callback = self._update if self._make else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _update(self, num_finished: int, num_prompts: int, num_tokens: int, elapsed_s: float) -> None:
        if self._bar is None:
            self._bar = self._make(total=num_prompts, desc="Processed prompts", dynamic_ncols=True)
        self._bar.set_postfix_str(f"{num_tokens} tokens, {num_tokens / max(elapsed_s, 1e-9):.1f} tokens/s", refresh=False)
        self._bar.update(num_finished - self._bar.n)
        self._bar.refresh()
