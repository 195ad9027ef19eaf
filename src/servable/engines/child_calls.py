"""The parent's end of a channel whose child calls other models while it computes."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue

from servable.core.errors import Code, ServingError, failed_precondition
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.tensors import Array
from servable.engines.base import Caller
from servable.engines.child_memory import Arena
from servable.engines.child_messages import Ask, Channel, FromChild, GiveUp, Place, Result, Taken, Told


class Conversation:
    """What parent and child say to each other until the child has its answer. For the thread that waits for that.

    ``expire`` is called when the child, while it waits for no call, has taken longer than ``timeout_s`` (0: any time).
    """

    def __init__(
        self,
        channel: Channel[FromChild],
        requests: Arena,
        answers: Arena,
        caller: Caller | None,
        timeout_s: float,
        expire: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._requests = requests
        self._answers = answers
        self._caller = caller
        self._timeout_s = timeout_s
        self._expire = expire
        self._outstanding: set[int] = set()
        self._news: SimpleQueue[tuple[int, InferResponse | ServingError]] = SimpleQueue()
        self._telling = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = threading.Lock()

    def follow(self, message: FromChild | None) -> FromChild | None:
        """Do what the child asks, from this message on; return its answer, or ``None`` when it has ended."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._channel.read_fd, select.POLLIN)
        try:
            while isinstance(message, Ask | GiveUp | Taken):
                self._take_in(message)
                message = self._next(poll)
            return message
        finally:
            if self._caller is not None:
                self._caller.give_up()
            with self._closing:
                os.close(self._wake)
                self._wake = -1

    def _take_in(self, message: Ask | GiveUp | Taken) -> None:
        if isinstance(message, Taken):
            self._telling = False
        elif isinstance(message, GiveUp):
            self._outstanding.difference_update(message.numbers)
            if self._caller is not None:
                self._caller.give_up(message.numbers)
        else:
            self._ask(message)

    def _ask(self, message: Ask) -> None:
        values = self._answers.take([place for call in message.calls for place in call.inputs], message.memory)
        self._channel.send(Taken())
        requests = {
            call.number: InferRequest(
                ModelRef(call.model, call.version, call.label),
                {place.name.partition("/")[2]: values[place.name] for place in call.inputs},
                call.signature,
                call.outputs,
            )
            for call in message.calls
        }
        self._outstanding.update(requests)
        if self._caller is not None:
            self._caller.call(requests, self._told)
            return
        for number in requests:
            self._told(number, failed_precondition("other models can be called on a server, and not otherwise"))

    def _told(self, number: int, outcome: InferResponse | ServingError) -> None:
        """Take what came of a call. In any thread, also after the end."""
        self._news.put((number, outcome))
        with self._closing:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _next(self, poll: select.poll) -> FromChild | None:
        since = time.monotonic()
        while (message := self._channel.pop()) is None:
            if not self._telling and self._tell():
                since = time.monotonic()
            patience_ms = None
            if self._timeout_s and not self._outstanding:
                patience_ms = max(0.0, 1000 * (since + self._timeout_s - time.monotonic()))
            events = dict(poll.poll(patience_ms))
            if not events:
                self._expire()
                return None
            if self._wake in events:
                os.eventfd_read(self._wake)
            if self._channel.read_fd in events and not self._channel.fill():
                return None
        return message

    def _tell(self) -> bool:
        """Send what came of calls since the last time; false if nothing did."""
        news: dict[int, InferResponse | ServingError] = {}
        try:
            while True:
                number, outcome = self._news.get_nowait()
                if number in self._outstanding:
                    self._outstanding.discard(number)
                    news[number] = outcome
        except Empty:
            pass
        if not news:
            return False
        try:
            message = Told(*_results(news, self._requests))
        except (OSError, TypeError) as error:
            failure = ServingError(Code.RESOURCE_EXHAUSTED, f"the outputs cannot be sent: {error}")
            message = Told(*_results(dict.fromkeys(news, failure), self._requests))
        self._telling = True
        self._channel.send(message)
        return True


def _results(news: Mapping[int, InferResponse | ServingError], arena: Arena) -> tuple[list[Result], int]:
    outputs: dict[int, Mapping[str, Array]] = {
        number: {} if isinstance(outcome, ServingError) else outcome.outputs for number, outcome in news.items()
    }
    places = iter(
        arena.put((f"{number}/{name}", array) for number, arrays in outputs.items() for name, array in arrays.items())
    )
    results = []
    for number, outcome in news.items():
        put: list[Place] = [next(places) for _ in outputs[number]]
        if isinstance(outcome, ServingError):
            results.append(Result(number, outcome.code, outcome.message, put))
        else:
            results.append(Result(number, 0, "", put))
    return results, arena.size
