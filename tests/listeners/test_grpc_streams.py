"""Streaming methods behind raw frames: how messages are cut, when windows open, how calls end."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest
from tests.listeners.stream_service import StreamService
from tests.transport.http2.harness import (
    DATA,
    EH,
    ES,
    HEADERS,
    NO_ERROR,
    RST,
    WU,
    Session,
    block,
    d,
    h,
    rst,
    settings,
    wu,
)

from servable.listeners.access import WatchedRoute
from servable.observe.access_log import Access
from servable.transport.exchange import RequestHead, Route
from servable.transport.limits import KIB, MIB, Limits
from servable.wire.grpc import wrap_message

FIELDS = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))


class Client:
    """Calls of the service in one connection, and what came back."""

    def __init__(self, limits: Limits | None = None, *entries: tuple[int, int]) -> None:
        self.service = StreamService()
        self.session = Session(limits, application=self.service)
        self.session.start(*entries)
        self._next = 1

    async def call(self, method: str, *fields: tuple[bytes, bytes], flags: int = EH) -> int:
        stream = self._next
        self._next += 2
        await self.feed(h(stream, flags, block(b"/test.Streams/" + method.encode(), *FIELDS, *fields)))
        return stream

    async def feed(self, data: bytes) -> None:
        self.session.feed(data)
        await self.settle()

    async def settle(self) -> None:
        """Let the methods run as far as they can."""
        for _ in range(20):
            await asyncio.sleep(0)
            self.session.loop.turn()
        self.session.collect()

    def messages(self, stream: int) -> list[bytes]:
        data = b"".join(f.payload for f in self.session.frames if f.kind == DATA and f.stream == stream)
        found = []
        position = 0
        while position < len(data):
            start = position + 5
            position = start + int.from_bytes(data[position + 1 : start], "big")
            found.append(data[start:position])
        return found

    def status(self, stream: int) -> int | None:
        for frame in self.session.frames:
            if frame.kind == HEADERS and frame.stream == stream and frame.flags & ES:
                return int(dict(self.session.fields(frame))[b"grpc-status"])
        return None

    def blocks(self, stream: int) -> int:
        return sum(f.kind == HEADERS and f.stream == stream for f in self.session.frames)

    def opened(self, stream: int) -> int:
        """How far the server has opened the window of a stream."""
        updates = [f for f in self.session.frames if f.kind == WU and f.stream == stream]
        return sum(int.from_bytes(f.payload, "big") for f in updates)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(15):
            await main()

    asyncio.run(limited())


MESSAGES = [b"", b"x", bytes(300), b"last"]
STREAM = b"".join(map(wrap_message, MESSAGES))


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 6, 7, 11, len(STREAM) - 1, len(STREAM)])
def test_messages_are_found_wherever_the_frames_are_cut(cut: int) -> None:
    async def main() -> None:
        client = Client()
        stream = await client.call("Fail")
        for start in range(0, len(STREAM), cut):
            await client.feed(d(stream, STREAM[start : start + cut]))
        assert client.messages(stream) == MESSAGES, "each is answered before the stream has ended"
        await client.feed(d(stream, b"", ES))
        assert client.status(stream) == 0
        client.session.assert_clean()

    run(main)


@pytest.mark.parametrize("method", ["Input", "Duplex"])
def test_no_message_at_all_g030(method: str) -> None:
    async def main() -> None:
        client = Client()
        for flags in (EH | ES, EH):
            stream = await client.call(method, flags=flags)
            if flags == EH:
                await client.feed(d(stream, b"", ES))
            assert client.messages(stream) == ([b"0"] if method == "Input" else [])
            assert client.status(stream) == 0
            assert client.blocks(stream) == 2, "the head, and trailers"
        client.session.assert_clean()

    run(main)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\0\0\0", 13),
        (b"\0\0\0\0\5four", 13),
        (b"\2\0\0\0\0", 13),
        (b"\1\0\0\0\0", 13),
        (b"\0\xff\xff\xff\xff", 8),
    ],
    ids=["half a prefix", "half a message", "no flag", "compressed with nothing", "too large"],
)
def test_what_is_no_message_ends_the_call(data: bytes, status: int) -> None:
    async def main() -> None:
        client = Client()
        stream = await client.call("Fail")
        await client.feed(d(stream, wrap_message(b"good") + data, ES))
        assert client.messages(stream) == [b"good"], "what came before is answered"
        assert client.status(stream) == status
        client.session.assert_clean()

    run(main)


def test_a_message_too_large_is_refused_by_its_prefix_g012() -> None:
    async def main() -> None:
        client = Client()
        stream = await client.call("Input")
        await client.feed(d(stream, b"\0\x10\0\0\1"))
        assert client.status(stream) == 8
        assert client.opened(stream) == 0
        assert client.session.frames[-1][:3] == (RST, 0, stream)
        client.session.assert_clean()

    run(main)


@pytest.mark.parametrize(("count", "status"), [(0, 12), (1, 0), (2, 12)])
def test_server_streaming_takes_one_message_g005(count: int, status: int) -> None:
    async def main() -> None:
        client = Client()
        stream = await client.call("Output")
        await client.feed(d(stream, wrap_message(b"1,2") * count, ES))
        assert client.status(stream) == status
        assert client.messages(stream) == ([bytes(1), bytes(2)] if count == 1 else [])
        client.session.assert_clean()

    run(main)


@pytest.mark.parametrize("size", [100, 100_000], ids=["here", "in a thread"])
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"identity"])
def test_compressed_messages_of_a_stream(size: int, encoding: bytes) -> None:
    async def main() -> None:
        client = Client()
        content = bytes(range(256)) * (size // 256 + 1)
        plain = wrap_message(content)
        if encoding == b"gzip":
            data = gzip.compress(content, 0)
            packed = b"\1" + len(data).to_bytes(4, "big") + data
        else:
            packed = plain
        stream = await client.call("Input", (b"grpc-encoding", encoding))
        await client.feed(d(stream, packed) + d(stream, plain) + d(stream, packed, ES))
        while client.status(stream) is None:
            await client.settle()
            await asyncio.sleep(0.002)
        assert client.status(stream) == 0
        assert client.messages(stream) == [b"%d" % (3 * len(content))]
        client.session.assert_clean()

    run(main)


def test_a_bomb_in_a_stream_g011() -> None:
    data = gzip.compress(bytes(257 * MIB), 1)

    async def main() -> None:
        client = Client()
        stream = await client.call("Input", (b"grpc-encoding", b"gzip"))
        framed = b"\1" + wrap_message(data)[1:]
        for start in range(0, len(framed), 500_000):
            await client.feed(d(stream, framed[start : start + 500_000]))
        while client.status(stream) is None:
            await asyncio.sleep(0.002)
            await client.settle()
        assert client.status(stream) == 8
        client.session.assert_clean()

    run(main)


def test_a_method_that_waits_makes_its_client_wait_and_nobody_else_w018() -> None:
    async def main() -> None:
        client = Client()
        slow = await client.call("Slow")
        for _ in range(4):
            await client.feed(d(slow, wrap_message(bytes(256 * KIB - 5))))
        assert client.service.read == 1
        assert client.opened(slow) == 256 * KIB, "of what was read; the window was empty"
        for _ in range(10):
            other = await client.call("Input")
            await client.feed(d(other, wrap_message(bytes(MIB // 2)), ES))
            assert client.status(other) == 0
        await client.feed(d(slow, wrap_message(bytes(256 * KIB - 5))))
        assert client.opened(slow) == 256 * KIB
        client.service.gate.set()
        await client.settle()
        assert client.service.read == 5
        assert client.opened(slow) >= 4 * 256 * KIB
        await client.feed(d(slow, b"", ES))
        assert client.messages(slow) == [b"%d" % (5 * (256 * KIB - 5))]
        client.session.assert_clean()

    run(main)


def test_a_message_larger_than_the_window_is_let_in() -> None:
    async def main() -> None:
        client = Client(Limits(initial_window=100_000))
        stream = await client.call("Input")
        data = wrap_message(bytes(5_000_000))
        position, window = 0, 100_000
        while position < len(data):
            assert client.opened(stream) + window > position
            part = data[position : client.opened(stream) + window][:90_000]
            await client.feed(d(stream, part))
            position += len(part)
        await client.feed(d(stream, b"", ES))
        assert client.messages(stream) == [b"5000000"]
        client.session.assert_clean()

    run(main)


def test_a_client_that_reads_slowly_makes_the_method_wait_g027() -> None:
    async def main() -> None:
        client = Client(None, (4, 1000))
        stream = await client.call("Endless")
        await client.feed(d(stream, wrap_message(b"992,20000"), ES))
        for _ in range(10):
            await client.settle()
        assert 1000 < client.service.sent < 1100, "a MiB waits, not more"
        while client.status(stream) is None:
            await client.feed(wu(stream, 700_000) + wu(0, 700_000))
            assert client.session.connection.sender.queued < 2 * MIB
        numbers = [int.from_bytes(message[:8], "big") for message in client.messages(stream)]
        assert numbers == list(range(1, 20_001))
        assert client.service.log == ["closed"]
        client.session.assert_clean()

    run(main)


def test_an_endless_method_lets_others_have_their_turn() -> None:
    async def main() -> None:
        client = Client(None, (4, 2**31 - 1))
        await client.feed(wu(0, 2**30))
        endless = await client.call("Endless")
        client.session.feed(d(endless, wrap_message(b"10"), ES))
        for _ in range(10):
            await asyncio.sleep(0)
        assert 0 < client.service.sent < 1000
        await client.feed(rst(endless))
        assert client.service.log == ["closed"]
        client.session.assert_clean()

    run(main)


@pytest.mark.parametrize("when", ["at once", "running", "waiting for the client to read"])
def test_cancelled_g021(when: str) -> None:
    async def main() -> None:
        client = Client(None, (4, 10))
        if when == "at once":
            client.session.feed(h(1, EH, block(b"/test.Streams/Sleep", *FIELDS)) + rst(1))
        elif when == "running":
            await client.feed(rst(await client.call("Sleep")))
            assert client.service.log == ["cancelled", "closed"]
        else:
            stream = await client.call("Endless")
            await client.feed(d(stream, wrap_message(b"1000"), ES))
            await client.feed(rst(stream))
            assert client.service.log == ["closed"], "it was not waiting: its reply was"
        await client.settle()
        assert client.status(1) is None, "nobody waits for a status"
        client.session.assert_clean()

    run(main)


def test_answers_before_the_client_has_ended_g022() -> None:
    async def main() -> None:
        client = Client()
        stream = await client.call("Early")
        await client.feed(d(stream, wrap_message(b"one") + wrap_message(b"two")))
        assert client.messages(stream) == [b"one"]
        assert client.status(stream) == 0
        last = client.session.frames[-1]
        assert (last.kind, last.payload) == (RST, NO_ERROR.to_bytes(4, "big"))
        await client.feed(d(stream, wrap_message(b"three"), ES))
        client.session.assert_clean()

    run(main)


def test_a_status_before_the_first_message_is_one_block() -> None:
    async def main() -> None:
        client = Client()
        first, later, defect = [await client.call("Fail") for _ in range(3)]
        await client.feed(d(first, wrap_message(b"9 no"), ES))
        await client.feed(d(later, wrap_message(b"x") + wrap_message(b"9 no"), ES))
        await client.feed(d(defect, wrap_message(b"defect"), ES))
        assert [client.status(stream) for stream in (first, later, defect)] == [9, 9, 13]
        assert [client.blocks(stream) for stream in (first, later, defect)] == [1, 2, 1]
        client.session.assert_clean()

    run(main)


def test_calls_that_wait_between_messages_end_with_the_server() -> None:
    async def main() -> None:
        client = Client()
        idle, midway, busy, other = [await client.call(name) for name in ("Talk", "Talk", "Talk", "Duplex")]
        await client.feed(d(idle, wrap_message(b"1")))
        await client.feed(d(midway, b"\0\0"))
        client.session.feed(d(busy, wrap_message(b"2")))
        client.service.streams.close()
        await client.settle()
        assert client.messages(busy) == [bytes(2)], "what was begun is answered"
        assert [client.status(stream) for stream in (idle, midway, busy, other)] == [14, None, 14, None]
        await client.feed(d(midway, b"\0\0\1" + b"3"))
        assert client.messages(midway) == [bytes(3)]
        assert client.status(midway) == 14
        late = await client.call("Talk")
        assert client.status(late) == 14
        await client.feed(d(other, b"", ES))
        assert client.status(other) == 0
        client.session.assert_clean()

    run(main)


def test_a_stream_is_one_line_of_the_access_log() -> None:
    async def main() -> None:
        log: list[Access] = []
        client = Client()
        inner = client.service

        class Watched:
            def route(self, head: RequestHead) -> Route:
                return WatchedRoute(inner.route(head), head, log.append)

        client.session.connection.application = Watched()
        stream = await client.call("Duplex")
        await client.feed(d(stream, wrap_message(b"10") + wrap_message(b"20"), ES))
        given_up = await client.call("Sleep")
        await client.feed(rst(given_up))
        assert [(line.status, line.code, line.bytes_in, line.bytes_out) for line in log] == [
            (200, "OK", 14, 40),
            (499, "CANCELLED", 0, 10),
        ]
        client.session.assert_clean()

    run(main)


def test_windows_may_shrink_under_a_stream() -> None:
    async def main() -> None:
        client = Client()
        stream = await client.call("Duplex")
        await client.feed(d(stream, wrap_message(b"1000")))
        await client.feed(settings((4, 0)))
        await client.feed(d(stream, wrap_message(b"2000"), ES))
        assert len(client.messages(stream)) == 1
        await client.feed(settings((4, 65_535)))
        assert client.status(stream) == 0
        client.session.assert_clean()

    run(main)
