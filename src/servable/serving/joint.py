"""Several requests that have one reply: given when all are answered, or when the first has failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from servable.core.errors import ServingError
from servable.core.messages import InferRequest, InferResponse, Reply

Answers: TypeAlias = Sequence[InferResponse]
"""In the order of the requests; at least one."""


class Cancellable(Protocol):
    """A request in work."""

    def cancel(self) -> None:
        """Give up."""


class Submits(Protocol):
    """The request path, as far as it is needed here."""

    def submit(self, request: InferRequest, reply: Reply) -> Cancellable | None:
        """Start a request."""


class Joint:
    """Requests whose sender waits for all of them."""

    __slots__ = ("_answers", "_left", "_parts", "_reply")

    def __init__(self, count: int, reply: Callable[[Answers | ServingError], None]) -> None:
        self._answers: list[InferResponse | None] = [None] * count
        self._parts: list[Cancellable] = []
        self._left = count
        self._reply: Callable[[Answers | ServingError], None] | None = reply

    def add(self, part: Cancellable | None) -> None:
        """Note a request in work; once another has failed there is no use in it."""
        if part is None:
            return
        self._parts.append(part)
        if self._reply is None:
            part.cancel()

    def settle(self, index: int, outcome: InferResponse | ServingError) -> None:
        """Take one outcome; reply with the last answer, or with the first error."""
        reply = self._reply
        if reply is None:
            return
        if isinstance(outcome, ServingError):
            self._reply = None
            self.cancel()
            reply(outcome)
            return
        self._answers[index] = outcome
        self._left -= 1
        if self._left == 0:
            self._reply = None
            reply([answer for answer in self._answers if answer is not None])

    def cancel(self) -> None:
        """Give up on all of them."""
        for part in self._parts:
            part.cancel()


def submit_all(
    path: Submits, requests: Sequence[InferRequest], reply: Callable[[Answers | ServingError], None]
) -> Joint:
    """Submit requests beside each other; ``reply`` is called once, on the loop. Returns what can be cancelled."""
    joint = Joint(len(requests), reply)
    for index, request in enumerate(requests):
        joint.add(path.submit(request, partial(joint.settle, index)))
    return joint
