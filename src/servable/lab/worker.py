"""One client process: ``python -m servable.lab.worker``, commanded through its standard input, which ends it too."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from typing import Any

from servable.lab.exchange import Prepared
from servable.lab.judge import Judge
from servable.lab.links import Connector, Link
from servable.lab.load import BurstLoad, ClosedLoad, Load, OpenLoad
from servable.lab.orders import Failed, FromClient, Go, Job, Order, Ready, Stop, Unpacker, Window, pack
from servable.lab.recorder import NEVER, Recorder, Recording
from servable.transport.errors import TransportError

_DRAIN_S = 0.5


class _Commands(asyncio.Protocol):
    """Standard input as a queue; its end is ``None``."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self._unpacker = Unpacker()

    def data_received(self, data: bytes) -> None:
        for message in self._unpacker.feed(data):
            self.queue.put_nowait(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.queue.put_nowait(None)


class Worker:
    """Runs orders one after the other."""

    def __init__(self, job: Job, commands: asyncio.Queue[Any]) -> None:
        self._job = job
        self._commands = commands
        self._connector = Connector(
            job.address, job.tls, multiplexed=job.wire.multiplexed, timeout_s=min(10.0, job.timeout_s)
        )

    async def serve(self) -> None:
        """Work until the parent closes the pipe."""
        while (command := await self._commands.get()) is not None:
            if isinstance(command, Order):
                await self._step(command)

    async def _step(self, order: Order) -> None:
        links = [Link(self._connector) for _ in range(self._places(order))]
        first = links if order.load != "open" or self._job.wire.multiplexed else links[: order.links]
        try:
            await _open_all(first)
        except TransportError as error:
            _say(Failed(error.reason))
            return
        _say(Ready())
        go = await self._commands.get()
        if not isinstance(go, Go):
            if go is None:
                self._commands.put_nowait(None)
            else:
                _say(Recording())
            _close_all(links)
            return
        recording = await self._measure(order, links, go.start_ns)
        _say(recording)

    def _places(self, order: Order) -> int:
        if self._job.wire.multiplexed:
            return min(order.links, order.concurrency)
        return order.concurrency

    async def _measure(self, order: Order, links: list[Link], start_ns: int) -> Recording:
        begin = start_ns + order.warmup_ns
        end = NEVER if order.count is not None else begin + order.duration_ns
        recorder = Recorder(
            start_ns, begin, end, count=order.count, on_slice=_say, cpu=time.process_time_ns
        )  # fmt: skip
        load = self._load(order, links, recorder, start_ns)
        stop = asyncio.Event()
        listening = asyncio.create_task(self._listen(recorder, stop))
        await asyncio.sleep(max(0, start_ns - time.monotonic_ns()) / 1e9)
        gc.collect()
        gc.disable()  # a collection would look like a stall of the server
        try:
            await load.run(stop)
        finally:
            gc.enable()
        now = time.monotonic_ns()
        recording = recorder.finish(now, load.ages(now))
        listening.cancel()
        await _drain(load)
        _close_all(links)
        return recording

    def _load(self, order: Order, links: list[Link], recorder: Recorder, start_ns: int) -> Load:
        job = self._job
        prepared: tuple[Prepared, ...] = job.prepared
        judge = Judge(job.wire, prepared, job.tolerance, recorder)
        first = order.share * len(prepared) // order.shares
        options: dict[str, Any] = {"first_sample": first, "timeout_s": job.timeout_s}
        if order.schedule is None:
            kind = ClosedLoad if order.load == "closed" else BurstLoad
            return kind(links, prepared, judge, recorder, concurrency=order.concurrency, **options)
        longest = (order.warmup_ns + order.duration_ns) / 1e9
        starts = order.schedule.offsets(longest, order.share, order.shares) + start_ns
        return OpenLoad(links, prepared, judge, recorder, starts=starts, most_in_flight=order.concurrency, **options)

    async def _listen(self, recorder: Recorder, stop: asyncio.Event) -> None:
        while True:
            command = await self._commands.get()
            if isinstance(command, Window):
                recorder.move_window(command.begin_ns, command.end_ns)
            elif isinstance(command, Stop):
                stop.set()
            elif command is None:
                self._commands.put_nowait(None)
                stop.set()
                return


async def _open_all(links: list[Link]) -> None:
    """Open connections, some at a time: a server's backlog is short."""
    for place in range(0, len(links), 64):
        opened = await asyncio.gather(*(link.open() for link in links[place : place + 64]), return_exceptions=True)
        for failure in opened:
            if isinstance(failure, BaseException):
                _close_all(links)
                raise failure


async def _drain(load: Load) -> None:
    """Give what is under way a moment: a server should not have to deal with a crowd that hangs up."""
    end = time.monotonic() + _DRAIN_S
    while load.running and time.monotonic() < end:  # noqa: ASYNC110  # the hot path keeps no event for this
        await asyncio.sleep(0.01)


def _close_all(links: list[Link]) -> None:
    for link in links:
        link.close()


def _say(message: FromClient) -> None:
    data = memoryview(pack(message))
    while data:
        data = data[os.write(_OUTPUT, data) :]


_OUTPUT = 1


async def _main() -> None:
    commands = _Commands()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        await loop.connect_read_pipe(lambda: commands, sys.stdin)
    job = await commands.queue.get()
    if job is None:
        return
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    gc.freeze()
    try:
        await Worker(job, commands.queue).serve()
    except BrokenPipeError:
        return  # nobody is left to tell


def main() -> None:
    """Work until the parent is done."""
    import uvloop

    # The terminal's Ctrl-C is for the parent, which then asks what was seen.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_main())


if __name__ == "__main__":
    main()
