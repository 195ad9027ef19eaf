"""The way out: one write a tick, within the peer's windows and frame size, in turns between large bodies.

Frames are collected in ``out`` and written by ``flush``, once for each batch of input and once a loop turn for
replies that come later. What a window or the socket holds back waits in an ``Outgoing`` beside its stream, and
``ready`` is the order of turns. A message that is small enough overtakes the large ones; within one stream nothing
ever changes places.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, WriteTransport
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from servable.transport.http2 import frames

_QUANTUM = 64 * 1024
"""Bytes a stream sends in its turn while others wait."""
_TURN_OF_ONE = 256 * 1024
"""Bytes between two looks at the transport, and the turn of a stream that is alone."""
SMALL = frames.DEFAULT_MAX_FRAME
"""A message up to this size goes out at once if the windows allow, in one frame that every peer takes.

More at once would let one batch of replies fill memory.
"""
_DRIBBLE = 256
"""A piece of a longer body below this size is a client's window at work."""
_HEADERS, _END_HEADERS, _END_STREAM = frames.HEADERS, frames.END_HEADERS, frames.END_STREAM
_pack = frames.HEADER.pack


class Sendable(Protocol):
    """A stream as its sender sees it."""

    stream_id: int
    credit: int
    """WINDOW_UPDATEs received less DATA sent. The window is the peer's initial window plus this."""
    outgoing: Outgoing | None


def _nobody(_what: str, _seconds: float) -> None:
    """Nobody counts."""


class Outgoing:
    """The part of a message that has not been sent."""

    __slots__ = ("body", "end", "ends", "head", "moved_at", "start", "tail")

    def __init__(self, head: bytes, body: memoryview, tail: bytes, now: float) -> None:
        self.head = head
        self.body = body
        self.start = 0
        self.end = len(body)
        self.tail = tail
        """The frames after the body; empty if the last DATA ends the stream, or something else comes later."""
        self.ends = not tail
        """The last DATA ends the stream."""
        self.moved_at = now


class Sender:
    """One connection's output and both levels of its send windows."""

    __slots__ = (
        "_blocked_at",
        "_clock",
        "_done",
        "_loop",
        "_scheduled",
        "_settled",
        "_table_notice",
        "data_frames",
        "dribbles",
        "initial_window",
        "max_frame",
        "out",
        "parked",
        "paused",
        "paused_at",
        "queued",
        "ready",
        "report_stall",
        "transport",
        "window",
    )

    def __init__(
        self,
        loop: AbstractEventLoop,
        clock: Callable[[], float],
        done: Callable[[Sendable], None],
        settled: Callable[[], None],
    ) -> None:
        """``done`` is told when a queued message has gone out, ``settled`` when a flush of its own is over."""
        self._loop = loop
        self._clock = clock
        self._done = done
        self._settled = settled
        self.transport: WriteTransport | None = None
        self.out: list[bytes | memoryview] = []
        self.window = frames.DEFAULT_WINDOW
        self.initial_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.DEFAULT_MAX_FRAME
        self.ready: deque[Sendable] = deque()
        self.parked: dict[int, Sendable] = {}
        """Streams whose own window is used up."""
        self.queued = 0
        """Body bytes that wait."""
        self.paused = False
        self.paused_at = 0.0
        self.data_frames = 0
        """DATA frames of queued messages; those that left at once are not counted."""
        self.dribbles = 0
        """Pieces that the peer's window kept tiny, since somebody last looked."""
        self.report_stall: Callable[[str, float], None] = _nobody
        """Told of each wait for the peer that is over: ``stream`` or ``connection`` window, or ``socket``; seconds."""
        self._blocked_at: float | None = None
        """Since when the connection's window has been used up with something to send."""
        self._scheduled = False
        self._table_notice = False

    def promise_no_table(self) -> None:
        """Tell the peer, in the next header block, that our encoder keeps no table: it asked for a smaller one."""
        self._table_notice = True

    def head(self, stream_id: int, block: bytes, *, end_stream: bool = False) -> bytes:
        """Return the frames of a message's first header block."""
        if self._table_notice:
            self._table_notice = False
            block = b"\x20" + block
        return frames.headers(stream_id, block, self.max_frame, end_stream=end_stream)

    def send(self, stream: Sendable, block: bytes, body: bytes | memoryview, tail: bytes | None) -> bool:
        """Send or queue a message: a header block, bytes, and a block of trailers or ``None``.

        Return True if all of it is in ``out``. An empty body with ``None`` is a header block that ends its stream.
        """
        size = len(body)
        stream_id = stream.stream_id
        if (
            tail is not None
            and 0 < size <= SMALL
            and len(block) <= SMALL >= len(tail)
            and not (self.paused or self._table_notice)
            and size <= self.window
            and size <= self.initial_window + stream.credit
        ):
            self.window -= size
            self.out += (
                _pack(len(block) << 8 | _HEADERS, _END_HEADERS, stream_id),
                block,
                _pack(size << 8, 0, stream_id),
                body,
                _pack(len(tail) << 8 | _HEADERS, _END_HEADERS | _END_STREAM, stream_id),
                tail,
            )
            return True
        last = b"" if tail is None else frames.headers(stream_id, tail, self.max_frame, end_stream=True)
        return self._send(stream, self.head(stream_id, block, end_stream=not size and tail is None), body, last)

    def _send(self, stream: Sendable, head: bytes, body: bytes | memoryview, tail: bytes) -> bool:
        """Send or queue ready-made frames around ``body``. An empty ``tail``: the last DATA frame ends the stream."""
        size = len(body)
        if not self.paused:
            fits = size <= SMALL and size <= self.window and size <= self.initial_window + stream.credit
            self.out.append(head)
            if fits or not size:
                if size:
                    self.window -= size
                    stream.credit -= size
                    self.out += (_pack(size << 8, 0 if tail else _END_STREAM, stream.stream_id), body)
                self.out.append(tail)
                return True
            head = b""
        stream.outgoing = Outgoing(head, memoryview(body), tail, self._clock())
        self.queued += size
        if size <= SMALL:
            self.ready.appendleft(stream)
        else:
            self.ready.append(stream)
        return False

    def send_part(self, stream: Sendable, part: bytes) -> None:
        """Send or queue DATA that does not end its stream. Nothing else of the stream may be waiting."""
        size = len(part)
        if not self.paused and size <= SMALL and size <= self.window and size <= self.initial_window + stream.credit:
            self.window -= size
            stream.credit -= size
            self.data_frames += 1
            self.out += (_pack(size << 8, 0, stream.stream_id), part)
            return
        outgoing = stream.outgoing = Outgoing(b"", memoryview(part), b"", self._clock())
        outgoing.ends = False
        self.queued += size
        self.ready.append(stream)

    def drop(self, stream: Sendable) -> None:
        """Forget what a stream has not sent."""
        outgoing = stream.outgoing
        if outgoing is not None:
            stream.outgoing = None
            self.queued -= outgoing.end - outgoing.start
            outgoing.body = memoryview(b"")
            if self.parked.pop(stream.stream_id, None) is None:
                self.ready.remove(stream)
            else:
                self.report_stall("stream", self._clock() - outgoing.moved_at)

    def stream_credited(self, stream: Sendable) -> None:
        """A stream's window grew."""
        if stream.stream_id in self.parked and self.initial_window + stream.credit > 0:
            self._unpark(stream)

    def change_initial_window(self, value: int) -> None:
        """Shift the window of every stream, as SETTINGS does; it may become negative."""
        self.initial_window = value
        for stream in list(self.parked.values()):
            if value + stream.credit > 0:
                self._unpark(stream)

    def _unpark(self, stream: Sendable) -> None:
        del self.parked[stream.stream_id]
        if stream.outgoing is not None:
            now = self._clock()
            self.report_stall("stream", now - stream.outgoing.moved_at)
            stream.outgoing.moved_at = now
        self.ready.append(stream)

    def schedule(self) -> None:
        """Flush once at the end of this loop turn, however many replies ask for it."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self.flush()
        self._settled()

    def flush(self) -> None:
        """Write everything that may go out now."""
        if self.paused or self.transport is None:
            return
        while self.ready and not self.paused:
            moved = self._take_turns()
            self._write()
            if not moved:
                return
        if self.out and not self.paused:
            self._write()

    def _write(self) -> None:
        out = self.out
        if out and self.transport is not None:
            data = b"".join(out) if len(out) > 1 else out[0]
            out.clear()
            self.transport.write(data)

    def _take_turns(self) -> bool:
        """Move up to a write's worth from the queue to ``out``; return False if nothing could move."""
        if self._blocked_at is not None and self.window > 0:
            self._unblock()
        room = _TURN_OF_ONE
        ready = self.ready
        while ready and room > 0:
            stream = ready[0]
            outgoing = stream.outgoing
            assert outgoing is not None, "a stream in the queue has something to send"
            if outgoing.head:
                self.out.append(outgoing.head)
                outgoing.head = b""
            left = outgoing.end - outgoing.start
            if left and self.window <= 0:
                if self._blocked_at is None:
                    self._blocked_at = self._clock()
                return room < _TURN_OF_ONE
            ready.popleft()
            share = min(left, self.window, self.initial_window + stream.credit, _QUANTUM if ready else room)
            if share > 0:
                self._emit(stream, outgoing, share)
                room -= share
                left -= share
            if not left:
                self.out.append(outgoing.tail)
                stream.outgoing = None
                self._done(stream)
            elif self.initial_window + stream.credit <= 0:
                self.parked[stream.stream_id] = stream
            else:
                ready.append(stream)
        return True

    def _emit(self, stream: Sendable, outgoing: Outgoing, share: int) -> None:
        """Put ``share`` bytes of body into DATA frames."""
        self.window -= share
        stream.credit -= share
        self.queued -= share
        self.dribbles += share < _DRIBBLE and share < outgoing.end - outgoing.start
        outgoing.moved_at = self._clock()
        out = self.out
        start = outgoing.start
        stop = start + share
        outgoing.start = stop
        while start < stop:
            end = min(start + self.max_frame, stop)
            last = end == outgoing.end and outgoing.ends
            flags = _END_STREAM if last else 0
            out += (_pack(end - start << 8, flags, stream.stream_id), outgoing.body[start:end])
            self.data_frames += 1
            start = end

    def finish(self) -> None:
        """Write what is in ``out``, even into a full buffer, and forget the rest: the connection is at its end."""
        for stream in list(self.parked.values()):
            self.drop(stream)
        if self._blocked_at is not None:
            self._unblock()
        if self.paused:
            self._unpause()
        self.ready.clear()
        self.parked.clear()
        self.queued = 0
        self._write()
        self.transport = None

    def pause(self) -> None:
        """The transport's buffer is full."""
        self.paused = True
        self.paused_at = self._clock()

    def resume(self) -> None:
        """The transport's buffer has drained."""
        self._unpause()
        self.flush()

    def _unpause(self) -> None:
        self.paused = False
        self.report_stall("socket", self._clock() - self.paused_at)

    def _unblock(self) -> None:
        assert self._blocked_at is not None
        self.report_stall("connection", self._clock() - self._blocked_at)
        self._blocked_at = None

    def stalled(self, before: float) -> Iterable[Sendable]:
        """Return the streams with queued data that have not moved since ``before``."""
        waiting = [*self.ready, *self.parked.values()]
        return [stream for stream in waiting if stream.outgoing is not None and stream.outgoing.moved_at < before]
