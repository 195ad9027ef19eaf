"""Answers in parts: a stream is a request that is queued anew for each of its parts, when its client wants one.

So other requests run between two parts, a slow client holds up nobody else, and nothing is computed that nobody takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from typing import Protocol

from servable.core.errors import Code, ServingError, internal
from servable.core.messages import InferResponse, Reply
from servable.core.tensors import Array, join_parts
from servable.engines.base import Model
from servable.lifecycle.manager import LoadedVersion
from servable.serving.pending import Pending

log = logging.getLogger("servable.serving")

JOINED_BYTES = 256 * 1024 * 1024
"""What the parts of an answer may come to that is asked for whole."""
_CANCELLED = ServingError(Code.CANCELLED, "the client gave up while the answer was made")

PartOutcome = dict[str, Array] | ServingError | None
"""What came of a step: a part, an error, or ``None``: there are no more parts."""


class Consumer(Protocol):
    """Who takes an answer in parts. Called on the loop; must not block."""

    def part(self, response: InferResponse) -> bool:
        """Take a part. False: the next is made when ``Stream.resume`` is called."""

    def end(self, error: ServingError | None) -> None:
        """There is no more: all has been said, or an error stopped it. Called once, last, after ``cancel`` too."""


class Stream(Pending):
    """A request that is answered in parts. ``again`` queues it for its next step."""

    __slots__ = ("_again", "_parts", "_waits", "closing", "consumer", "started")

    def __init__(
        self,
        loaded: LoadedVersion,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        deadline: float | None,
        consumer: Consumer,
        again: Callable[[Stream], None],
    ) -> None:
        super().__init__(loaded, signature, inputs, outputs, self._end, deadline)
        self.consumer = consumer
        self.started = False
        """Whether its first step has been made."""
        self.closing = False
        self._again = again
        self._parts: Generator[dict[str, Array], None, None] | None = None
        self._waits = False

    def _end(self, outcome: InferResponse | ServingError) -> None:
        self.consumer.end(outcome if isinstance(outcome, ServingError) else None)

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for more parts."""
        return self.closing

    def advance(self, model: Model) -> PartOutcome:
        """Make the next part, or end the generator. On the engine's thread; never raises."""
        try:
            if self.closing:
                if self._parts is not None:
                    self._parts.close()
                return _CANCELLED
            if self._parts is None:
                self._parts = model.stream(self.signature, self.inputs, self.outputs)
            return next(self._parts, None)
        except ServingError as error:
            return error
        except Exception as error:
            log.exception("engine %s failed in signature %s", model.engine, self.signature)
            return internal(f"the engine failed: {type(error).__name__}")

    def took(self, response: InferResponse) -> None:
        """Hand a part over, and go on when the client does. On the loop."""
        self.started, self.abandoned = True, False
        more = False
        if not self.closing:
            try:
                more = self.consumer.part(response)
            except Exception:
                log.exception("a part of an answer could not be given")
                self.cancel()
        if more or self.closing:
            self._again(self)
        else:
            self._waits = True

    def resume(self) -> None:
        """Make the next part: the client takes more."""
        if self._waits:
            self._waits = False
            self._again(self)

    def cancel(self) -> None:
        """Give up: the generator is closed when the step that it makes now has ended."""
        if self.closing:
            return
        self.closing = True
        if self.started:
            self.told_to_give_up()
            self.resume()
        else:
            super().cancel()


class Joining:
    """Takes parts for a client that wants one answer."""

    def __init__(self, reply: Reply) -> None:
        self.stream: Stream | None = None
        self._reply = reply
        self._parts: list[InferResponse] = []
        self._size = 0
        self._error: ServingError | None = None

    def part(self, response: InferResponse) -> bool:
        """Keep a part."""
        self._parts.append(response)
        self._size += sum(array.nbytes for array in response.outputs.values())
        if self._size > JOINED_BYTES and self.stream is not None:
            message = f"the answer grew beyond {JOINED_BYTES} bytes; ask for it in parts"
            self._error = ServingError(Code.RESOURCE_EXHAUSTED, message)
            self.stream.cancel()
        return True

    def end(self, error: ServingError | None) -> None:
        """Reply."""
        parts, self._parts = self._parts, []
        error = self._error or error
        if error is None:
            try:
                outputs = join_parts([part.outputs for part in parts])
            except ValueError as reason:
                error = internal(f"the answer cannot be given whole: {reason}")
        if error is not None:
            self._reply(error)
            return
        first = parts[0]
        self._reply(
            InferResponse(first.model, first.signature, outputs, first.queue_s, sum(part.compute_s for part in parts))
        )


class Whole:
    """Hands one answer to a consumer, as its only part."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __call__(self, outcome: InferResponse | ServingError) -> None:
        """Be the reply."""
        if isinstance(outcome, ServingError):
            self._consumer.end(outcome)
            return
        self._consumer.part(outcome)
        self._consumer.end(None)


class Pulling:
    """A consumer that a coroutine takes parts from. One part is made ahead."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[InferResponse | ServingError | None] = asyncio.Queue()

    def part(self, response: InferResponse) -> bool:
        """Keep a part until it is taken."""
        self._ready.put_nowait(response)
        return False

    def end(self, error: ServingError | None) -> None:
        """Note the end."""
        self._ready.put_nowait(error)

    async def take(self) -> InferResponse | None:
        """Return the next part, ``None`` at the end; raise the error that ended it."""
        outcome = await self._ready.get()
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome
