"""The child's end of the channel while its model computes: calls of other models go out, what they gave comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from servable.core.errors import Code, ServingError, failed_precondition
from servable.core.messages import InferRequest
from servable.core.tensors import Array
from servable.engines.child_memory import Arena
from servable.engines.child_messages import Ask, Call, Channel, FromParent, GiveUp, Result, Taken, Told


class ChildLink:
    """Calls that share the channel, for coroutines of one loop. Those made in one tick of it travel together."""

    def __init__(self, channel: Channel[FromParent], requests: Arena, answers: Arena) -> None:
        self._channel = channel
        self._requests = requests
        self._answers = answers
        self._open = False
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Mapping[str, Array]]] = {}
        self._unsent: dict[int, InferRequest] = {}
        self._asking = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Let calls be made: the model begins to compute."""
        self._open = True

    def close(self) -> None:
        """Let no more calls be made, and wait until the parent has copied what was asked. Call it before answering."""
        self._open = False
        self._unsent.clear()
        while self._asking:
            message = self._channel.receive()
            if message is None:
                raise BrokenPipeError
            self._take_in(message)
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
        self._rest()

    async def call(self, request: InferRequest) -> Mapping[str, Array]:
        """Call a model and wait for what it gives; raise what it says instead. Cancelling this cancels the call."""
        if not self._open:
            raise failed_precondition(f"model {request.model.name} can be called while predict runs, and not otherwise")
        loop = asyncio.get_running_loop()
        self._number += 1
        number = self._number
        future: asyncio.Future[Mapping[str, Array]] = loop.create_future()
        self._waiting[number] = future
        if self._loop is None:
            self._loop = loop
            loop.add_reader(self._channel.read_fd, self._read)
        self._unsent[number] = request
        if len(self._unsent) == 1:
            loop.call_soon(self._send)
        try:
            return await future
        except asyncio.CancelledError:
            if self._waiting.pop(number, None) is not None and self._unsent.pop(number, None) is None:
                self._channel.send(GiveUp([number]))
            raise
        finally:
            if not self._waiting:
                self._rest()

    def _rest(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._channel.read_fd)
            self._loop = None

    def _send(self) -> None:
        if self._asking or not self._unsent:
            return
        unsent, self._unsent = self._unsent, {}
        try:
            places = iter(
                self._answers.put(
                    (f"{number}/{name}", array)
                    for number, request in unsent.items()
                    for name, array in request.inputs.items()
                )
            )
        except OSError as error:
            for number in unsent:
                self._settle(number, ServingError(Code.RESOURCE_EXHAUSTED, f"the inputs cannot be sent: {error}"))
            return
        calls = [
            Call(
                number,
                request.model.name,
                request.signature,
                request.model.version,
                request.model.label,
                request.output_filter,
                [next(places) for _ in request.inputs],
            )
            for number, request in unsent.items()
        ]
        self._asking = True
        self._channel.send(Ask(calls, self._answers.size))

    def _read(self) -> None:
        if not self._channel.fill():
            raise SystemExit(1)  # the parent is gone
        while (message := self._channel.pop()) is not None:
            self._take_in(message)

    def _take_in(self, message: FromParent) -> None:
        if isinstance(message, Taken):
            self._asking = False
            self._send()
        elif isinstance(message, Told):
            values = self._requests.take(
                [place for result in message.results for place in result.outputs], message.memory
            )
            self._channel.send(Taken())
            for result in message.results:
                self._settle(result.number, _outcome(result, values))

    def _settle(self, number: int, outcome: Mapping[str, Array] | ServingError) -> None:
        future = self._waiting.pop(number, None)
        if future is None or future.done():
            return
        if isinstance(outcome, ServingError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _outcome(result: Result, values: Mapping[str, Array]) -> Mapping[str, Array] | ServingError:
    if result.code:
        return ServingError(Code(result.code), result.message)
    prefix = f"{result.number}/"
    return {place.name.removeprefix(prefix): values[place.name] for place in result.outputs}
