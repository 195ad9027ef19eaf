"""A loop, a clock and a transport that the test turns by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any


class FakeHandle:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """``call_soon`` and ``call_later``, run by hand."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.timers: list[FakeHandle] = []

    def clock(self) -> float:
        return self.time

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._soon.append((callback, arguments))

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeHandle:
        handle = FakeHandle(self.time + delay, callback)
        self.timers.append(handle)
        return handle

    def turn_once(self) -> None:
        """Run what is due now, and nothing that it brings about."""
        for _ in range(len(self._soon)):
            callback, arguments = self._soon.popleft()
            callback(*arguments)

    def turn(self) -> None:
        """Run everything that is due now, and what that brings about."""
        while self._soon:
            callback, arguments = self._soon.popleft()
            callback(*arguments)

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.time + seconds
        while True:
            self.turn()
            self.timers = [timer for timer in self.timers if not timer.cancelled]
            due = [timer for timer in self.timers if timer.when <= end]
            if not due:
                break
            timer = min(due, key=lambda one: one.when)
            self.timers.remove(timer)
            self.time = max(self.time, timer.when)
            timer.callback()
        self.time = end

    @property
    def armed(self) -> int:
        return sum(not timer.cancelled for timer in self.timers)


class FakeTransport:
    """Keeps what is written. ``stuck`` is a peer that does not read: the buffer fills and the protocol is paused."""

    def __init__(self, loop: FakeLoop, protocol: Any) -> None:
        self.loop = loop
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.eof = False
        self.closed = False
        self.reading = True
        self.stuck = False
        self.buffered = 0
        self.high = 65536

    def write(self, data: bytes) -> None:
        assert not self.eof, "written after the end"
        if not self.closed:
            self.writes.append(bytes(data))
            if self.stuck:
                before = self.buffered
                self.buffered += len(data)
                if before <= self.high < self.buffered:
                    self.protocol.pause_writing()

    def unstick(self) -> None:
        self.stuck = False
        paused = self.buffered > self.high
        self.buffered = 0
        if paused:
            self.protocol.resume_writing()

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.high = high

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed

    def has_ended(self) -> bool:
        return self.eof

    def is_reading(self) -> bool:
        return self.reading

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def take(self) -> bytes:
        data = b"".join(self.writes)
        self.writes.clear()
        return data
