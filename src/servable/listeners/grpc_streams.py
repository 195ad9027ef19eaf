"""Streaming methods: one for many, many for one, many for many, written as coroutines.

    async def count(message: bytes, call: StreamCall) -> AsyncIterator[bytes]: ...          server_streaming
    async def gather(messages: AsyncIterator[bytes], call: StreamCall) -> bytes: ...        client_streaming
    async def converse(messages: AsyncIterator[bytes], call: StreamCall) -> AsyncIterator[bytes]: ...   bidirectional

A method ends its call by returning, or with the status of the ``ServingError`` it raises. It is cancelled when the
client goes away or the deadline passes. Reading waits for the client; a message that is not read closes the client's
window. Sending waits while the client does not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

from servable.core.errors import Code, ServingError, internal
from servable.core.messages import Metadata
from servable.listeners.grpc import GIVEN_UP, OK_TRAILERS, PAST_DEADLINE, MessageRoute, error_head
from servable.listeners.grpc_compression import MAX_MESSAGE, packed, unpacked
from servable.transport.exchange import (
    Exchange,
    PartedBody,
    PartedReply,
    Peer,
    RepliesInParts,
    ReplyHead,
    Route,
    TakesInParts,
    Trailers,
)
from servable.wire import grpc as wire
from servable.wire.grpc_messages import MessageBuffer

log = logging.getLogger("servable.listeners")

STOPPING = ServingError(Code.UNAVAILABLE, "the server is stopping")
_TURN_MESSAGES = 32
_TURN_BYTES = 256 * 1024
"""What one call sends before others have their turn."""


class StreamCall:
    """What a method knows of its call, and the metadata it answers with."""

    __slots__ = ("deadline", "initial_metadata", "metadata", "peer", "trailing_metadata")

    def __init__(self, exchange: Exchange, call: wire.Call) -> None:
        self.peer: Peer = exchange.peer
        self.metadata = call.metadata
        self.deadline = None if call.timeout_s is None else exchange.arrived + call.timeout_s
        """In seconds of ``time.monotonic()``."""
        self.initial_metadata: Metadata = ()
        """Sent before the first message."""
        self.trailing_metadata: Metadata = ()


Messages = AsyncIterator[bytes]
ServerStreaming = Callable[[bytes, StreamCall], AsyncGenerator[bytes, None]]
ClientStreaming = Callable[[Messages, StreamCall], Awaitable[bytes]]
Bidirectional = Callable[[Messages, StreamCall], AsyncGenerator[bytes, None]]
MakeRoute = Callable[[wire.Call], Route]
_Produce = Callable[[StreamCall], AsyncGenerator[bytes, None]]


class Streams:
    """Makes routes of streaming methods, and knows the calls that are under way."""

    def __init__(self) -> None:
        self._idle: dict[Inbox, None] = {}
        self._closed = False

    def server_streaming(self, method: ServerStreaming) -> MakeRoute:
        """Return routes to a method that answers one message with many."""
        return partial(_OneToMany, method)

    def client_streaming(self, method: ClientStreaming) -> MakeRoute:
        """Return routes to a method that answers many messages with one."""

        async def gathered(messages: Messages, call: StreamCall) -> AsyncGenerator[bytes, None]:
            yield await method(messages, call)

        return partial(_ManyToMany, self, gathered)

    def bidirectional(
        self, method: Bidirectional, *, ends_idle: bool = False, max_message: int = MAX_MESSAGE
    ) -> MakeRoute:
        """Return routes to a method that takes and sends messages as it likes. ``max_message`` in bytes, of a request.

        ``ends_idle``: each message is answered by itself, so a server that stops may end the call between two.
        """
        return partial(_ManyToMany, self, method, ends_idle=ends_idle, max_message=max_message)

    def waits(self, inbox: Inbox) -> bool:
        """Note that a call waits for its client between messages; return False if it should end instead."""
        if not self._closed:
            self._idle[inbox] = None
        return not self._closed

    def goes_on(self, inbox: Inbox) -> None:
        """Note that it waits no more."""
        self._idle.pop(inbox, None)

    def close(self) -> None:
        """End the calls that wait between messages, now and later, so that they hold up no drain."""
        self._closed = True
        for inbox in list(self._idle):
            inbox.stop()


class _OneToMany(MessageRoute):
    """A method that takes exactly one message."""

    __slots__ = ("_method",)

    def __init__(self, method: ServerStreaming, call: wire.Call) -> None:
        super().__init__(call)
        self._method = method

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        message = body[start:] if start else body
        _LiveCall(exchange, self.call, lambda call: self._method(message, call)).start()


class _ManyToMany(Route):
    """A method that takes any number of messages, as they arrive."""

    __slots__ = ("_call", "_ends_idle", "_max_message", "_method", "_streams")
    in_parts = True

    def __init__(
        self,
        streams: Streams,
        method: Bidirectional,
        call: wire.Call,
        *,
        ends_idle: bool = False,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self._streams = streams
        self._method = method
        self._call = call
        self._ends_idle = ends_idle
        self._max_message = max_message

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Begin; messages follow."""
        assert isinstance(exchange, TakesInParts), "gRPC comes over HTTP/2"
        call = self._call
        if call.timeout_s is not None and call.timeout_s <= 0:
            exchange.respond(error_head(PAST_DEADLINE))
            return
        flow = exchange.receive()
        inbox = Inbox(flow, call.encoding, self._max_message, self._streams if self._ends_idle else None)
        _LiveCall(exchange, call, lambda live: self._method(inbox, live)).start()
        flow.start(inbox)


class Inbox(AsyncIterator[bytes]):
    """The messages of a client, one at a time. Raises ``ServingError`` for what is no message, and then ends."""

    def __init__(self, flow: PartedBody, encoding: bytes | None, limit: int, streams: Streams | None) -> None:
        """``streams`` is told when the call waits between messages, and may end it then."""
        self._flow = flow
        self._encoding = encoding
        self._streams = streams
        self._limit = limit
        self._buffer = MessageBuffer(limit)
        self._ended = False
        self._waiting: asyncio.Future[None] | None = None

    # --- the transport's calls

    def data(self, part: bytes) -> None:
        """Take bytes; wake the method if it waits and there is a message, or never will be."""
        self._buffer.add(part)
        if self._waiting is not None and self._is_ready():
            self._wake()

    def end(self) -> None:
        """The client sends no more."""
        self._ended = True
        self._wake()

    # --- the method's

    async def __anext__(self) -> bytes:
        """Return the next message; ends when the client has."""
        while not self._is_ready():
            if self._ended:
                self._buffer.check_end()
                raise StopAsyncIteration
            await self._more()
        self._buffer.missing()
        message, compressed = self._buffer.take()
        self._flow.consume(wire.PREFIX_SIZE + len(message))
        return await unpacked(message, self._encoding, self._limit) if compressed else message

    def stop(self) -> None:
        """End the call if it waits between messages."""
        if self._waiting is not None and self._buffer.empty and not self._waiting.done():
            self._waiting.set_exception(STOPPING)

    def _is_ready(self) -> bool:
        """Return whether there is a message, or bytes that are none; else let the client send what is missing."""
        try:
            missing = self._buffer.missing()
        except ServingError:
            return True
        if missing and not (self._ended or self._buffer.empty):
            self._flow.need(missing)
        return not missing

    async def _more(self) -> None:
        streams = self._streams
        if streams is not None and self._buffer.empty and not streams.waits(self):
            raise STOPPING
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None
            if streams is not None:
                streams.goes_on(self)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class _LiveCall:
    """A call under way: runs its method in a task and sends what it makes."""

    def __init__(self, exchange: Exchange, call: wire.Call, produce: _Produce) -> None:
        self._exchange = exchange
        self._call = StreamCall(exchange, call)
        self._encoding = call.reply_encoding
        self._produce = produce
        self._loop = asyncio.get_running_loop()
        self._reply: PartedReply | None = None
        self._drained: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None]
        self._timer: asyncio.TimerHandle | None = None
        self._late = False
        self._sent = self._sent_bytes = 0
        """In this turn of the loop."""

    def start(self) -> None:
        """Begin in the next turn of the loop."""
        task = self._task = self._loop.create_task(self._run())
        task.add_done_callback(self._done)
        self._exchange.on_cancel = self._give_up
        if self._call.deadline is not None:
            self._timer = self._loop.call_later(max(0.0, self._call.deadline - self._loop.time()), self._expire)

    def _give_up(self) -> None:
        self._task.cancel()

    def _expire(self) -> None:
        self._late = True
        self._task.cancel()

    async def _run(self) -> None:
        async with aclosing(self._produce(self._call)) as messages:
            async for message in messages:
                await self._send(message)

    def _done(self, task: asyncio.Task[None]) -> None:
        """End the call as its task has ended: here, because a task that is cancelled at once never runs."""
        if self._timer is not None:
            self._timer.cancel()
        if task.cancelled():
            self._finish(PAST_DEADLINE if self._late else GIVEN_UP)
            return
        failure = task.exception()
        if failure is None or isinstance(failure, ServingError):
            self._finish(failure)
        else:
            log.error("a streaming method failed", exc_info=failure)
            self._finish(internal("the server failed; its log says why"))

    async def _send(self, message: bytes) -> None:
        reply = self._reply or self._begin()
        framed = await packed(message, self._encoding)
        self._sent += 1
        self._sent_bytes += len(framed)
        if not reply.write(framed):
            self._drained = self._loop.create_future()
            await self._drained
        elif self._sent < _TURN_MESSAGES and self._sent_bytes < _TURN_BYTES:
            return
        else:
            await asyncio.sleep(0)
        self._sent = self._sent_bytes = 0

    def _begin(self) -> PartedReply:
        exchange = self._exchange
        assert isinstance(exchange, RepliesInParts), "a client waits for the reply"
        self._reply = exchange.begin(self._head())
        self._reply.on_drained = self._on_drained
        return self._reply

    def _head(self) -> ReplyHead:
        fields = (*wire.REPLY_FIELDS, *wire.encode_metadata(self._call.initial_metadata))
        if self._encoding is not None:
            fields = (*fields, (b"grpc-encoding", self._encoding))
        return ReplyHead(wire.HTTP_STATUS, fields)

    def _on_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _finish(self, error: ServingError | None) -> None:
        try:
            trailing = wire.encode_metadata(self._call.trailing_metadata)
            head = self._head()
        except ServingError as failure:  # what the method wanted to say with its answer cannot be said
            error, trailing, head = failure, (), ReplyHead(wire.HTTP_STATUS, wire.REPLY_FIELDS)
        if error is None and not trailing:
            trailers = OK_TRAILERS
        else:
            status = (Code.OK, "") if error is None else wire.encode_error(error)
            trailers = Trailers((*wire.trailer_fields(*status), *trailing))
        if self._reply is not None:
            self._reply.finish(trailers)
        elif error is None:
            self._exchange.respond(head, b"", trailers)
        else:
            self._exchange.respond(ReplyHead(head.status, (*head.fields, *trailers.fields)))
