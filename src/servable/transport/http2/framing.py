"""The half of a connection that both roles share: bytes into frames, a turn of the loop at a time.

``data_received`` never raises. A ``PeerError`` anywhere below it becomes GOAWAY and a lingering close.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any, Generic

from servable.transport.http2 import frames, rules
from servable.transport.http2.blocks import BlockCache, strip
from servable.transport.http2.control import ControlledConnection
from servable.transport.http2.errors import PeerError, protocol_error
from servable.transport.http2.guard import TINY
from servable.transport.http2.lifetime import FULL_TURN, S
from servable.transport.ledger import Ledger
from servable.transport.limits import KIB, Limits

log = logging.getLogger("servable.transport")

_LARGE_READ = 128 * KIB  # loops read on while a socket fills their buffer, dozens of times: others come in between


class FramedConnection(ControlledConnection[S], Generic[S]):
    """Frames in and out of one transport. Subclasses give the streams their meaning."""

    __slots__ = ("_held", "_held_size", "_needed", "_turn_is_full", "peer_name", "quota")

    def __init__(
        self,
        limits: Limits,
        loop: AbstractEventLoop,
        caches: tuple[BlockCache[Any], ...],
        on_close: Callable[[Any], None] | None,
        clock: Callable[[], float],
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(limits, loop, caches, on_close, clock, ledger)
        self.peer_name = "a server"
        self.quota = limits.requests_per_turn  # may still begin in this turn; a role that begins none never lowers it
        self._turn_is_full = False  # it ended before the input did, for the sake of other connections
        self._held: list[bytes] = []
        self._held_size = self._needed = 0

    @abstractmethod
    def _preface(self, data: bytes) -> int:
        """Return the length of the peer's preface, -1 while incomplete."""

    @abstractmethod
    def _headers(self, data: bytes, start: int, stop: int, flags: int, stream_id: int) -> int:
        """Handle a HEADERS frame, and what follows it if that is quicker; return where to go on."""

    @abstractmethod
    def _deliver(self, stream: S, part: bytes, flow: int, *, end: bool) -> None:
        """Handle DATA of a stream."""

    @abstractmethod
    def _stray_data(self, stream_id: int) -> None:
        """Judge DATA without a stream."""

    @abstractmethod
    def _takes_tiny(self, stream: S, size: int) -> bool:
        """Return True if DATA frames of so few bytes are normal for the stream."""

    @abstractmethod
    def _input_ends(self) -> None:
        """What was read has been processed; its results are about to be written."""

    def data_received(self, data: bytes) -> None:
        """Process what arrived; everything it brings about leaves in one write."""
        if self.closing:
            self._discard(len(data))
            return
        if self._held:
            self._held.append(data)
            self._held_size += len(data)
            if self._held_size < self._needed:
                self._last_input = self._clock()
                return
            data = b"".join(self._held)
            self._held.clear()
        self._turn(data)
        if len(data) >= _LARGE_READ and not (self._turn_is_full or self.closing):
            self._stop_reading(FULL_TURN)
            self.loop.call_soon(self._go_on)

    def _turn(self, data: bytes) -> None:
        self.now = self._last_input = self._clock()
        self.in_turn = True
        self.quota = self.limits.requests_per_turn
        self._turn_is_full = False
        try:
            position = self._consume(data)
            self._input_ends()
            if position < len(data):
                self._hold(data, position)
            returned = self.receiver.return_window(eager=bool(self.sender.out))
            if returned:
                self.sender.out.append(returned)
            self.sender.flush()
            if self.guard.meters_requests:
                self.guard.charge("request_rate", self.now, self.limits.requests_per_turn - self.quota)
            if self.sender.dribbles:
                dribbles, self.sender.dribbles = self.sender.dribbles, 0
                self.guard.charge("data_dribble", self.now, dribbles)
            self._settled()
        except PeerError as fault:
            self._fault(fault)
        except Exception:
            log.exception("an HTTP/2 connection failed on this side")
            self._fail(frames.INTERNAL_ERROR, "internal error")
        finally:
            self.in_turn = False

    def _fault(self, fault: PeerError) -> None:
        """End the connection because of what the peer did."""
        self.ledger.fault(fault.event, self.peer_name, fault.reason, self.now)
        self._fail(fault.code, fault.reason)

    def _consume(self, data: bytes) -> int:
        """Process whole frames; return where the first incomplete one begins."""
        end = len(data)
        position = 0
        if self._opening:
            position = self._open(data)
            if self._opening:
                return 0
        unpack = frames.HEADER.unpack_from
        blocks = self.blocks
        streams = self.streams
        max_frame = self.limits.max_frame
        self._needed = frames.HEADER_SIZE
        for _ in range(self.limits.frames_per_turn):
            if end - position < 9 or self.quota <= 0:
                self._turn_is_full = self.quota <= 0
                break
            word, flags, stream_id = unpack(data, position)
            kind = word & 0xFF
            size = word >> 8
            stream_id &= 0x7FFFFFFF
            start = position + 9
            stop = start + size
            if size > max_frame:
                raise PeerError(frames.FRAME_SIZE_ERROR, "frame too large")
            if stop > end or blocks.stream_id or kind > 1:
                if kind == 8 and size == 4 and stop <= end and not blocks.stream_id:
                    self._window_update(stream_id, data[start:stop])
                    position = stop
                    continue
                self._admit(kind, flags, stream_id, size)
                if stop > end:
                    self._needed = 9 + size
                    break
                self._control(kind, flags, stream_id, data[start:stop])
                position = stop
            elif kind:
                position = self._headers(data, start, stop, flags, stream_id)
            else:
                position = stop
                self.receiver.count(size)
                if flags & 8 or not stream_id:
                    rules.check_header(0, flags, stream_id, size)
                    start, stop = rules.unpad(data, start, stop)
                stream = streams.get(stream_id)
                if stream is None:
                    self._stray_data(stream_id)
                else:
                    length = stop - start
                    if length >= TINY:
                        self.guard.data_moves()
                    elif not flags & 1:
                        self.guard.data(length, self.now, tiny_is_normal=self._takes_tiny(stream, length))
                    self._deliver(stream, data[start:stop], size, end=flags & 1 == 1)
        else:
            self._turn_is_full = True
        return position

    def _open(self, data: bytes) -> int:
        """Get past the preface, to a first frame that must be SETTINGS."""
        position = self._preface(data)
        self._needed = max(position, 0) + 9
        if position < 0:
            self._needed = len(frames.PREFACE)
        elif len(data) >= position + 9:
            word, flags, _ = frames.HEADER.unpack_from(data, position)
            if word & 0xFF != frames.SETTINGS or flags & frames.ACK:
                raise protocol_error("the first frame is not SETTINGS")
            self._opening = False
        return position

    def _hold(self, data: bytes, position: int) -> None:
        """Keep the rest: an incomplete frame until it is complete, or whole ones for the next loop turn."""
        self._held.append(data[position:] if position else data)
        self._held_size = len(data) - position
        if self._turn_is_full:
            self._needed = self._held_size + self.limits.max_frame + 9
            self._stop_reading(FULL_TURN)
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._turn_is_full and self._held:
            data = b"".join(self._held)
            self._held.clear()
            if not self.closing:
                self._turn(data)
        if self.closing or not (self._turn_is_full and self._held):
            self._read_on(FULL_TURN)

    def _admit(self, kind: int, flags: int, stream_id: int, size: int) -> None:
        """Judge a frame by its header, before its payload is kept."""
        blocks = self.blocks
        if blocks.stream_id and (kind != frames.CONTINUATION or stream_id != blocks.stream_id):
            raise protocol_error("a header block was interrupted")
        rules.check_header(kind, flags, stream_id, size)
        if kind == frames.CONTINUATION:
            if not blocks.stream_id:
                raise protocol_error("CONTINUATION without HEADERS")
            blocks.admit(size)
        elif kind == frames.HEADERS:
            blocks.admit(size)

    def _headers_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        """The unhurried way of a HEADERS frame."""
        self._admit(frames.HEADERS, flags, stream_id, len(payload))
        if flags & (frames.PADDED | frames.PRIORITIZED):
            payload = strip(payload, flags, stream_id)
        if flags & frames.END_HEADERS:
            self.guard.header_block(len(payload), self.now)
            self._block(stream_id, flags, payload)
        else:
            if not payload:
                self.guard.charge("empty_data", self.now)
            self._block_opened_at = self.now
            self.blocks.begin(stream_id, flags, payload)
