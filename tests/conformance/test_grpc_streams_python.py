"""grpcio streams to and from our server: the cases that gRPC's implementations try on each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import grpc
import pytest
import uvloop
from tests.e2e.server_process import wait_until
from tests.listeners.stream_service import StreamService

from servable.transport.listen import Address, Listener

pytestmark = pytest.mark.conformance

REQUEST_SIZES, REPLY_SIZES = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)


class Served:
    """A server of the test service, on a loop in a thread of its own."""

    def __init__(self, compression: bytes | None = None) -> None:
        self.service: StreamService
        self.loop: asyncio.AbstractEventLoop
        self.listener: Listener
        self._compression = compression
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self.service = StreamService(self._compression)
        self.listener = Listener(Address.parse("127.0.0.1:0"), self.service)
        await self.listener.start()
        self._started.set()
        await self._ended.wait()
        await self.listener.drain(1.0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.address.port}"

    def do(self, action: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(action)


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture
def served(shared: Served) -> Served:
    """The server of this module, its log empty."""
    shared.service.log.clear()
    shared.service.sent = 0
    return shared


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address) as opened:
        yield opened


def duplex(channel: grpc.Channel, name: str) -> Any:
    return channel.stream_stream(f"/test.Streams/{name}")


def turns(sizes: tuple[int, ...], answers: list[bytes], asked: tuple[int, ...]) -> Iterator[bytes]:
    """Requests that ask for one reply each, and wait for it before the next."""
    for number, (size, wanted) in enumerate(zip(asked, sizes, strict=True)):
        head = b"%d:" % wanted
        yield head + bytes(size - len(head))
        wait_until(partial(has_more_than, answers, number), "the answer came")


def has_more_than(answers: list[bytes], count: int) -> bool:
    return len(answers) > count


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_ping_pong_g028(channel: grpc.Channel, compression: grpc.Compression | None) -> None:
    answers: list[bytes] = []
    call = duplex(channel, "Duplex")(turns(REPLY_SIZES, answers, REQUEST_SIZES), timeout=15, compression=compression)
    for message in call:
        answers.append(message)  # noqa: PERF402  # one by one: ``turns`` looks
    assert [len(message) for message in answers] == list(REPLY_SIZES)
    assert call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_client_streaming_g029(channel: grpc.Channel, compression: grpc.Compression | None) -> None:
    method = channel.stream_unary("/test.Streams/Input")
    assert method(map(bytes, REQUEST_SIZES), timeout=10, compression=compression) == b"74922"


def test_server_streaming(channel: grpc.Channel) -> None:
    asked = ",".join(map(str, REPLY_SIZES)).encode()
    answers = list(channel.unary_stream("/test.Streams/Output")(asked, timeout=10))
    assert [len(message) for message in answers] == list(REPLY_SIZES)


def test_empty_stream_g030(channel: grpc.Channel) -> None:
    call = duplex(channel, "Duplex")(iter(()), timeout=10)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_large_messages_both_ways_g031(channel: grpc.Channel) -> None:
    head = b"314159:"
    (answer,) = duplex(channel, "Duplex")(iter([head + bytes(271_828)]), timeout=10)
    assert len(answer) == 314_159
    assert channel.stream_unary("/test.Streams/Input")(map(bytes, [2_000_000] * 20), timeout=15) == b"40000000"


def test_cancel_after_begin_g032(channel: grpc.Channel) -> None:
    call = channel.stream_unary("/test.Streams/Input").future(never(), timeout=10)
    call.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        call.result(10)


def never() -> Iterator[bytes]:
    """No message, and no end either."""
    threading.Event().wait(1)
    yield from ()


def test_cancel_after_first_response_g032(served: Served, channel: grpc.Channel) -> None:
    call = duplex(channel, "Sleep")(iter([b"x"]), timeout=10)
    assert next(call) == b"begun"
    call.cancel()
    with pytest.raises(grpc.RpcError):
        next(call)
    assert call.code() is grpc.StatusCode.CANCELLED
    wait_until(lambda: served.service.log == ["cancelled", "closed"], "the method ended")


def test_timeout_on_sleeping_server_g032(served: Served, channel: grpc.Channel) -> None:
    call = duplex(channel, "Sleep")(iter([b"x"]), timeout=0.3)
    with pytest.raises(grpc.RpcError) as failure:
        list(call)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: served.service.log == ["cancelled", "closed"], "the method ended")


def test_the_server_keeps_the_deadline_too(served: Served) -> None:
    """The client's own deadline is far: the one in the metadata is what the server sees."""
    with grpc.insecure_channel(served.address) as channel:
        call = duplex(channel, "Sleep")(iter([b"x"]), metadata=[("grpc-timeout", "200m")])
        with pytest.raises(grpc.RpcError) as failure:
            list(call)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert failure.value.details() == "Deadline exceeded"


def test_custom_metadata_g032(channel: grpc.Channel) -> None:
    sent = [("x-initial", "test_initial"), ("x-trailing-bin", b"\xab\xab\xab"), ("x-other", "dropped")]
    call = duplex(channel, "Metadata")(iter([b"m"]), timeout=10, metadata=sent)
    assert list(call) == [b"m"]
    assert ("x-initial", "test_initial") in call.initial_metadata()
    assert ("x-trailing-bin", b"\xab\xab\xab") in call.trailing_metadata()


def test_metadata_that_cannot_be_sent_is_an_error(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        list(duplex(channel, "Metadata")(iter([b"bad"]), timeout=10))
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert "not a key" in failure.value.details()


def test_status_code_and_message_g032(channel: grpc.Channel) -> None:
    text = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
    for before in ([], [b"first"]):
        call = duplex(channel, "Fail")(iter([*before, f"2 {text}".encode()]), timeout=10)
        with pytest.raises(grpc.RpcError) as failure:
            list(call)
        assert failure.value.code() is grpc.StatusCode.UNKNOWN
        assert failure.value.details() == text


def test_an_answer_before_the_client_has_ended_keeps_its_status_g022(channel: grpc.Channel) -> None:
    endless = (b"%d" % number for number in iter(int, 1))
    call = duplex(channel, "Early")(endless, timeout=10)
    assert list(call) == [b"0"]
    assert call.code() is grpc.StatusCode.OK


def test_fifty_thousand_messages_for_a_slow_client_g027(served: Served) -> None:
    # Without it the client's window grows to what a loaded machine lets it measure, and takes all of them.
    with grpc.insecure_channel(served.address, [("grpc.http2.bdp_probe", 0)]) as channel:
        _read_slowly(served, channel)


def _read_slowly(served: Served, channel: grpc.Channel) -> None:
    messages = channel.unary_stream("/test.Streams/Endless")(b"100,50000", timeout=60)
    numbers = [int.from_bytes(next(messages)[:8], "big") for _ in range(10)]
    wait_until(lambda: served.service.sent > 1000, "messages were sent")
    before = served.service.sent
    assert before < 50_000, "the client has read ten: what it has not asked for is not made"
    numbers += [int.from_bytes(message[:8], "big") for message in messages]
    assert numbers == list(range(1, 50_001))


def test_many_conversations_on_one_connection(channel: grpc.Channel) -> None:
    method = duplex(channel, "Duplex")
    calls = [method(iter([b"%d" % number] * 20), timeout=15) for number in range(50)]
    for number, call in enumerate(calls):
        assert [len(message) for message in call] == [number] * 20


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_compressed_replies_are_read(encoding: bytes) -> None:
    with Served(encoding) as served, grpc.insecure_channel(served.address) as channel:
        assert list(channel.unary_stream("/test.Streams/Output")(b"10,5000,300000", timeout=10)) == [
            bytes(10),
            bytes(5000),
            bytes(300_000),
        ]
        message = b"again and again " * 20_000
        assert channel.unary_unary("/test.Streams/Echo")(message, timeout=10) == message
        assert channel.unary_unary("/test.Streams/Echo")(b"", timeout=10) == b""


def test_a_conversation_goes_on_while_the_server_drains(served: Served) -> None:
    with Served() as ending, grpc.insecure_channel(ending.address) as channel:
        going_on, idle = threading.Event(), threading.Event()

        def requests(hold: threading.Event) -> Iterator[bytes]:
            yield b"1"
            hold.wait(10)
            yield b"2"

        talk, upload = duplex(channel, "Talk")(requests(idle)), duplex(channel, "Duplex")(requests(going_on))
        assert next(talk) == bytes(1)
        assert next(upload) == bytes(1)
        ending.do(ending.service.streams.close)
        ending.do(ending.listener.stop_accepting)
        done = asyncio.run_coroutine_threadsafe(ending.listener.drain(10), ending.loop)
        with pytest.raises(grpc.RpcError) as failure:
            next(talk)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        idle.set()
        going_on.set()
        assert list(upload) == [bytes(2)]
        done.result(10)
