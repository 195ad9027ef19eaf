"""Models that call models: each call goes the one request path, on behalf of the requests that its caller computes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from servable.core.errors import Code, ServingError, failed_precondition, unavailable
from servable.core.messages import InferRequest, InferResponse, Reply
from servable.engines.base import Told
from servable.serving.pending import Pending

Submit = Callable[[InferRequest, Reply], "Pending | None"]

_CANCELLED = ServingError(Code.CANCELLED, "nobody waits for the answer of the model that calls any more")


class Calls:
    """The ``Caller`` of one batch, or of one stream. Calls have the latest deadline of those who wait for the batch.

    When nobody waits for it any more its calls are cancelled. A model that is among the callers already is refused.
    """

    def __init__(
        self,
        submit: Submit,
        loop: asyncio.AbstractEventLoop,
        callers: tuple[str, ...],
        deadline: float | None = None,
    ) -> None:
        self._submit = submit
        self._loop = loop
        self._callers = callers
        self._deadline = deadline
        self._waiting: int | None = None
        self._told: dict[int, Told] = {}
        self._items: dict[int, Pending] = {}

    @classmethod
    def of(cls, items: Sequence[Pending], submit: Submit, loop: asyncio.AbstractEventLoop) -> Calls:
        """Return the caller for requests that are about to be computed together. On the loop."""
        deadlines = [item.deadline for item in items if item.deadline is not None]
        callers = dict.fromkeys(name for item in items for name in (*item.callers, item.loaded.name))
        deadline = max(deadlines) if len(deadlines) == len(items) else None
        calls = cls(submit, loop, tuple(callers), deadline)
        waiting = [item for item in items if not item.given_up]
        calls._waiting = len(waiting)
        for item in waiting:
            item.on_give_up = calls._one_less
        return calls

    def call(self, requests: Mapping[int, InferRequest], told: Told) -> None:
        """Start these calls in one tick of the loop, so that they can share a batch."""
        try:
            self._loop.call_soon_threadsafe(self._start, requests, told)
        except RuntimeError:  # the loop is closed
            for number in requests:
                told(number, unavailable("the server has stopped"))

    def give_up(self, numbers: Sequence[int] | None = None) -> None:
        """Cancel these calls, or all."""
        try:
            self._loop.call_soon_threadsafe(self._forget, numbers)
        except RuntimeError:
            return

    def _start(self, requests: Mapping[int, InferRequest], told: Told) -> None:
        for number, request in requests.items():
            name = request.model.name
            if self._waiting == 0:
                told(number, _CANCELLED)
            elif name in self._callers:
                told(number, failed_precondition(f"models call each other in a circle: {_way(self._callers, name)}"))
            else:
                request.deadline, request.callers = self._deadline, self._callers
                self._told[number] = told
                item = self._submit(request, partial(self._done, number))
                if item is not None and number in self._told:
                    self._items[number] = item

    def _done(self, number: int, outcome: InferResponse | ServingError) -> None:
        self._items.pop(number, None)
        told = self._told.pop(number, None)
        if told is not None:
            told(number, outcome)

    def _forget(self, numbers: Sequence[int] | None) -> None:
        for number in list(self._told) if numbers is None else numbers:
            self._told.pop(number, None)
            item = self._items.pop(number, None)
            if item is not None:
                item.cancel()

    def _one_less(self) -> None:
        assert self._waiting is not None
        self._waiting -= 1
        if self._waiting == 0:
            waiting = dict(self._told)
            self._forget(None)
            for number, told in waiting.items():
                told(number, _CANCELLED)


def _way(callers: tuple[str, ...], name: str) -> str:
    return " -> ".join((*callers[callers.index(name) :], name))
