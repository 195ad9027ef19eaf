"""An application with a route for every behaviour that a connection must cope with."""

from __future__ import annotations

from typing import NamedTuple

from servable.transport.exchange import (
    Exchange,
    PartedBody,
    PartedReply,
    RepliesInParts,
    ReplyHead,
    RequestHead,
    Route,
    TakesInParts,
    Trailers,
)

EMPTY_MESSAGE = bytes(5)
GRPC = ReplyHead(200, ((b"content-type", b"application/grpc"),))
OK = Trailers(((b"grpc-status", b"0"),))
TEXT = ReplyHead(200, ((b"content-type", b"text/plain"), (b"connection", b"close")))
UNIMPLEMENTED = ReplyHead(200, ((b"content-type", b"application/grpc"), (b"grpc-status", b"12")))


class Call(NamedTuple):
    exchange: Exchange
    body: bytes


class FakeApplication:
    """Routes by path. Everything that was handled is in ``calls``; ``/hold`` waits for the test to answer."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.held: list[Exchange] = []
        self.cancelled: list[Exchange] = []
        self.routed = 0

    def route(self, head: RequestHead) -> Route:
        self.routed += 1
        name, _, argument = head.target.lstrip(b"/").partition(b"/")
        made = ROUTES.get(name)
        if name == b"unroutable":
            raise RuntimeError("no route today")
        return made(self, argument) if made else Unary(self, argument)


class Unary(Route):
    """Answers an empty message."""

    def __init__(self, application: FakeApplication, argument: bytes) -> None:
        self.application = application
        self.argument = argument

    def handle(self, exchange: Exchange, body: bytes) -> None:
        self.application.calls.append(Call(exchange, body))
        self.answer(exchange, body)

    def answer(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(GRPC, EMPTY_MESSAGE, OK)


class Echo(Unary):
    def answer(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(GRPC, body, OK)


class Plain(Unary):
    def answer(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(TEXT, memoryview(body or b"hello"))


class Status(Unary):
    def answer(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(ReplyHead(int(self.argument), ((b"x-a", b"b"),)), b"ignored")


class Empty(Unary):
    def answer(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(GRPC, b"", OK)


class Big(Unary):
    """Replies with as many bytes as the path says."""

    def answer(self, exchange: Exchange, body: bytes) -> None:
        size = int(self.argument)
        exchange.respond(GRPC, pattern(size), OK)


class PlainBig(Unary):
    def answer(self, exchange: Exchange, body: bytes) -> None:
        exchange.respond(TEXT, pattern(int(self.argument)))


class Hold(Unary):
    def answer(self, exchange: Exchange, body: bytes) -> None:
        exchange.on_cancel = lambda: self.application.cancelled.append(exchange)
        self.application.held.append(exchange)


class Early(Unary):
    wants_body = False

    def answer(self, exchange: Exchange, body: bytes) -> None:
        assert not body
        exchange.respond(UNIMPLEMENTED)


class EarlyHold(Hold):
    wants_body = False


class Small(Echo):
    max_body = 100


class Measured(Echo):
    """A gRPC-like prefix tells the size; 0xffffffff is refused in the application's own words."""

    prefix_size = 5
    max_body = 4 * 1024 * 1024

    def body_size(self, exchange: Exchange, prefix: bytes) -> int:
        size = int.from_bytes(prefix[1:5], "big")
        if size == 0xFFFFFFFF:
            exchange.respond(UNIMPLEMENTED)
            return -1
        return 5 + size


class Raises(Unary):
    def answer(self, exchange: Exchange, body: bytes) -> None:
        if self.argument == b"late":
            exchange.respond(GRPC, EMPTY_MESSAGE, OK)
        raise RuntimeError("a defect")


class Stream(Unary):
    """Sends every piece of the body back as it comes."""

    in_parts = True

    def answer(self, exchange: Exchange, body: bytes) -> None:
        assert isinstance(exchange, TakesInParts)
        assert isinstance(exchange, RepliesInParts)
        exchange.receive().start(StreamEcho(exchange, exchange.receive(), exchange.begin(GRPC)))


class StreamEcho:
    def __init__(self, exchange: Exchange, body: PartedBody, reply: PartedReply) -> None:
        self.body = body
        self.reply = reply
        exchange.on_cancel = self.end

    def data(self, part: bytes) -> None:
        self.reply.write(part)
        self.body.consume(len(part))

    def end(self) -> None:
        self.reply.finish(OK)


ROUTES: dict[bytes, type[Unary]] = {
    b"echo": Echo,
    b"plain": Plain,
    b"status": Status,
    b"empty": Empty,
    b"big": Big,
    b"plainbig": PlainBig,
    b"hold": Hold,
    b"early": Early,
    b"earlyhold": EarlyHold,
    b"small": Small,
    b"measured": Measured,
    b"raises": Raises,
    b"stream": Stream,
}


def pattern(size: int) -> bytes:
    """Bytes that show when they are out of order."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]
