"""The sending itself: callbacks on one loop, nothing made anew for a request but what the connection makes.

A ``Call`` is a place for one request at a time. In a closed loop its next request begins when the last has ended; in
an open loop requests begin when the schedule says, on whatever call is free, and wait for one if none is: their
latency runs from the schedule's time all the while.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from servable.lab.exchange import Fault, Prepared
from servable.lab.judge import WRONG, Judge
from servable.lab.links import Link, Outcome, fault_of
from servable.lab.pacing import Alarm
from servable.lab.recorder import Recorder
from servable.transport.errors import TransportError

_SENT_A_TURN = 64
_PATROL_S = 0.05
_clock = time.monotonic_ns


class Call:
    """One request at a time over one link."""

    __slots__ = ("_load", "_stream", "handed", "index", "intended", "link", "timed_out")

    def __init__(self, load: Load, link: Link) -> None:
        self._load = load
        self.link = link
        self.intended = 0
        self.handed = 0
        """When the request's bytes were handed over; 0 while there is none out."""
        self.index = 0
        self.timed_out = False
        self._stream: Any = None

    def begin(self, intended: int) -> None:
        """Send the next sample's request, which should have begun at ``intended``."""
        load = self._load
        self.intended = intended
        self.index = index = load.next_sample
        load.next_sample = index + 1 if index + 1 < load.samples else 0
        load.running += 1
        self.send()

    def send(self) -> None:
        """Send, or open the link first."""
        one = self._load.prepared[self.index]
        try:
            self._stream = self.link.connection.request(one.head, one.body, self._replied)
        except TransportError:
            self.link.open_for(self)
            return
        self.handed = _clock()

    def unsent(self, error: TransportError) -> None:
        """The link could not be opened."""
        self._end(fault_of(error))

    def give_up(self) -> None:
        """The time of the request is up."""
        self.timed_out = True
        if self._stream is None:  # HTTP/1.1: the connection is the request's, and tells us so
            self.link.connection.close()
        else:
            self._stream.cancel()
            self._end(_TIMED_OUT)

    def _replied(self, outcome: Outcome) -> None:
        now = _clock()
        load = self._load
        fault = load.judge(self.index, outcome)
        if fault is None:
            one = load.prepared[self.index]
            size = len(outcome.body)  # type: ignore[union-attr]  # without a fault it is a reply
            load.recorder.ok(now, self.intended, self.handed, size, one.rows, verified=one.expected is not None)
        elif fault is WRONG:
            load.recorder.wrong(now)
        else:
            load.recorder.failed(now, _TIMED_OUT if self.timed_out else fault)
        self.handed = 0
        load.running -= 1
        load.ended(self, now)

    def _end(self, fault: Fault) -> None:
        now = _clock()
        self._load.recorder.failed(now, fault)
        self.handed = 0
        self.timed_out = False
        self._load.running -= 1
        self._load.ended(self, now)


_TIMED_OUT = Fault("DEADLINE_EXCEEDED", "no answer in time")


class Load:
    """What all loads share: samples that take turns, calls, a patrol that ends what takes too long."""

    def __init__(
        self,
        links: Sequence[Link],
        prepared: Sequence[Prepared],
        judge: Judge,
        recorder: Recorder,
        *,
        first_sample: int = 0,
        timeout_s: float,
    ) -> None:
        self.prepared = prepared
        self.samples = len(prepared)
        self.next_sample = first_sample % len(prepared)
        self.judge = judge.judge
        self.recorder = recorder
        self.running = 0
        self.stopped = False
        self.calls: list[Call] = []
        self._links = links
        self._timeout_ns = round(timeout_s * 1e9)

    def start(self) -> None:
        """Begin to send."""
        raise NotImplementedError

    def ended(self, call: Call, now: int) -> None:
        """A call's request has ended at ``now``."""
        raise NotImplementedError

    def stop(self) -> None:
        """Begin no more requests."""
        self.stopped = True

    def ages(self, now: int) -> list[int]:
        """Return for how long the requests that have no answer should have been under way."""
        return [now - call.intended for call in self.calls if call.handed]

    async def run(self, stop: asyncio.Event) -> None:
        """Send until the recorder's window is over, or somebody says stop."""
        self.start()
        while not (self.recorder.over or stop.is_set()):
            await asyncio.sleep(_PATROL_S)
            now = _clock()
            self.recorder.tick(now)
            for call in self.calls:
                if call.handed and now - call.handed > self._timeout_ns and not call.timed_out:
                    call.give_up()
        self.stop()


class ClosedLoad(Load):
    """So many requests in flight at any time: the next begins when one has ended."""

    def __init__(self, *arguments: Any, concurrency: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls = [Call(self, self._links[place % len(self._links)]) for place in range(concurrency)]

    def start(self) -> None:
        """Fill all places."""
        for call in self.calls:
            call.begin(_clock())

    def ended(self, call: Call, now: int) -> None:
        """Begin the next, unless the last has been."""
        if not (self.stopped or self.recorder.over):
            call.timed_out = False
            call.begin(_clock())


class BurstLoad(Load):
    """So many requests at once, and again when the last of them has ended: a query of several samples."""

    def __init__(self, *arguments: Any, concurrency: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls = [Call(self, self._links[place % len(self._links)]) for place in range(concurrency)]
        self._begun = 0

    def start(self) -> None:
        """Begin one burst."""
        self._begun = begin = _clock()
        for call in self.calls:
            call.timed_out = False
            call.begin(begin)

    def ended(self, call: Call, now: int) -> None:
        """Begin the next burst when nothing of this one is left."""
        if not (self.running or self.stopped or self.recorder.over):
            self.recorder.query(now - self._begun)
            # Not from within the last reply's callback: its connection may not be free yet.
            asyncio.get_running_loop().call_soon(self._again)

    def _again(self) -> None:
        if not self.stopped:
            self.start()


class OpenLoad(Load):
    """Requests begin when a schedule says, whatever became of those before them."""

    def __init__(self, *arguments: Any, starts: Any, most_in_flight: int, **options: Any) -> None:
        """``starts`` are times in ns, ascending, as an array."""
        super().__init__(*arguments, **options)
        self._starts = starts
        self._position = 0
        self._chunk: deque[int] = deque()
        self._most = most_in_flight
        self._free: list[Call] = []
        self._backlog: deque[int] = deque()
        self.most_backlog = 0
        self._alarm: Alarm | None = None

    def start(self) -> None:
        """Set the alarm for the first request."""
        self._alarm = Alarm(asyncio.get_running_loop(), self._due)
        self._next()

    def stop(self) -> None:
        """Set no more alarms."""
        super().stop()
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    def ended(self, call: Call, now: int) -> None:
        """Send what has waited longest, or keep the call for the next."""
        call.timed_out = False
        if self._backlog and not self.stopped:
            call.begin(self._backlog.popleft())
        else:
            self._free.append(call)

    def ages(self, now: int) -> list[int]:
        """Count those that never had a call too."""
        return super().ages(now) + [now - intended for intended in self._backlog]

    def _due(self, now: int) -> None:
        chunk = self._chunk
        for _ in range(_SENT_A_TURN):
            if chunk[0] > now:
                break
            self._begin(chunk.popleft())
            if not chunk and not self._fill():
                return
        self._next()

    def _begin(self, intended: int) -> None:
        if self._free:
            self._free.pop().begin(intended)
        elif len(self.calls) < self._most:
            call = Call(self, self._links[len(self.calls) % len(self._links)])
            self.calls.append(call)
            call.begin(intended)
        else:
            self._backlog.append(intended)
            self.most_backlog = max(self.most_backlog, len(self._backlog))

    def _next(self) -> None:
        if self._alarm is not None and (self._chunk or self._fill()):
            self._alarm.set(self._chunk[0])

    def _fill(self) -> bool:
        end = self._position + 4096
        self._chunk.extend(self._starts[self._position : end].tolist())
        self._position = end
        return bool(self._chunk)
