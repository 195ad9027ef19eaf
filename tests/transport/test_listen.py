"""Listeners on real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from tests.transport.fakes import OK, FakeApplication, statuses, undated

from servable.core.errors import Code, ServingError
from servable.transport.errors import TransportError
from servable.transport.exchange import RequestHead
from servable.transport.http1 import Http1ClientConnection
from servable.transport.limits import Limits
from servable.transport.listen import Address, Listener, ListenOptions
from servable.transport.sniff import PREFACE, Opening, recognize
from servable.transport.sockets import bind

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(15):
                await main()

        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(limited())

    return runner


@contextlib.asynccontextmanager
async def listening(
    address: str = "0",
    limits: Limits | None = None,
    protocols: frozenset[str] = frozenset({"h1", "h2"}),
    options: ListenOptions | None = None,
) -> AsyncIterator[tuple[Listener, FakeApplication]]:
    application = FakeApplication()
    listener = Listener(Address.parse(address), application, limits, protocols, options)
    await listener.start()
    try:
        yield listener, application
    finally:
        await listener.drain(0)


async def dial(listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = listener.address
    if address.path is not None:
        dialed = socket.socket(socket.AF_UNIX)
        dialed.setblocking(False)
        await asyncio.get_running_loop().sock_connect(dialed, address.kernel_path)
        return await asyncio.open_unix_connection(sock=dialed)
    return await asyncio.open_connection(address.host, address.port)


async def talk(listener: Listener, *pieces: bytes) -> bytes:
    """Send pieces, each in a packet of its own, end the stream, and return all that comes back."""
    reader, writer = await dial(listener)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def reached(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


# --- which protocol


@pytest.mark.parametrize(
    ("first", "opening"),
    [
        (b"P", Opening.UNDECIDED),
        (b"PRI * HTTP/2.0\r\n\r\n", Opening.UNDECIDED),
        (PREFACE[:-1], Opening.UNDECIDED),
        (PREFACE, Opening.H2),
        (PREFACE + SETTINGS, Opening.H2),
        (PREFACE[:20] + b"X", Opening.H1),
        (b"PO", Opening.H1),
        (b"PRO", Opening.H1),
        (b"PRI /", Opening.H1),
        (b"\x16\x03\x01", Opening.TLS),
        (b"\0", Opening.H1),
    ],
)
def test_the_first_bytes_decide(first: bytes, opening: Opening) -> None:
    assert recognize(first) is opening


@pytest.mark.parametrize("step", [1, 2, 1000])
def test_http_1_in_pieces(run: Run, step: int) -> None:
    async def main() -> None:
        async with listening() as (listener, application):
            for method in (b"POST", b"PUT", b"PATCH", b"PROPFIND"):
                request = method + b" /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                answer = await talk(listener, *(request[i : i + step] for i in range(0, len(request), step)))
                assert answer.endswith(method + b" /echo 3abc")
            assert len(application.handled) == 4

    run(main)


@pytest.mark.parametrize("step", [1, 1000])
def test_http_2_in_pieces(run: Run, step: int) -> None:
    async def main() -> None:
        async with listening() as (listener, _):
            hello = PREFACE + SETTINGS
            answer = await talk(listener, *(hello[i : i + step] for i in range(0, len(hello), step)))
            assert answer[3] == 4, "a SETTINGS frame comes first"
            assert SETTINGS[:4] + b"\x01" in answer, "ours are acknowledged"

    run(main)


def test_a_broken_preface_and_a_tls_handshake_end_in_a_close(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, _):
            assert statuses(await talk(listener, PREFACE[:20] + b"X" + PREFACE[21:])) == [505]
            assert await talk(listener, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03") == b""
            assert await talk(listener, b"PRI") == b""
            assert await talk(listener) == b""
            assert listener.connections == 0

    run(main)


@pytest.mark.parametrize("first", [b"", b"P", b"PRI * HTTP/2.0\r\n\r\n"])
def test_the_undecided_are_closed_without_a_word(run: Run, first: bytes) -> None:
    async def main() -> None:
        async with listening(limits=Limits(preface_timeout_s=0.05)) as (listener, _):
            reader, writer = await dial(listener)
            writer.write(first)
            assert await reader.read() == b""
            writer.close()
            await reached(lambda: listener.connections == 0)

    run(main)


@pytest.mark.parametrize(
    ("protocols", "request_bytes", "text"),
    [
        ({"h1"}, PREFACE + SETTINGS, b"this port speaks HTTP/1.1; HTTP/2 and gRPC have another port\n"),
        ({"h2"}, GET, b"this port speaks gRPC over HTTP/2; HTTP/1.1 has another port\n"),
    ],
)
def test_a_protocol_of_another_port_is_refused(
    run: Run, protocols: set[str], request_bytes: bytes, text: bytes
) -> None:
    async def main() -> None:
        async with listening(protocols=frozenset(protocols)) as (listener, application):
            answer = await talk(listener, request_bytes)
            assert statuses(answer) == [400]
            assert answer.endswith(text)
            assert application.handled == []

    run(main)


def test_protocols_must_be_known() -> None:
    with pytest.raises(ValueError, match="h3"):
        Listener(Address(), FakeApplication(), protocols=frozenset({"h3"}))


# --- addresses and sockets


def test_port_0_becomes_a_real_port_and_ipv6_works(run: Run) -> None:
    async def main() -> None:
        async with listening("[::1]:0") as (listener, application):
            assert listener.address.port > 0
            assert statuses(await talk(listener, GET)) == [200]
            assert application.heads[0].authority == b"a"

    run(main)


@pytest.mark.parametrize("host", ["[::]", "*", "0.0.0.0", "localhost"])
def test_wildcards_and_names_take_ipv4(run: Run, host: str) -> None:
    async def main() -> None:
        async with listening(f"{host}:0") as (listener, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.address.port)
            writer.write(GET)
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            writer.close()

    run(main)


def test_accepted_sockets_have_their_options(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, _):
            _, writer = await dial(listener)
            await reached(lambda: listener.connections == 1)
            (sniffer,) = listener._connections
            accepted: socket.socket = sniffer.transport.get_extra_info("socket")  # type: ignore[attr-defined]
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            writer.close()

    run(main)


def test_an_address_in_use_is_named(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, _):
            with pytest.raises(ServingError, match=f"127.0.0.1:{listener.address.port}: the address is already in use"):
                await Listener(listener.address, FakeApplication()).start()
            assert statuses(await talk(listener, GET)) == [200]

    run(main)


@pytest.mark.parametrize(
    ("address", "code", "text"),
    [
        (Address("no-such-host.invalid", 0), Code.INVALID_ARGUMENT, "the host is unknown"),
        (Address("192.0.2.1", 0), Code.FAILED_PRECONDITION, "does not have that address"),
        (Address("", 0, "/no/such/dir/s.sock"), Code.FAILED_PRECONDITION, "No such file"),
    ],
)
def test_an_address_that_cannot_be_bound_is_explained(run: Run, address: Address, code: Code, text: str) -> None:
    async def main() -> None:
        with pytest.raises(ServingError, match=text) as caught:
            await Listener(address, FakeApplication()).start()
        assert caught.value.code is code
        assert str(address) in caught.value.message

    run(main)


def test_an_address_of_a_name_that_this_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: places)
    (bound,) = bind(Address("some.name", 0))
    with bound:
        assert bound.getsockname()[0] == "127.0.0.1"


def test_several_processes_may_share_a_port(run: Run) -> None:
    async def main() -> None:
        shared = ListenOptions(reuse_port=True)
        async with (
            listening(options=shared) as (first, _),
            listening(str(first.address), options=shared) as (second, _),
        ):
            assert first.address == second.address

    run(main)


def test_a_unix_socket(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"

    async def main() -> None:
        async with listening(f"unix:{path}") as (listener, application):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert statuses(await talk(listener, GET)) == [200]
            assert (await talk(listener, PREFACE + SETTINGS))[3] == 4
            reader, writer = await dial(listener)
            writer.write(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reached(lambda: bool(application.waiting))
            assert application.waiting[0].peer.local
            assert application.waiting[0].peer.address == f"unix:{path}"
            application.waiting[0].respond(OK)
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            writer.close()
        assert not path.exists()

    run(main)


def test_a_socket_file_is_taken_over_only_from_the_dead(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    ordinary = tmp_path / "file"
    ordinary.write_text("precious")

    async def main() -> None:
        async with listening(f"unix:{path}") as (listener, _):
            with pytest.raises(ServingError, match="already in use"):
                await Listener(listener.address, FakeApplication()).start()
            assert statuses(await talk(listener, GET)) == [200]
            path.unlink()
            async with listening(f"unix:{path}") as (successor, _):
                await listener.drain(0)
                assert statuses(await talk(successor, GET)) == [200]
        with pytest.raises(ServingError, match="exists and is no socket"):
            await Listener(Address.parse(f"unix:{ordinary}"), FakeApplication()).start()
        assert ordinary.read_text() == "precious"

    run(main)


def test_an_abstract_socket(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(f"unix:@{tmp_path.name}-servable") as (listener, _):
            assert statuses(await talk(listener, GET)) == [200]

    run(main)


def test_connections_above_the_limit_are_closed(run: Run) -> None:
    async def main() -> None:
        async with listening(options=ListenOptions(max_connections=2)) as (listener, _):
            kept = [await dial(listener) for _ in range(2)]
            await reached(lambda: listener.connections == 2)
            with contextlib.suppress(OSError):
                assert await talk(listener, GET) == b""
            assert listener.refused == 1
            for reader, writer in kept:
                writer.write(GET)
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
                writer.close()
            await reached(lambda: listener.connections == 0)
            assert statuses(await talk(listener, GET)) == [200]

    run(main)


# --- the end


def test_draining_answers_what_is_in_flight_and_closes_what_is_idle(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, application):
            silent = await dial(listener)
            idle = await dial(listener)
            idle[1].write(GET)
            assert await idle[0].readuntil(b"GET /echo 0")
            busy = await dial(listener)
            busy[1].write(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
            await reached(lambda: bool(application.waiting))
            assert (listener.connections, listener.active) == (3, 1)
            draining = asyncio.ensure_future(listener.drain(10))
            assert await silent[0].read() == b""
            assert await idle[0].read() == b""
            assert not draining.done()
            with pytest.raises(OSError) as refused:  # noqa: PT011  # the number is the point
                await dial(listener)
            assert refused.value.errno == errno.ECONNREFUSED
            application.waiting[0].respond(OK, b"slow")
            answer = await busy[0].read()
            assert b"connection: close" in answer
            assert answer.endswith(b"slow")
            assert await draining == 0
            assert listener.connections == 0
            for _, writer in (silent, idle, busy):
                writer.close()

    run(main)


def test_draining_cuts_what_takes_too_long(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, application):
            reader, writer = await dial(listener)
            writer.write(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
            await reached(lambda: bool(application.waiting))
            assert await listener.drain(0.01) == 1
            assert application.waiting[0].cancelled
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()

    run(main)


def test_a_listener_starts_once(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, _):
            with pytest.raises(ServingError, match="started before"):
                await listener.start()

    run(main)


# --- clients on real sockets


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_our_client_on_a_real_socket(run: Run, tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        head = RequestHead(b"POST", b"/echo", authority=b"a", version=b"1.1")
        async with listening("0" if kind == "tcp" else f"unix:{tmp_path}/s.sock") as (listener, application):
            client = await Http1ClientConnection.connect(listener.address)
            for size in (0, 3, 5_000_000):
                body = bytes(size)
                reply = await client.fetch(head, body, timeout_s=10)
                assert reply.status == 200
                assert application.handled[-1][2] == body
            big = await client.fetch(RequestHead(b"GET", b"/big", authority=b"a"), timeout_s=10)
            assert big.body == b"x" * 1_000_000
            client.close()
        with pytest.raises(TransportError, match="cannot connect to") as caught:
            await Http1ClientConnection.connect(listener.address)
        assert caught.value.retry_safe

    run(main)


def test_giving_up_reaches_the_application(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, application):
            slow = RequestHead(b"GET", b"/later", authority=b"a")
            client = await Http1ClientConnection.connect(listener.address)
            with pytest.raises(TransportError, match="no reply in time"):
                await client.fetch(slow, timeout_s=0.2)
            await reached(lambda: application.waiting[0].cancelled)
            other = await Http1ClientConnection.connect(listener.address)
            waiting = asyncio.ensure_future(other.fetch(slow))
            await reached(lambda: len(application.waiting) == 2)
            waiting.cancel()
            await reached(lambda: application.waiting[1].cancelled)

    run(main)


def test_a_refused_upload_can_be_read(run: Run) -> None:
    """P008: a client in the middle of 100 MiB gets the 413, not a reset."""

    async def main() -> None:
        async with listening(limits=Limits(max_body=1_000_000)) as (listener, application):
            reader, writer = await dial(listener)
            writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n")

            async def upload() -> None:
                with contextlib.suppress(ConnectionError):
                    for _ in range(100):
                        writer.write(bytes(1_048_576))
                        await writer.drain()

            uploading = asyncio.ensure_future(upload())
            answer = await reader.readuntil(b"bytes\n")
            assert statuses(answer) == [413]
            uploading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await uploading
            writer.transport.abort()
            assert application.handled == []

    run(main)


def test_large_bodies_both_ways(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, application):
            body = bytes(range(256)) * 40_000
            request = b"POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
                b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:7_000_000], body[7_000_000:])
            )
            reader, writer = await dial(listener)
            writer.write(request + b"0\r\n\r\n")
            await reached(lambda: bool(application.waiting))
            assert application.handled[0][2] == body
            application.waiting[0].respond(OK, memoryview(body))
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(body)) == body
            writer.close()

    run(main)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-d", "abc"], "POST /echo 3abc 200 1.1"),
        (["--http2", "-d", "abc"], "POST /echo 3abc 200 1.1"),
        (["--http2-prior-knowledge", "-d", "abc"], "POST /echo 3abc 200 2"),
        (["--http1.0", "-d", "abc"], "POST /echo 3abc 200 1.1"),
        (["-H", "Expect: 100-continue", "--expect100-timeout", "20", "-d", "abc"], "POST /echo 3abc 200 1.1"),
        (["-H", "Transfer-Encoding: chunked", "-d", "abc"], "POST /echo 3abc 200 1.1"),
        (["-I"], " 200 1.1"),
        (["-X", "OPTIONS", "--request-target", "*"], "nothing here 404 1.1"),
    ],
)
def test_curl(run: Run, arguments: list[str], expected: str) -> None:
    async def main() -> None:
        async with listening() as (listener, _):
            output = [] if "-I" not in arguments else ["-o", "/dev/null"]
            url = f"http://{listener.address}/echo"
            process = await asyncio.create_subprocess_exec(
                *("curl", "-sS", "--noproxy", "*", "-m", "10", *arguments, *output),
                *("-w", " %{http_code} %{http_version}", url),
                stdout=asyncio.subprocess.PIPE,
            )
            stdout, _ = await process.communicate()
            assert stdout.decode() == expected

    run(main)


def test_replies_do_not_depend_on_the_loop(run: Run) -> None:
    async def main() -> None:
        async with listening() as (listener, _):
            answer = await talk(listener, GET * 3)
            assert undated(answer) == 3 * (
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 11\r\n\r\nGET /echo 0"
            )

    run(main)
