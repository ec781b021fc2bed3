"""AsyncLLM: requests streamed to an asyncio event loop."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import AsyncGenerator
from typing import Any

from . import _engine
from .inputs import PromptType
from .llm import LLM
from .outputs import RequestOutput
from .sampling_params import SamplingParams

__all__ = ["AsyncLLM"]


class AsyncLLM:
    """A model in this process, for asyncio. Arguments are those of LLM.

    The engine's threads never wait for the event loop or the GIL: outputs gather until the loop takes them.
    """

    def __init__(self, model: str, **arguments: Any) -> None:
        self._llm = LLM(model, **arguments)
        self._rooms: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _MailRoom] = weakref.WeakKeyDictionary()
        self._running: dict[str, _engine.Stream] = {}
        self._keys = itertools.count(1)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), self._llm._arguments)

    async def generate(self, prompt: PromptType, sampling_params: SamplingParams | None = None,
                       request_id: str | None = None, *, priority: int = 0) -> AsyncGenerator[RequestOutput, None]:
        """Yields what is known of the request each time that there is more, the last time with `finished`.

        Leaving the loop, closing the generator or cancelling the task aborts the request; its blocks are free within a
        step.

        Args:
            prompt: as LLM.generate takes it.
            sampling_params: None is get_default_sampling_params(). Its output_kind says what is yielded: all so far
                (the default), what is new, or the last alone.
            request_id: a name for abort() and RequestOutput; None makes one up. ValueError if it is running already.
            priority: lower runs earlier, under scheduling_policy="priority".

        Raises:
            ValueError, TypeError: the prompt or its parameters can't be served.
            RuntimeError: max_queued_requests are waiting already.
        """
        loop = asyncio.get_running_loop()
        room = self._rooms.get(loop)
        if room is None:
            room = self._rooms[loop] = _MailRoom(loop)
        key = next(self._keys)
        name = str(key) if request_id is None else request_id
        if name in self._running:
            raise ValueError(f"request_id: {name!r} is running already")
        if sampling_params is None:
            sampling_params = self.get_default_sampling_params()
        arrived = room.events[key] = asyncio.Event()
        stream = None
        try:
            # The tokenizer may take a while; a stream that nobody waits for any more aborts itself.
            stream = await asyncio.to_thread(_engine.Stream, self._llm._engine, prompt, sampling_params, room.mailbox,
                                             key, name, priority)
            self._running[name] = stream
            finished = False
            while not finished:
                await arrived.wait()
                arrived.clear()
                output = stream.take()
                if output is not None:
                    finished = output.finished
                    yield output
        finally:
            del room.events[key]
            if stream is not None:
                self._running.pop(name, None)
                stream.abort()

    async def abort(self, request_id: str) -> None:
        """Ends a request: its generator yields once more, with finish_reason "abort". Unknown ids are ignored."""
        stream = self._running.get(request_id)
        if stream is not None:
            stream.abort()

    def get_tokenizer(self) -> _engine.Tokenizer:
        """The model's tokenizer. ValueError if it has none."""
        return self._llm.get_tokenizer()

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation config recommends."""
        return self._llm.get_default_sampling_params()

    def stats(self) -> dict[str, int | float]:
        """Counters and gauges of the engine, by name."""
        return self._llm.stats()

    async def reset_prefix_cache(self) -> None:
        """No prompt from now on finds a prefix that was computed before."""
        self._llm.reset_prefix_cache()


class _MailRoom:
    """Wakes the generators of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.mailbox = _engine.Mailbox()
        self.events: dict[int, asyncio.Event] = {}
        loop.add_reader(self.mailbox.fileno(), self._deliver)

    def _deliver(self) -> None:
        for key in self.mailbox.take():
            if key in self.events:
                self.events[key].set()


def _make(cls: type[AsyncLLM], arguments: dict[str, Any]) -> AsyncLLM:
    return cls(**arguments)
