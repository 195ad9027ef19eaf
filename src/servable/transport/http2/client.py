"""The client's side of an HTTP/2 connection: requests out, replies to callbacks. The framing is the server's own."""

from __future__ import annotations

import asyncio
import ssl
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable

from servable.transport.address import Address
from servable.transport.dial import dial
from servable.transport.errors import Failure, TransportError
from servable.transport.exchange import Field, RequestHead
from servable.transport.http2 import frames
from servable.transport.http2.blocks import BlockCache
from servable.transport.http2.client_streams import UNREAD_BYTES, ClientStream, Outcome, ReplyStart
from servable.transport.http2.errors import MalformedError, PeerError, protocol_error
from servable.transport.http2.fields import UNKNOWN_LENGTH
from servable.transport.http2.framing import FramedConnection
from servable.transport.http2.hpack import encode_block
from servable.transport.http2.lifetime import NEVER
from servable.transport.http2.receiving import Incoming
from servable.transport.limits import Limits
from servable.transport.reply import Reply

_STREAMS_BEFORE_SETTINGS = 100
_MAX_BLOCKS = 256
_INFORMATIONAL = 200
_NOT_MODIFIED = 304

__all__ = ["ClientConnection", "ClientStream"]


class ClientConnection(FramedConnection[ClientStream]):
    """One server. Requests above its limit of streams wait here, in order."""

    __slots__ = ("_blocks", "_leaving", "_next_id", "_replies", "_trailers", "_waiting")

    def __init__(
        self,
        loop: AbstractEventLoop,
        limits: Limits | None = None,
        on_close: Callable[[ClientConnection], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``limits`` are this side's: windows, frames, and what a reply may take. ``on_close`` gets the connection."""
        self._replies: BlockCache[ReplyStart] = BlockCache()
        self._trailers: BlockCache[tuple[Field, ...]] = BlockCache()
        super().__init__(limits or Limits(), loop, (self._replies, self._trailers), on_close, clock)
        self.peer_max_streams = _STREAMS_BEFORE_SETTINGS
        self._next_id = 1
        self._leaving = False
        self._waiting: dict[ClientStream, None] = {}
        self._blocks: dict[RequestHead, bytes] = {}

    # --- for the caller

    @classmethod
    async def connect(
        cls,
        address: Address,
        limits: Limits | None = None,
        on_close: Callable[[ClientConnection], None] | None = None,
        *,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> ClientConnection:
        """Open a connection; raise ``TransportError`` if that fails or takes too long."""
        loop = asyncio.get_running_loop()
        return await dial(lambda: cls(loop, limits, on_close), address, timeout_s, tls)

    @property
    def ready(self) -> bool:
        """True if a request can be sent now: neither side has said goodbye."""
        return not (self.closing or self._leaving) and self.transport is not None

    def request(
        self,
        head: RequestHead,
        body: bytes | memoryview,
        on_reply: Callable[[Outcome], None],
        timeout_s: float | None = None,
        on_part: Callable[[bytes], None] | None = None,
    ) -> ClientStream:
        """Send a request; ``on_reply`` is called once, later, on the loop, and may send the next.

        Raises ``TransportError`` (safe to retry) if the connection is not ``ready``. A head used many times is encoded
        once; ``body`` must not change until the reply is there. ``on_part`` gets the reply's body as it comes; the
        server is held back until ``ClientStream.consume`` is called.
        """
        if not self.ready:
            raise TransportError(Failure.NOT_STARTED, "the connection is closed")
        deadline = NEVER if timeout_s is None else self._clock() + timeout_s
        stream = ClientStream(self, head, body, on_reply, deadline, on_part)
        if len(self.streams) < self.peer_max_streams and not self._waiting:
            self._send(stream)
        else:
            self._waiting[stream] = None
        if deadline != NEVER:
            self._wake_at(deadline)
        if not self.in_turn:
            self.sender.schedule()
        return stream

    async def fetch(self, head: RequestHead, body: bytes | memoryview = b"", timeout_s: float | None = None) -> Reply:
        """Send a request and wait for its reply; raise ``TransportError`` if there is none."""
        answer: asyncio.Future[Outcome] = self.loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        stream = self.request(head, body, settle, timeout_s)
        try:
            outcome = await answer
        finally:
            stream.cancel()
        if isinstance(outcome, TransportError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Send no new requests; close when those begun have ended."""
        if not (self.closing or self._leaving):
            self._leaving = True
            self._fail_waiting("the connection is being closed")
            self.sender.out.append(frames.goaway(0, frames.NO_ERROR))
            self.sender.schedule()

    def go_on(self, stream: ClientStream) -> None:
        """Let the server send more of a reply, if its reader keeps up."""
        if self.streams.get(stream.stream_id) is stream and not self.closing:
            self._extend(stream)
            self.sender.schedule()

    def _extend(self, stream: ClientStream) -> None:
        if stream.unread < UNREAD_BYTES:
            super()._extend(stream)

    def withdraw(self, stream: ClientStream) -> None:
        """Forget a request that its caller has given up."""
        if stream in self._waiting:
            del self._waiting[stream]
        elif self.streams.get(stream.stream_id) is stream:
            self._end(stream, frames.CANCEL)

    # --- requests

    def _send(self, stream: ClientStream) -> None:
        stream.stream_id = self._next_id
        self._next_id += 2
        self.streams[stream.stream_id] = stream
        block = self._blocks.get(stream.head) or self._encode(stream.head)
        body = stream.take_body()
        if isinstance(body, memoryview) and body.itemsize != 1:
            body = body.cast("B")
        stream.sent = self.sender.send(stream, block, body, None)
        if self._next_id > frames.MAX_STREAM_ID:
            self._leaving = True

    def _encode(self, head: RequestHead) -> bytes:
        fields: list[Field] = [(b":method", head.method), (b":scheme", head.scheme), (b":path", head.target)]
        if head.authority:
            fields.append((b":authority", head.authority))
        block = encode_block((*fields, *head.fields))
        if len(self._blocks) >= _MAX_BLOCKS:
            self._blocks.clear()
        self._blocks[head] = block
        return block

    def _sent(self, stream: ClientStream) -> None:
        stream.sent = True

    def _input_ends(self) -> None:
        while self._waiting and len(self.streams) < self.peer_max_streams and not self._leaving:
            stream = next(iter(self._waiting))
            del self._waiting[stream]
            self._send(stream)

    # --- replies

    def _headers(self, data: bytes, start: int, stop: int, flags: int, stream_id: int) -> int:
        if flags & 0x2C == 4:
            stream = self.streams.get(stream_id)
            if stream is not None:
                block = data[start:stop]
                if stream.start is None:
                    known = self._replies.seen.get(block)
                    if known is not None:
                        self._begin(stream, known, end=flags & 1 == 1)
                        return stop
                elif flags & 1:
                    trailers = self._trailers.seen.get(block)
                    if trailers is not None:
                        self._finish_reply(stream, trailers)
                        return stop
        self._headers_frame(flags, stream_id, data[start:stop])
        return stop

    def _block(self, stream_id: int, flags: int, block: bytes) -> None:
        fields = self.blocks.decode(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise protocol_error("HEADERS on an idle stream")
            return
        try:
            self._read(stream, fields, block, end=flags & frames.END_STREAM == frames.END_STREAM)
        except MalformedError as error:
            self._give_up(stream, str(error))

    def _read(self, stream: ClientStream, fields: list[Field], block: bytes, *, end: bool) -> None:
        """Take a decoded block as the head or the trailers of a reply."""
        if self.blocks.decoder.overflow:
            raise MalformedError("the header list is too long")
        if stream.start is None:
            start = self.rules.response(fields)
            if start[0] >= _INFORMATIONAL:
                self._replies.remember(block, start, self.blocks.decoder)
            self._begin(stream, start, end=end)
        elif not end:
            raise MalformedError("trailers do not end the stream")
        else:
            trailers = self.rules.trailers(fields)
            self._trailers.remember(block, trailers, self.blocks.decoder)
            self._finish_reply(stream, trailers)

    def _begin(self, stream: ClientStream, start: ReplyStart, *, end: bool) -> None:
        status, _, length = start
        if status < _INFORMATIONAL:
            if end:
                raise MalformedError("an informational reply ends the stream")
            return
        if stream.head.method == b"HEAD" or status == _NOT_MODIFIED:
            length = UNKNOWN_LENGTH
        stream.start = start
        stream.incoming = Incoming(length, self.now)
        if end:
            self._finish_reply(stream, ())
        elif length > self.limits.max_body:
            self._give_up(stream, "the reply is larger than this side accepts")
        else:
            self._extend(stream)

    def _deliver(self, stream: ClientStream, part: bytes, flow: int, *, end: bool) -> None:
        incoming = stream.incoming
        if incoming is None:
            self._give_up(stream, "a body without a head")
            return
        incoming.flow += flow
        if stream.on_part is None:
            incoming.add(part, self.now)
            self.receiver.buffered += len(part)
        if incoming.flow - incoming.credit > self.receiver.enforced_window:
            raise PeerError(frames.FLOW_CONTROL_ERROR, "stream window exceeded")
        if stream.on_part is not None:
            stream.unread += len(part)
            stream.on_part(part)
            if stream.stream_id not in self.streams:
                return
        if incoming.size > self.limits.max_body or self.receiver.buffered > self.limits.body_budget:
            self._give_up(stream, "the reply is larger than this side accepts")
        elif end:
            self._finish_reply(stream, ())
        else:
            self._extend(stream)

    def _finish_reply(self, stream: ClientStream, trailers: tuple[Field, ...]) -> None:
        start, incoming = stream.start, stream.incoming
        assert start is not None
        assert incoming is not None, "a reply that has begun has a body"
        if stream.on_part is None and incoming.expected not in (UNKNOWN_LENGTH, incoming.size):
            self._give_up(stream, "the body does not have its content-length")
            return
        self._end(stream, None if stream.sent else frames.NO_ERROR)
        stream.resolve(Reply(start[0], start[1], incoming.take(), trailers))

    def _give_up(self, stream: ClientStream, why: str) -> None:
        """The server broke a rule of messages, or a limit of ours."""
        self._end(stream, frames.PROTOCOL_ERROR)
        stream.resolve(TransportError(Failure.MALFORMED, why))

    # --- the end of streams

    def _end(self, stream: ClientStream, code: int | None) -> None:
        """Forget a stream; ``code`` goes to the server, ``None`` says nothing."""
        del self.streams[stream.stream_id]
        if stream.incoming is not None:
            self.receiver.buffered -= stream.incoming.size
        self.sender.drop(stream)
        if code is not None and not self.closing:
            self._answer(frames.rst_stream(stream.stream_id, code))
            if not self.in_turn:
                self.sender.schedule()

    def _reset(self, stream: ClientStream, code: int) -> None:
        self._end(stream, None)
        refused = code == frames.REFUSED_STREAM
        message = f"the server {'refused' if refused else 'reset'} the request with code {code}"
        failure = Failure.NOT_STARTED if refused else Failure.RESET
        stream.resolve(TransportError(failure, message, code))

    def _refuse(self, stream: ClientStream, code: int) -> None:
        self._end(stream, code)
        message = "the server stopped reading" if code == frames.CANCEL else "the server broke flow control"
        stream.resolve(TransportError(Failure.TIMEOUT if code == frames.CANCEL else Failure.MALFORMED, message))

    def _went_away(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self._leaving = True
        why = f"the server is going away with code {code}: {debug[:256].decode('ascii', 'backslashreplace')}"
        self._fail_waiting(why, code)
        for stream in [stream for stream in self.streams.values() if stream.stream_id > last_stream_id]:
            self._end(stream, None)
            stream.resolve(TransportError(Failure.NOT_STARTED, why, code))

    def _fail_waiting(self, why: str, code: int | None = None) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        for stream in waiting:
            stream.resolve(TransportError(Failure.NOT_STARTED, why, code))

    def _abandon(self, reason: str) -> None:
        self._fail_waiting(reason)
        for stream in list(self.streams.values()):
            self._end(stream, None)
            stream.resolve(TransportError(Failure.LOST, reason))

    def _settled(self) -> None:
        if self.closing:
            return
        if self._leaving and not self.streams:
            self._finish("done")
        elif not self.in_turn:
            self._input_ends()
            self.sender.flush()

    def _due(self, now: float) -> float:
        when = NEVER
        for stream in [*self._waiting, *self.streams.values()]:
            if stream.deadline <= now:
                if stream.stream_id:
                    self._end(stream, frames.CANCEL)
                else:
                    del self._waiting[stream]
                stream.resolve(TransportError(Failure.TIMEOUT, "the deadline has passed"))
            else:
                when = min(when, stream.deadline)
        return when

    # --- what a client need not know

    def _greeting(self) -> bytes:
        return frames.PREFACE + self._hello((frames.ENABLE_PUSH, 0))

    def _preface(self, data: bytes) -> int:
        return 0

    def _stray_data(self, stream_id: int) -> None:
        if self._is_idle(stream_id):
            raise protocol_error("DATA on an idle stream")

    def _is_idle(self, stream_id: int) -> bool:
        return not stream_id & 1 or stream_id >= self._next_id

    def _ponged(self, payload: bytes) -> None:
        pass

    def _pinged(self) -> None:
        self.guard.charge("ping_flood", self.now)

    def _given_up(self, stream: ClientStream, code: int) -> None:
        self._reset(stream, code)

    def _takes_tiny(self, stream: ClientStream, size: int) -> bool:
        return True

    def _opened(self) -> int:
        return self._next_id // 2

    def _last_started(self) -> int:
        return 0
