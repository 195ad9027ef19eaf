"""Compressed messages, both ways: when it pays, in whose thread, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from collections.abc import Awaitable, Callable

import pytest
from tests.listeners.stream_service import StreamService
from tests.transport.http2.harness import DATA, EH, ES, HEADERS, Session, block, d, h, rst, wu

from servable.transport.limits import MIB
from servable.wire.grpc import wrap_message

FIELDS = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
ACCEPT = (b"grpc-accept-encoding", b"identity, deflate,gzip")
WORDS = b"the same words again and again " * 400
NOISE = random.Random(1).randbytes(200_000)
DECOMPRESS: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.decompress, b"deflate": zlib.decompress}


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(15):
            await main()

    asyncio.run(limited())


class Call:
    """One call, and its reply."""

    def __init__(self, service: StreamService, method: str, *fields: tuple[bytes, bytes]) -> None:
        self.session = Session(application=service)
        self.session.start((4, 2**31 - 1))
        self.session.feed(wu(0, 2**30) + h(1, EH, block(b"/test.Streams/" + method.encode(), *FIELDS, *fields)))

    async def ask(self, body: bytes) -> None:
        for start in range(0, len(body), MIB):
            self.session.feed(d(1, body[start : start + MIB], ES if start + MIB >= len(body) else 0))
        while not any(f.kind == HEADERS and f.flags & ES for f in self.session.frames):
            await asyncio.sleep(0.001)
            self.session.loop.turn()
            self.session.collect()

    def head(self) -> dict[bytes, bytes]:
        return dict(self.session.fields(next(f for f in self.session.frames if f.kind == HEADERS)))

    def flags_and_messages(self, encoding: bytes = b"gzip") -> list[tuple[int, bytes]]:
        data = b"".join(f.payload for f in self.session.frames if f.kind == DATA)
        found = []
        while data:
            end = 5 + int.from_bytes(data[1:5], "big")
            found.append((data[0], DECOMPRESS[encoding](data[5:end]) if data[0] else data[5:end]))
            data = data[end:]
        return found


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
@pytest.mark.parametrize("message", [WORDS, WORDS * 40], ids=["here", "in a thread"])
def test_replies_that_become_smaller_are_compressed(encoding: bytes, message: bytes) -> None:
    async def main() -> None:
        call = Call(StreamService(encoding), "Echo", ACCEPT)
        await call.ask(wrap_message(message))
        assert call.head()[b"grpc-encoding"] == encoding
        assert call.flags_and_messages(encoding) == [(1, message)]
        assert sum(len(f.payload) for f in call.session.frames) < len(message) / 10
        call.session.assert_clean()

    run(main)


@pytest.mark.parametrize(
    ("compression", "accept", "message"),
    [
        (None, ACCEPT, WORDS),
        (b"gzip", (b"grpc-accept-encoding", b"identity,deflate"), WORDS),
        (b"gzip", (b"x-a", b"b"), WORDS),
        (b"gzip", ACCEPT, WORDS[:1023]),
    ],
    ids=["off", "not accepted", "nothing accepted", "small"],
)
def test_replies_that_are_not_compressed(
    compression: bytes | None, accept: tuple[bytes, bytes], message: bytes
) -> None:
    async def main() -> None:
        call = Call(StreamService(compression), "Echo", accept)
        await call.ask(wrap_message(message))
        assert b"grpc-encoding" not in call.head()
        assert call.flags_and_messages() == [(0, message)]

    run(main)


@pytest.mark.parametrize("message", [NOISE[:20_000], NOISE], ids=["here", "by its first bytes"])
def test_what_does_not_become_smaller_is_sent_as_it_is(message: bytes) -> None:
    async def main() -> None:
        call = Call(StreamService(b"gzip"), "Echo", ACCEPT)
        await call.ask(wrap_message(message))
        assert call.flags_and_messages() == [(0, message)]

    run(main)


def test_each_message_of_a_stream_is_compressed_if_it_pays() -> None:
    async def main() -> None:
        call = Call(StreamService(b"gzip"), "Output", ACCEPT)
        await call.ask(wrap_message(b"10,5000,20,200000"))
        assert call.head()[b"grpc-encoding"] == b"gzip"
        assert call.flags_and_messages() == [
            (0, bytes(10)),
            (1, bytes(5000)),
            (0, bytes(20)),
            (1, bytes(200_000)),
        ]
        call.session.assert_clean()

    run(main)


def compressed(content: bytes) -> bytes:
    data = gzip.compress(content, 1)
    return b"\1" + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (compressed(NOISE), 0),
        (compressed(NOISE)[:-9] + b"x" * 9, 13),
        (compressed(bytes(257 * MIB)), 8),
    ],
    ids=["good", "damaged", "bomb"],
)
def test_large_compressed_requests_g011(body: bytes, status: int) -> None:
    async def main() -> None:
        call = Call(StreamService(), "Echo", (b"grpc-encoding", b"gzip"))
        await call.ask(body)
        if status:
            assert call.head()[b"grpc-status"] == b"%d" % status
        else:
            assert call.flags_and_messages() == [(0, NOISE)]
        call.session.assert_clean()

    run(main)


def test_given_up_while_its_message_is_decompressed() -> None:
    async def main() -> None:
        service = StreamService()
        call = Call(service, "Echo", (b"grpc-encoding", b"gzip"))
        call.session.feed(d(1, compressed(NOISE), ES) + rst(1))
        while call.session.connection.active:
            await asyncio.sleep(0.001)
        assert service.log == [], "nobody works for a client that has gone"
        call.session.assert_clean()

    run(main)
