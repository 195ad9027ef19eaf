"""Control frames: what each of them means for the connection, and what stops a peer that sends too many."""

from __future__ import annotations

from abc import abstractmethod
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any, Generic

from servable.transport.http2 import frames, rules
from servable.transport.http2.blocks import BlockCache
from servable.transport.http2.errors import PeerError, protocol_error
from servable.transport.http2.guard import Guard
from servable.transport.http2.hpack import DEFAULT_TABLE_SIZE
from servable.transport.http2.lifetime import UNREAD_REPLIES, Lifetime, S
from servable.transport.ledger import Ledger
from servable.transport.limits import Limits

_CONTROL_PAUSE = 64
_CONTROL_MAX = 1000


class ControlledConnection(Lifetime[S], Generic[S]):
    """All frames but HEADERS and DATA, and the windows that some of them move."""

    __slots__ = (
        "_lasting_settings",
        "_unread_replies",
        "_updates_left",
        "guard",
        "in_turn",
        "ledger",
        "peer_max_streams",
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
        self.guard = Guard(limits.rates, self.now)
        self.in_turn = False
        """Input is being processed; its end flushes, so nobody else needs to."""
        self.peer_max_streams = frames.MAX_STREAM_ID
        self._updates_left = 0.0
        self._lasting_settings: dict[int, int] = {}
        self._unread_replies = 0

    @abstractmethod
    def _block(self, stream_id: int, flags: int, block: bytes) -> None:
        """Handle a complete header block."""

    @abstractmethod
    def _is_idle(self, stream_id: int) -> bool:
        """Return True if no HEADERS has ever opened or skipped the stream."""

    @abstractmethod
    def _opened(self) -> int:
        """Return how many streams there have been."""

    @abstractmethod
    def _given_up(self, stream: S, code: int) -> None:
        """The peer sent RST_STREAM for a stream."""

    @abstractmethod
    def _pinged(self) -> None:
        """Judge a PING of the peer's."""

    @abstractmethod
    def _ponged(self, payload: bytes) -> None:
        """A PING of ours came back."""

    @abstractmethod
    def _went_away(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """The peer sent GOAWAY."""

    def _stalled(self) -> None:
        self.ledger.count("send_stalled")

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
