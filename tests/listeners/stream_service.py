"""A service with every kind of streaming, after the test service that gRPC's implementations try on each other.

Messages are plain bytes. A request says how long each reply is to be: numbers in text, separated by commas.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from servable.core.errors import Code, ServingError
from servable.listeners.grpc import UnaryRoute
from servable.listeners.grpc_streams import StreamCall, Streams
from servable.transport.exchange import RequestHead, Route
from servable.wire import grpc as wire


class StreamService:
    """Methods by name under ``/test.Streams/``. ``log`` tells what methods saw of their end."""

    def __init__(self, compression: bytes | None = None) -> None:
        self.streams = Streams()
        self.compression = compression
        self.log: list[str] = []
        self.read = 0
        self.sent = 0
        self.gate = asyncio.Event()
        make: dict[str, Callable[[wire.Call], Route]] = {
            "Echo": lambda call: UnaryRoute(call, self.echo),
            "Output": self.streams.server_streaming(self.output),
            "Endless": self.streams.server_streaming(self.endless),
            "Input": self.streams.client_streaming(self.input),
            "Slow": self.streams.client_streaming(self.slow),
            "Duplex": self.streams.bidirectional(self.duplex),
            "Talk": self.streams.bidirectional(self.duplex, ends_idle=True),
            "Early": self.streams.bidirectional(self.early),
            "Fail": self.streams.bidirectional(self.fail),
            "Sleep": self.streams.bidirectional(self.sleep),
            "Metadata": self.streams.bidirectional(self.metadata),
        }
        self.methods = {f"/test.Streams/{name}".encode(): made for name, made in make.items()}

    def route(self, head: RequestHead) -> Route:
        return self.methods[head.target](wire.parse_call(head.fields, self.compression))

    def echo(self, body: bytes, start: int) -> bytes:
        self.log.append("echo")
        return body[start:]

    async def output(self, message: bytes, call: StreamCall) -> AsyncGenerator[bytes, None]:
        for size in message.split(b","):
            if size:
                yield bytes(int(size))

    async def endless(self, message: bytes, call: StreamCall) -> AsyncGenerator[bytes, None]:
        """Send numbered messages of the asked size for ever, or as many as asked."""
        size, _, count = message.partition(b",")
        try:
            while self.sent < int(count or 10**9):
                self.sent += 1
                yield self.sent.to_bytes(8, "big") + bytes(int(size))
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("closed")

    async def input(self, messages: AsyncIterator[bytes], call: StreamCall) -> bytes:
        return b"%d" % sum([len(message) async for message in messages])

    async def slow(self, messages: AsyncIterator[bytes], call: StreamCall) -> bytes:
        """Read a message, wait for the gate, read the others."""
        total = 0
        async for message in messages:
            total += len(message)
            self.read += 1
            await self.gate.wait()
        return b"%d" % total

    async def duplex(self, messages: AsyncIterator[bytes], call: StreamCall) -> AsyncGenerator[bytes, None]:
        async for message in messages:
            for size in message.partition(b":")[0].split(b","):
                yield bytes(int(size))

    async def early(self, messages: AsyncIterator[bytes], call: StreamCall) -> AsyncGenerator[bytes, None]:
        async for message in messages:
            yield message
            return

    async def fail(self, messages: AsyncIterator[bytes], call: StreamCall) -> AsyncGenerator[bytes, None]:
        """Echo; fail with the code and text of a message ``code text``, or by a defect."""
        async for message in messages:
            if message == b"defect":
                raise RuntimeError("a defect")
            code, _, text = message.partition(b" ")
            if text:
                raise ServingError(Code(int(code)), text.decode())
            yield message

    async def sleep(self, messages: AsyncIterator[bytes], call: StreamCall) -> AsyncGenerator[bytes, None]:
        try:
            yield b"begun"
            await self.gate.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("closed")

    async def metadata(self, messages: AsyncIterator[bytes], call: StreamCall) -> AsyncGenerator[bytes, None]:
        """Say what came, in the metadata of the answer."""
        call.initial_metadata = tuple((k, v) for k, v in call.metadata if k == "x-initial")
        call.trailing_metadata = tuple((k, v) for k, v in call.metadata if k in ("x-trailing-bin", "x-\N{SNOWMAN}"))
        async for message in messages:
            if message == b"bad":
                call.trailing_metadata = (("not a key", "x"),)
            yield message
