"""A connection from its first byte to a decent end: greeting, back-pressure, one timer, and the lingering close.

Closing a socket with unread input makes the kernel reset it, and the peer would lose the GOAWAY and the replies sent
before it. So the write side is shut first, and what still arrives is read and thrown away, within limits.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

from servable.transport.http2 import frames
from servable.transport.http2.blocks import BlockCache, HeaderBlocks
from servable.transport.http2.fields import FieldRules
from servable.transport.http2.receiving import Incoming, Receiver
from servable.transport.http2.sending import Outgoing, Sender
from servable.transport.limits import KIB, Limits
from servable.transport.tls import why_lost

NEVER = float("inf")
_SETTINGS_TIMEOUT_S = 30.0
_LONGEST_SLEEP_S = 5.0
"""The timer looks this often even if nothing was due when it was set: streams do not set timers of their own."""
_TICK_S = 0.001
"""Loops count in milliseconds: a timer for less comes early, again and again until the time has come."""
_MAX_REASON = 64
_HIGH_WATER = 256 * KIB
_LOW_WATER = 64 * KIB

FULL_TURN, UNREAD_REPLIES = 1, 2
"""Reasons not to read: the rest of the last read is still being processed; the peer does not read our replies."""


class Stream(Protocol):
    """What both roles keep for a stream."""

    stream_id: int
    credit: int
    outgoing: Outgoing | None
    incoming: Incoming | None


S = TypeVar("S", bound=Stream)


class Lifetime(asyncio.Protocol, ABC, Generic[S]):
    """Everything about a connection except what its frames mean."""

    __slots__ = (
        "_block_opened_at",
        "_clock",
        "_last_input",
        "_linger_until",
        "_lingered",
        "_made_at",
        "_not_reading",
        "_on_close",
        "_opening",
        "_settings_pending",
        "_timer",
        "_timer_at",
        "blocks",
        "closing",
        "limits",
        "loop",
        "now",
        "receiver",
        "rules",
        "sender",
        "streams",
        "transport",
    )

    def __init__(
        self,
        limits: Limits,
        loop: AbstractEventLoop,
        caches: tuple[BlockCache[Any], ...],
        on_close: Callable[[Any], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.loop = loop
        self.transport: Transport | None = None
        self.streams: dict[int, S] = {}
        self.blocks = HeaderBlocks(limits, *caches)
        self.rules = FieldRules()
        self.sender = Sender(loop, clock, cast("Callable[[Any], None]", self._sent), self._settled)
        self.receiver = Receiver(limits.connection_window, limits.initial_window)
        self.closing = False
        """The last word is said; what still arrives is thrown away."""
        self._clock = clock
        self.now = self._made_at = self._last_input = clock()
        self._opening = True
        self._settings_pending = True
        self._block_opened_at = 0.0
        self._lingered = 0
        self._linger_until = NEVER
        self._not_reading = 0
        self._timer: TimerHandle | None = None
        self._timer_at = NEVER
        self._on_close = on_close

    @abstractmethod
    def _greeting(self) -> bytes:
        """Return the first frames of this side."""

    @abstractmethod
    def _sent(self, stream: S) -> None:
        """A queued message has gone out entirely."""

    @abstractmethod
    def _refuse(self, stream: S, code: int) -> None:
        """Reset a stream because of what the peer did to it, or did not do."""

    @abstractmethod
    def _stalled(self) -> None:
        """A stream, or the connection, is given up because the peer took nothing for too long."""

    @abstractmethod
    def _settled(self) -> None:
        """A turn of input, or of output, is over."""

    @abstractmethod
    def _due(self, now: float) -> float:
        """Act on the role's own deadlines; return the next."""

    @abstractmethod
    def _last_started(self) -> int:
        """Return the highest stream of the peer's that was acted on."""

    @abstractmethod
    def _abandon(self, reason: str) -> None:
        """Give up every stream: the connection is at its end. May be called again."""

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello; the greeting leaves with the first reply, or at the end of this loop turn."""
        self.transport = cast("Transport", transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER, low=_LOW_WATER)
        self.sender.transport = self.transport
        self.sender.out.append(self._greeting())
        self.sender.schedule()
        self._wake_at(self._clock() + self.limits.preface_timeout_s)

    def eof_received(self) -> bool | None:
        """The peer will send no more: its streams are cancelled and the transport closes."""
        self._abandon("the peer closed the connection")
        self.sender.finish()
        self.closing = True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is left and report the end."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.sender.transport = self.transport = None
        self._abandon(why_lost(exc))
        self.sender.finish()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(self)

    def pause_writing(self) -> None:
        """Stop producing."""
        self.sender.pause()

    def resume_writing(self) -> None:
        """Go on producing, and reading if the peer's not reading had stopped it."""
        self.sender.resume()
        self._settled()
        self._read_on(UNREAD_REPLIES)

    def abort(self) -> None:
        """Close at once, without a word."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    def _hello(self, own: tuple[int, int]) -> bytes:
        """Return SETTINGS, with one entry that only this role sends, and the connection's window."""
        limits = self.limits
        settings = (
            own,
            (frames.INITIAL_WINDOW_SIZE, limits.initial_window),
            (frames.MAX_FRAME_SIZE, limits.max_frame),
            (frames.MAX_HEADER_LIST_SIZE, limits.max_header_list),
        )
        more = limits.connection_window - frames.DEFAULT_WINDOW
        return frames.settings(settings) + (frames.window_update(0, more) if more > 0 else b"")

    # --- back-pressure

    def _stop_reading(self, reason: int) -> None:
        if self.transport is not None and not self.transport.is_closing():
            if not self._not_reading:
                self.transport.pause_reading()
            self._not_reading |= reason

    def _read_on(self, reason: int) -> None:
        if self._not_reading & reason:
            self._not_reading &= ~reason
            if not self._not_reading and self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    # --- the end

    def _fail(self, code: int, reason: str) -> None:
        """End the connection because of the peer, or because of a defect of our own."""
        if not self.closing:
            if code != frames.INTERNAL_ERROR:
                self.sender.flush()  # replies that were ready before still leave
            self.sender.out.append(
                frames.goaway(self._last_started(), code, reason.encode("ascii", "replace")[:_MAX_REASON])
            )
            self._finish(reason)

    def _finish(self, reason: str) -> None:
        """Write what is in ``out``, shut the write side and linger."""
        self.closing = True
        self._abandon(reason)
        self.sender.finish()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._read_on(FULL_TURN | UNREAD_REPLIES)
        if transport.can_write_eof():
            transport.write_eof()
        else:  # TLS: the loop says goodbye, and discards what arrives until the peer has done so too
            transport.close()
        self._linger_until = self._clock() + self.limits.linger_s
        self._wake_at(self._linger_until)

    def _discard(self, size: int) -> None:
        self._lingered += size
        if self._lingered > self.limits.linger_bytes:
            self.abort()

    # --- time

    def _wake_at(self, when: float) -> None:
        """Have ``_tick`` called by then; there is never more than one timer."""
        if when < self._timer_at and (self.transport is not None):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self.loop.call_later(max(_TICK_S, when - self._clock()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = NEVER
        now = self.now = self._clock()
        if now >= self._linger_until:
            self.abort()
            return
        when = self._linger_until if self.closing else min(self._overdue(now), now + _LONGEST_SLEEP_S)
        if not self.closing:
            self.sender.flush()
            self._settled()
        self._wake_at(min(when, self._linger_until))

    def _overdue(self, now: float) -> float:
        """Act on every deadline that has passed; return the next, ``NEVER`` if the connection has ended."""
        limits = self.limits
        waits = [self._due(now)]
        if self._opening:
            waits.append(self._made_at + limits.preface_timeout_s)
            if now >= waits[-1]:
                self._fail(frames.PROTOCOL_ERROR, "no preface")
        elif self._settings_pending and self._last_input > self._made_at + _SETTINGS_TIMEOUT_S:
            self._fail(frames.SETTINGS_TIMEOUT, "SETTINGS was never acknowledged")
        if self.blocks.stream_id:
            waits.append(self._block_opened_at + limits.head_timeout_s)
            if now >= waits[-1]:
                self._fail(frames.ENHANCE_YOUR_CALM, "header block too slow")
        waits.append(self._free_stalled(now))
        return NEVER if self.closing else min(waits)

    def _free_stalled(self, now: float) -> float:
        """End what has not moved for too long: the connection if its socket is stuck, else the streams."""
        sender = self.sender
        before = now - self.limits.send_stall_timeout_s
        if sender.paused:
            if sender.paused_at <= before:
                self._stalled()
                self.abort()
            return sender.paused_at + self.limits.send_stall_timeout_s
        for stream in sender.stalled(before):
            self._stalled()
            self._refuse(cast("S", stream), frames.CANCEL)
        return NEVER
