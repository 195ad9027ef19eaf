"""``tensorflow.ProfilerService``: a profile of the request path, with what the frameworks of the models did meanwhile.

The profile is in the reply. It is never written where the client says: what a client names is no place on this disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from functools import partial

from servable.core.errors import invalid_argument, unavailable
from servable.core.messages import ModelRef
from servable.core.spans import Span
from servable.lifecycle.manager import LoadedVersion, Manager
from servable.listeners.grpc import UnaryRoute
from servable.listeners.grpc_streams import StreamCall, Streams
from servable.listeners.profile_tracks import framework_tracks, path_tracks
from servable.observe.path_metrics import PathMetrics
from servable.transport.exchange import Route
from servable.wire import grpc as wire
from servable.wire import profiler

LONGEST_S = 600.0


class ProfilerService:
    """Looks for one client at a time."""

    def __init__(self, manager: Manager, path: PathMetrics) -> None:
        self._manager = manager
        self._path = path
        self._session = ""
        self._ended: asyncio.Event | None = None

    def routes(self, streams: Streams) -> dict[bytes, Callable[[wire.Call], Route]]:
        """Return the methods by their paths. A reply that takes its time is a stream of one message."""
        return {
            profiler.PROFILE: streams.server_streaming(self._profile),
            profiler.MONITOR: streams.server_streaming(self._monitor),
            profiler.TERMINATE: partial(UnaryRoute, method=self._terminate),
        }

    def _terminate(self, body: bytes, start: int) -> bytes:
        if self._ended is not None and profiler.decode_terminate(body, start) == self._session:
            self._ended.set()
        return profiler.encode_terminate()

    async def _profile(self, message: bytes, _call: StreamCall) -> AsyncGenerator[bytes, None]:
        call = profiler.decode_profile(message)
        if call.seconds > LONGEST_S:
            raise invalid_argument(f"a profile takes at most {LONGEST_S:g} s, not {call.seconds:g}")
        if self._ended is not None:
            raise unavailable("a profile is being made for somebody else; try again when it has ended")
        ended = self._ended = asyncio.Event()
        self._session = call.session
        timeline = self._path.timeline
        held = [self._manager.acquire(loaded.ref) for loaded in self._manager.loaded()]
        looked: list[LoadedVersion] = []
        spans: dict[ModelRef, list[Span]] = {}
        beginning = asyncio.ensure_future(_in_threads([partial(_begin, loaded, looked) for loaded in held]))
        try:
            await asyncio.shield(beginning)
            timeline.open()
            try:
                async with asyncio.timeout(call.seconds):
                    await ended.wait()
            except TimeoutError:
                pass
        finally:
            timeline.close()
            self._ended = None
            # A client that has gone must not leave a framework looking on.
            await beginning
            await asyncio.shield(_in_threads([partial(_end, loaded, spans) for loaded in looked]))
            for loaded in held:
                self._manager.release(loaded)
        tracks = path_tracks(timeline)
        for ref, found in spans.items():
            tracks += framework_tracks(ref, found)
        warnings = [f"{timeline.dropped} events did not fit"] if timeline.dropped else []
        began = timeline.began
        timeline.clear()
        encode = partial(profiler.encode_profile, call, tracks, began, warnings)
        yield await asyncio.get_running_loop().run_in_executor(None, encode)

    async def _monitor(self, message: bytes, _call: StreamCall) -> AsyncGenerator[bytes, None]:
        seconds, stamped = profiler.decode_monitor(message)
        if seconds > LONGEST_S:
            raise invalid_argument(f"the server is watched for at most {LONGEST_S:g} s, not {seconds:g}")
        before = self._sums()
        began = time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        answered, latency, failed, batches, rows, computing = (
            now - then for now, then in zip(self._sums(), before, strict=True)
        )
        lines = [
            f"requests: {answered:g} answered ({answered / took:.1f} a second), {failed:g} failed",
            f"mean latency: {1000 * latency / answered:.3f} ms" if answered else "mean latency: -",
            f"batches: {batches:g}, {rows / batches:.1f} rows each" if batches else "batches: 0",
            f"engines: {100 * computing / took:.1f} % busy",
        ]
        if stamped:
            lines.insert(0, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        yield profiler.encode_monitor("\n".join(lines) + "\n")

    def _sums(self) -> tuple[float, ...]:
        """Return answers, their seconds, failures, batches, their rows and seconds, since the server started."""
        served = [served for meter in self._path.meters.values() for _, served in meter.served.items()]
        works = [work for _, work in self._path.work.items()]
        return (
            sum(each.latency.count for each in served),
            sum(each.latency.total for each in served),
            sum(count.value for _, count in self._path.failures.items()),
            sum(work.rows.count for work in works),
            sum(work.rows.total for work in works),
            sum(work.compute.total for work in works),
        )


async def _in_threads(jobs: list[Callable[[], None]]) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(None, job) for job in jobs))


def _begin(loaded: LoadedVersion, looked: list[LoadedVersion]) -> None:
    if loaded.model.begin_profile():
        looked.append(loaded)


def _end(loaded: LoadedVersion, spans: dict[ModelRef, list[Span]]) -> None:
    spans[loaded.ref] = loaded.model.end_profile()
