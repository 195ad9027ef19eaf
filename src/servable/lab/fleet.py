"""The client processes of a measurement: started, commanded, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from servable.core.errors import internal, unavailable
from servable.lab.orders import Failed, Go, Job, Order, Ready, Stop, ToClient, Unpacker, Window, pack
from servable.lab.recorder import SLICE_NS, Recording, Slice

_LEAD_NS = 50_000_000
"""Between the word to begin and the beginning: all processes must have heard it."""
_END_S = 5.0
OnSlice = Callable[[int, Slice], None]


class _Client:
    """One client process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    def send(self, message: ToClient) -> None:
        """Send, if it still lives."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.process.stdin.write(pack(message))

    async def expect(self) -> Any:
        """Return the next message; INTERNAL if the process has ended instead."""
        message = await self.messages.get()
        if message is None:
            code = await self.process.wait()
            raise internal(f"a client process of the load ended with exit code {code}")
        return message

    async def end(self) -> None:
        """End the process: by closing its input, and if that does not help by force."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await self.process.wait()
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stdout is not None
        unpacker = Unpacker()
        while data := await self.process.stdout.read(1 << 18):
            for message in unpacker.feed(data):
                self.messages.put_nowait(message)
        self.messages.put_nowait(None)


class Fleet:
    """Client processes that all do the same job. ``async with`` ends them, whatever happens."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._clients: list[_Client] = []

    async def __aenter__(self) -> Self:
        """Start the processes."""
        try:
            for job in self._jobs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "servable.lab.worker",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    start_new_session=True,
                )
                self._clients.append(_Client(process))
                self._clients[-1].send(job)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        await self._end()

    @property
    def pids(self) -> list[int]:
        """Return the processes' numbers."""
        return [client.process.pid for client in self._clients]

    async def prepare(self, orders: Sequence[Order]) -> None:
        """Give each process its order and wait until its connections are open; UNAVAILABLE says why they are not."""
        for client, order in zip(self._clients, orders, strict=False):
            client.send(order)
        working = self._clients[: len(orders)]
        answers = await asyncio.gather(*(client.expect() for client in working))
        failures = [answer.message for answer in answers if isinstance(answer, Failed)]
        if failures:
            ready = [client for client, answer in zip(working, answers, strict=True) if isinstance(answer, Ready)]
            for client in ready:
                client.send(Stop())
                await client.expect()
            raise unavailable(failures[0])

    async def run(
        self, count: int, on_slice: OnSlice, stop: asyncio.Event, on_start: Callable[[int], None]
    ) -> list[Recording]:
        """Let the first ``count`` processes do what was prepared; return what each saw.

        ``on_start`` is told when the step begins, in ns of ``time.monotonic_ns()``; ``on_slice`` each process's slices.
        """
        start = time.monotonic_ns() + _LEAD_NS
        on_start(start)
        working = self._clients[:count]
        for client in working:
            client.send(Go(start))
        stopping = asyncio.create_task(self._stop_when(stop, working))
        try:
            return list(
                await asyncio.gather(*(self._follow(place, client, on_slice) for place, client in enumerate(working)))
            )
        finally:
            stopping.cancel()

    def move_window(self, begin_ns: int, end_ns: int) -> None:
        """Tell all that the warm-up was long enough."""
        for client in self._clients:
            client.send(Window(begin_ns, end_ns))

    async def _follow(self, place: int, client: _Client, on_slice: OnSlice) -> Recording:
        while True:
            message = await client.expect()
            if isinstance(message, Recording):
                return message
            on_slice(place, message)

    async def _stop_when(self, stop: asyncio.Event, working: Sequence[_Client]) -> None:
        await stop.wait()
        for client in working:
            client.send(Stop())

    async def _end(self) -> None:
        await asyncio.gather(*(client.end() for client in self._clients))
        self._clients.clear()


def whole_slices(seconds: float) -> int:
    """Return a time in ns, rounded up to whole slices."""
    return -(-round(seconds * 1e9) // SLICE_NS) * SLICE_NS
