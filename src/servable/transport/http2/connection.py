"""The server's side of an HTTP/2 connection: requests in, exchanges to the application, replies out."""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable

from servable.transport.exchange import AnswersOversizedHeads, Application, Field, Peer, RequestHead, Route
from servable.transport.http2 import frames
from servable.transport.http2.blocks import BlockCache
from servable.transport.http2.errors import MalformedError, PeerError, protocol_error
from servable.transport.http2.fields import UNKNOWN_LENGTH
from servable.transport.http2.framing import log
from servable.transport.http2.leaving import LeavingConnection
from servable.transport.http2.receiving import Incoming
from servable.transport.http2.refusals import CONTINUE, HEAD_TOO_LARGE, NO_TUNNELS
from servable.transport.http2.replies import head_block
from servable.transport.http2.streams import ServerStream, Template
from servable.transport.http2.uploads import PartedStream
from servable.transport.http2.work import Work
from servable.transport.ledger import Ledger
from servable.transport.limits import Limits

_CLIENTS_FAULT = frozenset(
    (frames.PROTOCOL_ERROR, frames.FLOW_CONTROL_ERROR, frames.STREAM_CLOSED, frames.REFUSED_STREAM)
)
"""Codes of resets that a client brings about. It may do so a few times; doing it over and over is an attack."""


class ServerConnection(LeavingConnection):
    """One client. ``active`` counts exchanges in work: those the application has begun and not yet answered."""

    __slots__ = ("_max_streams", "_seen", "_templates", "_unended", "application", "work")

    def __init__(
        self,
        application: Application,
        limits: Limits,
        peer: Peer,
        loop: AbstractEventLoop,
        on_close: Callable[[ServerConnection], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        ledger: Ledger | None = None,
    ) -> None:
        """``on_close`` is called with the connection when it is lost, whatever the reason."""
        self._templates: BlockCache[Template] = BlockCache()
        super().__init__(limits, loop, (self._templates,), on_close, clock, peer=peer, ledger=ledger)
        self.application = application
        self.work = Work(limits.max_concurrent_streams, limits.max_outbound, self.sender, self._broken)
        self._seen = self._templates.seen
        self._max_streams = limits.max_concurrent_streams
        self._unended: list[ServerStream] = []
        """Streams answered during this input whose client has not ended them yet: its end may be in the same read."""

    @property
    def active(self) -> int:
        """Exchanges in work: begun by the application and not yet answered, whether or not the client still waits."""
        return self.work.active

    # --- the start

    def _greeting(self) -> bytes:
        return self._hello((frames.MAX_CONCURRENT_STREAMS, self.limits.max_concurrent_streams))

    def _preface(self, data: bytes) -> int:
        size = len(frames.PREFACE)
        if data[:size] != frames.PREFACE[: len(data)]:
            raise protocol_error("not an HTTP/2 preface")
        return size if len(data) >= size else -1

    # --- requests

    def _headers(self, data: bytes, start: int, stop: int, flags: int, stream_id: int) -> int:
        ids = self._ids
        if flags & 0x2C == 4 and stream_id & 1 and ids.highest < stream_id <= ids.last_allowed:
            template = self._seen.get(data[start:stop])
            if template is not None and len(self.streams) < self._max_streams:
                ids.count(stream_id)
                self.quota -= 1
                if not flags & 1 and len(data) - stop >= 9:
                    word, flags, body_id = frames.HEADER.unpack_from(data, stop)
                    size: int = word >> 8
                    end = stop + 9 + size
                    if (
                        body_id == stream_id
                        and flags == 1
                        and not word & 0xFF
                        and size <= template.inline
                        and end <= len(data)
                        and (template.length < 0 or template.length == size)
                    ):
                        self.receiver.count(size)
                        stream = ServerStream(self, stream_id, template, ended=True)
                        self.streams[stream_id] = stream
                        self.work.start(stream, data[stop + 9 : end])
                        return end
                    flags = 0
                self._open_stream(template.stream(self, stream_id, template, ended=flags & 1 == 1))
                return stop
        self._headers_frame(flags, stream_id, data[start:stop])
        return stop

    def _block(self, stream_id: int, flags: int, block: bytes) -> None:
        fields = self.blocks.decode(block)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._trailers(stream, fields, flags)
        elif self._ids.opens(stream_id):
            self._ids.count(stream_id)
            self.quota -= 1 + (len(block) >> 10)  # a long head takes the time of several requests
            if len(self.streams) >= self._max_streams:
                self._reset_stream(stream_id, frames.REFUSED_STREAM)
                return
            template = self._template(stream_id, fields)
            if template is not None:
                if not self.blocks.decoder.overflow:
                    self._templates.remember(block, template, self.blocks.decoder)
                self._open_stream(template.stream(self, stream_id, template, ended=flags & 1 == 1))

    def _template(self, stream_id: int, fields: list[Field]) -> Template | None:
        """Return what the fields ask for; reset the stream if that is nothing."""
        try:
            if self.blocks.decoder.overflow:
                return self._oversized(fields)
            head, length, awaits_continue = self.rules.request(fields)
            route = NO_TUNNELS if head.method == b"CONNECT" else self.application.route(head)
            kind = PartedStream if route.in_parts else ServerStream
            return Template(head, route, length, self.limits, kind, awaits_continue=awaits_continue)
        except MalformedError:
            self._reset_stream(stream_id, frames.PROTOCOL_ERROR)
        except Exception:  # noqa: BLE001  # whatever the application raises ends this request alone
            log.exception("the application could not route a request")
            self._reset_stream(stream_id, frames.INTERNAL_ERROR)
        return None

    def _oversized(self, fields: list[Field]) -> Template:
        """Return the template for a request whose fields were too large: only some of them are known."""
        pseudo = {name: value for name, value in fields if name[:1] == b":"}
        rest = tuple(field for field in fields if field[0][:1] != b":")
        head = RequestHead(pseudo.get(b":method", b""), pseudo.get(b":path", b""), rest)
        route: Route = HEAD_TOO_LARGE
        if isinstance(self.application, AnswersOversizedHeads):
            route = self.application.oversized(head, self.blocks.decoder.list_size, self.limits.max_header_list)
        return Template(head, route, UNKNOWN_LENGTH, self.limits, ServerStream, oversized=True)

    def _open_stream(self, stream: ServerStream) -> None:
        """Begin a request whose head is complete."""
        template = stream.template
        if stream.ended:
            if template.length > 0:
                self._reset_stream(stream.stream_id, frames.PROTOCOL_ERROR)
            else:
                self._start(stream, b"")
            return
        self.streams[stream.stream_id] = stream
        if not template.wants_body:
            self._start(stream, b"")
        elif template.length > template.max_body:
            self._too_large(stream)
        else:
            stream.incoming = Incoming(template.length, self.now)
            self._extend(stream)
            if template.awaits_continue:
                block = CONTINUE.encoded_h2 or head_block(CONTINUE)
                self.sender.out.append(self.sender.head(stream.stream_id, block))

    def _trailers(self, stream: ServerStream, fields: list[Field], flags: int) -> None:
        if stream.ended:
            raise PeerError(frames.STREAM_CLOSED, "HEADERS after the end of a stream")
        try:
            self.rules.trailers(fields)
        except MalformedError:
            flags = 0
        if not flags & frames.END_STREAM:
            self._refuse(stream, frames.PROTOCOL_ERROR)
        elif self.blocks.decoder.overflow:
            self._refuse(stream, frames.ENHANCE_YOUR_CALM)
        else:
            self._end_body(stream)

    # --- bodies

    def _deliver(self, stream: ServerStream, part: bytes, flow: int, *, end: bool) -> None:
        if stream.ended:
            raise PeerError(frames.STREAM_CLOSED, "DATA after the end of a stream")
        incoming = stream.incoming
        if incoming is None:
            self._unassembled(stream, part, flow, end=end)
            return
        incoming.flow += flow
        incoming.add(part, self.now)
        receiver = self.receiver
        receiver.buffered += len(part)
        self.ledger.buffered += len(part)
        template = stream.template
        if incoming.flow - incoming.credit > receiver.enforced_window:
            self._refuse(stream, frames.FLOW_CONTROL_ERROR)
        elif 0 <= template.length < incoming.size:
            self._refuse(stream, frames.PROTOCOL_ERROR)
        elif incoming.size > template.max_body:
            stream.ended = end
            self._too_large(stream)
        elif receiver.buffered > self.limits.body_budget or self.ledger.buffered > self.ledger.body_budget:
            self.ledger.count("body_budget")
            self._refuse(stream, frames.ENHANCE_YOUR_CALM)
        elif end:
            self._end_body(stream)
        elif incoming.measured or not 0 < template.prefix_size <= incoming.size or self._measure(stream, incoming):
            self._extend(stream)

    def _measure(self, stream: ServerStream, incoming: Incoming) -> bool:
        """Ask the route how long the body will be; return True if it is wanted."""
        template = stream.template
        prefix = incoming.prefix(template.prefix_size)
        incoming.measured = True
        incoming.expected = self.work.ask(stream, lambda: template.route.body_size(stream, prefix))
        if incoming.expected < 0:
            self._drop_body(stream)
        elif incoming.expected > template.max_body:
            self._too_large(stream)
        else:
            return True
        return False

    def _unassembled(self, stream: ServerStream, part: bytes, flow: int, *, end: bool) -> None:
        code = stream.take_unassembled(part, flow, end=end)
        if code:
            self._refuse(stream, code)

    def _extend(self, stream: ServerStream) -> None:
        if stream.incoming is None:
            stream.extend()
        else:
            super()._extend(stream)

    def ended_unread(self, stream: ServerStream) -> None:
        """The client has ended a stream whose body nobody wants."""
        stream.ended = True
        if stream.answered and stream.outgoing is None:
            del self.streams[stream.stream_id]

    def _end_body(self, stream: ServerStream) -> None:
        incoming = stream.incoming
        if incoming is None:
            self._unassembled(stream, b"", 0, end=True)
        else:
            stream.ended = True
            if stream.template.length not in (-1, incoming.size):
                self._refuse(stream, frames.PROTOCOL_ERROR)
                return
            self._drop_body(stream)
            self._start(stream, incoming.take())

    def _drop_body(self, stream: ServerStream) -> None:
        """Stop assembling; what still comes is discarded."""
        if stream.incoming is not None:
            self.receiver.buffered -= stream.incoming.size
            self.ledger.buffered -= stream.incoming.size
            stream.incoming = None

    def _too_large(self, stream: ServerStream) -> None:
        self._drop_body(stream)
        route, limit = stream.template.route, stream.template.max_body
        self.work.ask(stream, lambda: route.too_large(stream, limit))

    def _stray_data(self, stream_id: int) -> None:
        self._ids.check_data(stream_id)
        self.guard.glitch(self.now)

    def _is_idle(self, stream_id: int) -> bool:
        return self._ids.is_idle(stream_id)

    # --- the end of streams

    def _start(self, stream: ServerStream, body: bytes) -> None:
        self.streams[stream.stream_id] = stream
        self.work.start(stream, body)

    def finished(self, stream: ServerStream) -> None:
        """The reply is in the output; the stream is over, if need be as soon as this input has been read."""
        if stream.ended:
            del self.streams[stream.stream_id]
        elif self.in_turn:
            self._unended.append(stream)
        else:
            self._stop_upload(stream)

    def _stop_upload(self, stream: ServerStream) -> None:
        """Tell a client that still sends what nobody reads to stop. Any other code would cost gRPC its status."""
        del self.streams[stream.stream_id]
        self._drop_body(stream)
        self._reset_stream(stream.stream_id, frames.NO_ERROR)

    def _input_ends(self) -> None:
        for stream in self._unended:
            if stream.stream_id in self.streams:
                self._stop_upload(stream)
        self._unended.clear()

    def _sent(self, stream: ServerStream) -> None:
        if stream.parts is not None and stream.parts.go_on():
            return
        if stream.ended:
            del self.streams[stream.stream_id]
        else:
            self._stop_upload(stream)
        if self.work.waiting:
            self.work.resume()

    def _reset_stream(self, stream_id: int, code: int) -> None:
        self._ids.note_reset(stream_id, self._clock())
        self._answer(frames.rst_stream(stream_id, code))
        self.ledger.count(f"rst_sent_{frames.code_name(code)}")
        if code in _CLIENTS_FAULT:
            if code == frames.REFUSED_STREAM and self._settings_pending:
                self.guard.glitch(self.now)  # the client cannot know our limit yet
            else:
                self.guard.charge("own_reset", self.now)

    def _refuse(self, stream: ServerStream, code: int) -> None:
        self._reset_stream(stream.stream_id, code)
        self._reset(stream, code)

    def _given_up(self, stream: ServerStream, code: int) -> None:
        self.ledger.count("rst_received")
        self._reset(stream, code)
        self.guard.charge("rapid_reset", self.now)

    def _takes_tiny(self, stream: ServerStream, size: int) -> bool:
        return stream.takes_tiny(size)

    def _reset(self, stream: ServerStream, code: int) -> None:
        self.streams.pop(stream.stream_id, None)
        self.work.waiting.pop(stream.stream_id, None)
        self._drop_body(stream)
        self.sender.drop(stream)
        stream.cancel()

    def _broken(self, stream: ServerStream) -> None:
        """The route of a request raised: that request is over."""
        if not stream.answered:
            stream.answered = True
            self.work.ended()
            self._refuse(stream, frames.INTERNAL_ERROR)

    def fail_stream(self, stream: ServerStream) -> None:
        """Reset a stream whose reply cannot go on."""
        self._refuse(stream, frames.INTERNAL_ERROR)
        if not self.in_turn:
            self.sender.schedule()

    def _abandon(self, reason: str) -> None:
        for stream in list(self.streams.values()):
            self._reset(stream, frames.CANCEL)
