"""How a server's connection ends without losing a request: drained, aged, idle, or silent."""

from __future__ import annotations

import asyncio
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

from servable.transport.exchange import Peer
from servable.transport.http2 import frames
from servable.transport.http2.age import Age, PingPolicy, Step
from servable.transport.http2.blocks import BlockCache
from servable.transport.http2.errors import PeerError
from servable.transport.http2.framing import FramedConnection, log
from servable.transport.http2.ids import StreamIds
from servable.transport.http2.lifetime import NEVER
from servable.transport.http2.streams import ServerStream
from servable.transport.ledger import Ledger
from servable.transport.limits import Limits

_DRAIN_PING = b"draining"
_KEEPALIVE_PING = b"alive?  "


class LeavingConnection(FramedConnection[ServerStream]):
    """The ends of a client's connection, and what else a server decides by the clock."""

    __slots__ = ("_age", "_busy_at", "_drain_until", "_ids", "_leaving", "_pings", "_seen_highest", "peer")

    def __init__(
        self,
        limits: Limits,
        loop: AbstractEventLoop,
        caches: tuple[BlockCache[Any], ...],
        on_close: Callable[[Any], None] | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        peer: Peer,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(limits, loop, caches, on_close, clock, ledger)
        self.peer = peer
        self.peer_name = peer.address
        self._ids = StreamIds()
        self._leaving = False
        self._drain_until = NEVER
        self._busy_at = self.now
        self._seen_highest = 0
        self._age = Age(limits, self.now)
        self._pings = PingPolicy(limits)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, and begin to grow old."""
        super().connection_made(transport)
        self._wake_at(self._age.step(self.now, self._last_input)[1])

    def drain(self) -> None:
        """Let the client leave in peace: first a warning, then the last id, then the end when every stream is done."""
        if self.closing or self._leaving or self._drain_until != NEVER:
            return
        if self._opening:
            self._fail(frames.NO_ERROR, "graceful_stop")
            return
        self._warn("graceful_stop")
        self._wake_at(self._drain_until)

    def _warn(self, reason: str) -> None:
        self.sender.out += (
            frames.goaway(frames.MAX_STREAM_ID, frames.NO_ERROR, reason.encode()),
            frames.ping(_DRAIN_PING),
        )
        self.sender.schedule()
        self._drain_until = self._clock() + self.limits.drain_ping_timeout_s

    def _accept_no_more(self) -> None:
        self._ids.close()
        self._drain_until = NEVER
        self._leaving = True
        self.sender.out.append(frames.goaway(self._ids.highest, frames.NO_ERROR))

    def _pinged(self) -> None:
        self.guard.charge("ping_flood", self.now)
        busy = bool(self.streams)
        # Whatever is sent changes one of these: a stream begins, ends, or some of its data leaves. The window does not
        # tell: a client that measures gives back what came, and then asks.
        work = (self._ids.highest, len(self.streams), self.sender.data_frames)
        if not self._pings.allows(self.now, work, busy=busy):
            raise PeerError(frames.ENHANCE_YOUR_CALM, "too_many_pings", "ping_strikes")

    def _ponged(self, payload: bytes) -> None:
        if payload == _DRAIN_PING and self._drain_until != NEVER:
            self._accept_no_more()
        elif payload not in (_DRAIN_PING, _KEEPALIVE_PING):
            self.guard.glitch(self.now)

    def _went_away(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.guard.glitch(self.now)
        if code and not self._leaving:
            log.info("a client went away with code %d: %r", code, debug[:256])
        self._leaving = True

    def _settled(self) -> None:
        if self.closing:
            return
        if self._ids.highest == frames.MAX_STREAM_ID and not self._leaving:
            self._accept_no_more()  # the client has used up its ids
        if self._leaving and not self.streams:
            self._finish("done")
        elif self.sender.out and not self.in_turn:
            self.sender.flush()

    def _opened(self) -> int:
        return self._ids.opened

    def _last_started(self) -> int:
        return self._ids.highest

    # --- time

    def _due(self, now: float) -> float:
        if self._drain_until <= now:
            self._accept_no_more()
        when = min(self._drain_until, self._free_slow_bodies(now), self._grow_old(now))
        if self.streams or self._ids.highest != self._seen_highest:
            self._busy_at = now
            self._seen_highest = self._ids.highest
        idle_at = self._busy_at + self.limits.idle_timeout_s
        if idle_at <= now and not (self._leaving or self.closing):
            self._accept_no_more()
        return min(when, idle_at)

    def _free_slow_bodies(self, now: float) -> float:
        """Reset the streams whose bodies have stopped coming; return when to look again."""
        timeout_s = self.limits.body_progress_timeout_s
        when = NEVER
        for stream in list(self.streams.values()):
            owed_since = stream.owed_since()
            if owed_since is not None:
                if owed_since + timeout_s <= now:
                    self._refuse(stream, frames.CANCEL)
                else:
                    when = min(when, owed_since + timeout_s)
        return when

    def _grow_old(self, now: float) -> float:
        step, when = self._age.step(now, self._last_input)
        if step is Step.LEAVE and not (self._opening or self._leaving) and self._drain_until == NEVER:
            self._warn("max_age")
            when = min(when, self._drain_until)
        elif step is Step.CUT:
            self._fail(frames.NO_ERROR, "max_age")  # gRPC's clients find UNAVAILABLE on what was still running
        elif step is Step.ASK:
            self.sender.out.append(frames.ping(_KEEPALIVE_PING))
        elif step is Step.GIVE_UP:
            self.ledger.count("keepalive_timeout")
            self.abort()
        return when
