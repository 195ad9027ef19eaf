"""The half of a connection that both roles share: bytes into frames, and control frames.

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
from servable.transport.http2.errors import PeerError, protocol_error
from servable.transport.http2.guard import TINY, Guard
from servable.transport.http2.hpack import DEFAULT_TABLE_SIZE
from servable.transport.http2.lifetime import FULL_TURN, UNREAD_REPLIES, Lifetime, S
from servable.transport.ledger import Ledger
from servable.transport.limits import KIB, Limits

log = logging.getLogger("servable.transport")

_LARGE_READ = 128 * KIB  # loops read on while a socket fills their buffer, dozens of times: others come in between
_CONTROL_PAUSE = 64
_CONTROL_MAX = 1000


class FramedConnection(Lifetime[S], Generic[S]):
    """Frames in and out of one transport. Subclasses give the streams their meaning."""

    __slots__ = (
        "_held",
        "_held_size",
        "_lasting_settings",
        "_needed",
        "_turn_is_full",
        "_unread_replies",
        "_updates_left",
        "guard",
        "in_turn",
        "ledger",
        "peer_max_streams",
        "peer_name",
        "quota",
    )

    def __init__(
        self,
        limits: Limits,
        loop: AbstractEventLoop,
        caches: tuple[BlockCache[Any], ...],
        on_close: Callable[[Any], None] | None,
        clock: Callable[[], float],
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(limits, loop, caches, on_close, clock)
        self.ledger = ledger or Ledger()
        self.sender.report_stall = self.ledger.stalled
        self.peer_name = "a server"
        self.guard = Guard(limits.rates, self.now)
        self._updates_left = 0.0
        self.quota = limits.requests_per_turn  # may still begin in this turn; a role that begins none never lowers it
        self.in_turn = False
        """Input is being processed; its end flushes, so nobody else needs to."""
        self.peer_max_streams = frames.MAX_STREAM_ID
        self._lasting_settings: dict[int, int] = {}
        self._turn_is_full = False  # it ended before the input did, for the sake of other connections
        self._held: list[bytes] = []
        self._held_size = self._needed = self._unread_replies = 0

    @abstractmethod
    def _preface(self, data: bytes) -> int:
        """Return the length of the peer's preface, -1 while incomplete."""

    @abstractmethod
    def _headers(self, data: bytes, start: int, stop: int, flags: int, stream_id: int) -> int:
        """Handle a HEADERS frame, and what follows it if that is quicker; return where to go on."""

    @abstractmethod
    def _block(self, stream_id: int, flags: int, block: bytes) -> None:
        """Handle a complete header block."""

    @abstractmethod
    def _deliver(self, stream: S, part: bytes, flow: int, *, end: bool) -> None:
        """Handle DATA of a stream."""

    @abstractmethod
    def _stray_data(self, stream_id: int) -> None:
        """Judge DATA without a stream."""

    @abstractmethod
    def _is_idle(self, stream_id: int) -> bool:
        """Return True if no HEADERS has ever opened or skipped the stream."""

    @abstractmethod
    def _reset(self, stream: S, code: int) -> None:
        """End a stream because of the peer."""

    @abstractmethod
    def _given_up(self, stream: S, code: int) -> None:
        """The peer sent RST_STREAM for a stream."""

    @abstractmethod
    def _takes_tiny(self, stream: S, size: int) -> bool:
        """Return True if DATA frames of so few bytes are normal for the stream."""

    @abstractmethod
    def _opened(self) -> int:
        """Return how many streams there have been."""

    @abstractmethod
    def _pinged(self) -> None:
        """Judge a PING of the peer's."""

    @abstractmethod
    def _went_away(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """The peer sent GOAWAY."""

    @abstractmethod
    def _ponged(self, payload: bytes) -> None:
        """A PING of ours came back."""

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

    def _stalled(self) -> None:
        self.ledger.count("send_stalled")

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

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.PING:
            if flags & frames.ACK:
                self._ponged(payload)
            else:
                self._pinged()
                self._answer(frames.ping(payload, frames.ACK))
        elif kind == frames.RST_STREAM:
            stream = self.streams.get(stream_id)
            if stream is not None:
                self._given_up(stream, int.from_bytes(payload, "big"))
            elif self._is_idle(stream_id):
                raise protocol_error("RST_STREAM on an idle stream")
            else:
                self.guard.stray(self._opened())
        elif kind == frames.SETTINGS:
            self._settings(flags, payload)
        elif kind == frames.CONTINUATION:
            self.blocks.add(payload)
            if flags & frames.END_HEADERS:
                block_flags, block = self.blocks.finish()
                self.guard.header_block(len(block), self.now)
                self._block(stream_id, block_flags, block)
        elif kind == frames.GOAWAY:
            last, code = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
            self._went_away(last & frames.MAX_STREAM_ID, code, payload[8:])
        elif kind == frames.PRIORITY:
            rules.check_priority(payload, stream_id)
            self.guard.stray(self._opened())
        else:
            self.guard.glitch(self.now)

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            if self._settings_pending:
                self._settings_pending = False
                self.receiver.acknowledged()
                for stream in self.streams.values():
                    self._extend(stream)
            else:
                self.guard.glitch(self.now)
            return
        self.guard.charge("settings_flood", self.now)
        sender = self.sender
        for key, value in rules.read_settings(payload):
            if key == frames.HEADER_TABLE_SIZE:
                if value < DEFAULT_TABLE_SIZE:
                    sender.promise_no_table()
            elif key == frames.MAX_CONCURRENT_STREAMS:
                self.peer_max_streams = value
            elif key == frames.INITIAL_WINDOW_SIZE:
                if any(value + stream.credit > frames.MAX_WINDOW for stream in self.streams.values()):
                    raise PeerError(frames.FLOW_CONTROL_ERROR, "a stream's window grew too large")
                sender.change_initial_window(value)
            elif key == frames.MAX_FRAME_SIZE:
                sender.max_frame = value
            else:
                rules.check_lasting(self._lasting_settings, key, value)
        self._answer(frames.SETTINGS_ACK)

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        self._updates_left -= 1
        if self._updates_left < 0:
            self._updates_left += self.guard.more_updates(self._opened(), self.sender.data_frames)
        increment = int.from_bytes(payload, "big") & frames.MAX_WINDOW
        if not increment:
            raise protocol_error("WINDOW_UPDATE of nothing")
        sender = self.sender
        if not stream_id:
            sender.window += increment
            if sender.window > frames.MAX_WINDOW:
                raise PeerError(frames.FLOW_CONTROL_ERROR, "the connection's window grew too large")
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise protocol_error("WINDOW_UPDATE on an idle stream")
            return
        stream.credit += increment
        if sender.initial_window + stream.credit > frames.MAX_WINDOW:
            self._refuse(stream, frames.FLOW_CONTROL_ERROR)
        elif stream.outgoing is not None:
            sender.stream_credited(stream)

    def _extend(self, stream: S) -> None:
        """Let an unfinished body go on."""
        if stream.incoming is not None:
            update = self.receiver.extend(stream.stream_id, stream.incoming)
            if update:
                self.sender.out.append(update)

    def _answer(self, frame: bytes) -> None:
        """Send a control frame that the peer caused. One that never reads may not make us keep them for ever."""
        self.sender.out.append(frame)
        if self.sender.paused:
            self._unread_replies += 1
            if self._unread_replies > _CONTROL_MAX and self.in_turn:
                raise PeerError(frames.ENHANCE_YOUR_CALM, "replies are not being read", "unread_replies")
            if self._unread_replies > _CONTROL_PAUSE:
                self._stop_reading(UNREAD_REPLIES)
        else:
            self._unread_replies = 0
