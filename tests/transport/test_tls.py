"""Listeners with TLS, on both event loops: what is agreed, refused and counted, and how connections end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.certificates import Authority, Pair, needs_openssl
from tests.transport.fakes import OK, FakeApplication, Status

from servable.core.errors import ServingError
from servable.transport.exchange import Exchange, Route
from servable.transport.http2 import frames
from servable.transport.ledger import Ledger
from servable.transport.limits import Limits
from servable.transport.listen import Address, Listener, ListenOptions
from servable.transport.sniff import PREFACE
from servable.transport.tls import TlsOptions, server_context
from servable.transport.tls_files import ServerTls

pytestmark = needs_openssl

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
BOTH = frozenset({"h1", "h2"})
GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
LAST_GET = b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def pair(authority: Authority) -> Pair:
    return authority.server()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runner(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(15):
                await main()

        with asyncio.Runner(loop_factory=request.param) as loop:
            loop.run(limited())

    return runner


class WhoAmI(Route):
    """Tells a client what the server knows of it."""

    def handle(self, exchange: Exchange, body: bytes) -> None:
        found = exchange.peer.certificate
        known = [exchange.peer.tls, exchange.head.scheme.decode(), found and [found.subject, *found.names]]
        exchange.respond(OK, json.dumps(known).encode())


@contextlib.asynccontextmanager
async def secured(
    options: TlsOptions | ServerTls,
    limits: Limits | None = None,
    protocols: frozenset[str] = BOTH,
    listen_options: ListenOptions | None = None,
    ledger: Ledger | None = None,
) -> AsyncIterator[tuple[Listener, FakeApplication]]:
    application = FakeApplication()
    application.routes[b"/whoami"] = WhoAmI()
    tls = ServerTls(options) if isinstance(options, TlsOptions) else options
    listener = Listener(Address.parse("0"), application, limits, protocols, listen_options, tls, ledger)
    await listener.start()
    try:
        yield listener, application
    finally:
        await listener.drain(0)


def options(pair: Pair, **more: Any) -> TlsOptions:
    return TlsOptions(str(pair.certificate), str(pair.key), **more)


async def dial(listener: Listener, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = listener.address
    return await asyncio.open_connection(address.host, address.port, ssl=context)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def talk(listener: Listener, context: ssl.SSLContext, sent: bytes) -> bytes:
    """Send once, and return all that comes until the server closes."""
    reader, writer = await dial(listener, context)
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        await hang_up(writer)


async def reached(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def frame_types(sent: bytes) -> list[int]:
    types = []
    while sent:
        types.append(sent[3])
        sent = sent[9 + int.from_bytes(sent[:3], "big") :]
    return types


def body_of(reply: bytes) -> Any:
    return json.loads(reply.partition(b"\r\n\r\n")[2])


# --- what is agreed


def test_alpn_h2_gets_settings_before_it_says_a_word(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with secured(options(pair)) as (listener, _):
            reader, writer = await dial(listener, authority.trusting(alpn=("h2", "http/1.1")))
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
            assert (await reader.readexactly(9))[3] == frames.SETTINGS
            await hang_up(writer)
            await reached(lambda: listener.connections == 0)

    run(main)


@pytest.mark.parametrize("first", [GET, b"\x16\x03\x01", PREFACE[:-1] + b"X"])
def test_alpn_h2_and_then_something_else_is_closed(run: Run, authority: Authority, pair: Pair, first: bytes) -> None:
    async def main() -> None:
        async with secured(options(pair)) as (listener, application):
            answer = await talk(listener, authority.trusting(alpn=("h2",)), first)
            assert frame_types(answer)[-1] == frames.GOAWAY
            assert application.handled == []
            await reached(lambda: listener.connections == 0)

    run(main)


@pytest.mark.parametrize("alpn", [("http/1.1",), (), ("unheard-of",)])
def test_http_1_by_alpn_or_by_its_first_bytes(
    run: Run, authority: Authority, pair: Pair, alpn: tuple[str, ...]
) -> None:
    async def main() -> None:
        async with secured(options(pair)) as (listener, _):
            answer = await talk(listener, authority.trusting(alpn=alpn), LAST_GET.replace(b"echo", b"whoami"))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert body_of(answer) == [True, "https", None]

    run(main)


def test_http_2_without_alpn(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with secured(options(pair)) as (listener, _):
            reader, writer = await dial(listener, authority.trusting())
            writer.write(PREFACE + SETTINGS)
            assert (await reader.readexactly(9))[3] == frames.SETTINGS
            await hang_up(writer)

    run(main)


@pytest.mark.parametrize(("protocols", "agreed"), [({"h1"}, "http/1.1"), ({"h2"}, "h2")])
def test_a_port_offers_what_it_speaks(
    run: Run, authority: Authority, pair: Pair, protocols: set[str], agreed: str
) -> None:
    async def main() -> None:
        async with secured(options(pair), protocols=frozenset(protocols)) as (listener, _):
            _, writer = await dial(listener, authority.trusting(alpn=("h2", "http/1.1")))
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
            await hang_up(writer)

    run(main)


# --- what is refused


async def answer_or_nothing(listener: Listener, context: ssl.SSLContext, sent: bytes) -> bytes:
    """With TLS 1.3 a client learns that it was refused when it reads: as an alert, a reset or an end."""
    try:
        return await talk(listener, context, sent)
    except OSError:
        return b""


def test_cleartext_is_closed_and_counted(
    run: Run, authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []

    async def main() -> None:
        async with secured(options(pair), ledger=Ledger(events.append)) as (listener, application):
            for first in (GET, PREFACE + SETTINGS, b"\0" * 100):
                reader, writer = await dial(listener, None)
                writer.write(first)
                assert b"HTTP" not in await reader.read()
                await hang_up(writer)
            await reached(lambda: listener.failed_handshakes == 3)
            assert application.handled == []
            assert (await talk(listener, authority.trusting(), LAST_GET)).startswith(b"HTTP/1.1 200 ")

    with caplog.at_level(logging.WARNING):
        run(main)
    assert events == ["tls_handshake_failed"] * 3
    assert [" 1 TLS " in line or " 2 TLS " in line for line in caplog.messages] == [True] * 2, "a flood fills no log"


def test_who_does_not_shake_hands_is_closed(run: Run, pair: Pair) -> None:
    async def main() -> None:
        async with secured(options(pair), Limits(handshake_timeout_s=0.05)) as (listener, _):
            reader, writer = await dial(listener, None)
            assert await reader.read() == b""
            await hang_up(writer)
            await reached(lambda: listener.failed_handshakes == 1)

    run(main)


def test_handshakes_count_among_the_connections_and_end_with_the_listener(
    run: Run, authority: Authority, pair: Pair
) -> None:
    async def main() -> None:
        async with secured(options(pair), listen_options=ListenOptions(max_connections=1)) as (listener, _):
            silent_reader, silent = await dial(listener, None)
            reader, writer = await dial(listener, None)
            assert await reader.read() == b""
            assert listener.refused == 1
            await listener.drain(5)
            with contextlib.suppress(ConnectionResetError):
                assert await silent_reader.read() == b""
            await hang_up(writer)
            await hang_up(silent)

    run(main)


@pytest.mark.parametrize("auth", ["optional", "required"])
def test_certificates_of_clients(run: Run, authority: Authority, pair: Pair, tmp_path: Path, auth: str) -> None:
    worker = authority.client()
    stranger = Authority(tmp_path, "stranger").client()

    async def main() -> None:
        wanted = options(pair, client_ca=str(authority.certificate), client_auth=auth)
        async with secured(wanted) as (listener, application):
            ask = LAST_GET.replace(b"echo", b"whoami")
            names = ["DNS:worker.example", "URI:spiffe://example/worker"]
            known = body_of(await talk(listener, authority.trusting(worker), ask))
            assert known == [True, "https", ["O=Example,CN=worker", *names]]
            if auth == "optional":
                assert body_of(await talk(listener, authority.trusting(), ask)) == [True, "https", None]
            refused = [authority.trusting(stranger), *([authority.trusting()] if auth == "required" else [])]
            count = len(application.heads)
            for context in refused:
                assert await answer_or_nothing(listener, context, ask) == b""
            assert len(application.heads) == count
            assert listener.failed_handshakes == len(refused)

    run(main)


def test_a_refused_client_is_told_why(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        wanted = options(pair, client_ca=str(authority.certificate), client_auth="required")
        async with secured(wanted) as (listener, _):
            context = authority.trusting()
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # with 1.3 the client thinks that it is connected
            with pytest.raises(ssl.SSLError, match="ALERT"):
                await dial(listener, context)

    run(main)


# --- how it ends


def test_a_large_last_reply_arrives_whole_however_slowly_it_is_read(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with secured(options(pair), Limits(linger_s=0.05)) as (listener, application):
            application.routes[b"/huge"] = Status(200, b"y" * 30_000_000)
            reader, writer = await dial(listener, authority.trusting())
            writer.write(LAST_GET.replace(b"echo", b"huge"))
            await reader.readuntil(b"\r\n\r\n")
            got = 0
            for _ in range(5):  # slower than the linger
                await asyncio.sleep(0.1)
                got += len(await reader.readexactly(1_000_000))
            assert got + len(await reader.read()) == 30_000_000
            await hang_up(writer)
            await reached(lambda: listener.connections == 0)

    run(main)


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_a_client_that_never_says_goodbye_is_dropped_after_the_linger(
    run: Run, authority: Authority, pair: Pair, alpn: str
) -> None:
    async def main() -> None:
        async with secured(options(pair), Limits(linger_s=0.05)) as (listener, _):
            with socket.create_connection((listener.address.host, listener.address.port)) as plain:
                client = await asyncio.to_thread(
                    authority.trusting(alpn=(alpn,)).wrap_socket, plain, server_hostname="localhost"
                )
                client.sendall(LAST_GET if alpn == "http/1.1" else PREFACE + SETTINGS + b"\0\0\0\0\1\0\0\0\0")
                await reached(lambda: listener.connections == 1)
                await reached(lambda: listener.connections == 0)
                client.close()

    run(main)


def test_a_refused_upload_can_be_read_under_tls(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with secured(options(pair), Limits(max_body=1000)) as (listener, _):
            head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"
            answer = await talk(listener, authority.trusting(), head + b"x" * 3_000_000)
            assert answer.startswith(b"HTTP/1.1 413 ")

    run(main)


def test_draining_ends_idle_connections_at_once(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with secured(options(pair)) as (listener, _):
            opened = [await dial(listener, authority.trusting(alpn=alpn)) for alpn in ((), ("h2",), ("http/1.1",))]
            await reached(lambda: listener.connections == 3)
            assert await listener.drain(5) == 0
            for reader, writer in opened:
                with contextlib.suppress(OSError):
                    await reader.read()
                await hang_up(writer)

    run(main)


def test_who_closes_while_waiting_cancels_the_request(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with secured(options(pair)) as (listener, application):
            _, writer = await dial(listener, authority.trusting())
            writer.write(GET.replace(b"echo", b"later"))
            await reached(lambda: bool(application.waiting))
            await hang_up(writer)
            (exchange,) = application.waiting
            await reached(lambda: exchange.cancelled)
            exchange.respond(OK, b"too late")
            await reached(lambda: listener.connections == 0)

    run(main)


# --- files


def test_new_files_serve_new_connections_and_bad_ones_are_not_taken(
    run: Run, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = authority.server("first"), authority.server("second")
    place = first.copy_to(tmp_path)

    async def main() -> None:
        tls = ServerTls(options(place))
        async with secured(tls) as (listener, _):
            watching = asyncio.create_task(tls.watch(0.01))
            reader, old = await dial(listener, authority.trusting())
            assert serial(old) == first.serial
            place.replace(second)
            while await serial_now(listener, authority) != second.serial:
                await asyncio.sleep(0.01)
            place.key.write_text("nonsense")
            await reached(lambda: "no private key in PEM" in caplog.text)
            assert await serial_now(listener, authority) == second.serial
            old.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 "), "open connections go on"
            assert serial(old) == first.serial
            watching.cancel()
            await hang_up(old)

    run(main)


async def serial_now(listener: Listener, authority: Authority) -> str:
    _, writer = await dial(listener, authority.trusting())
    found = serial(writer)
    await hang_up(writer)
    return found


def serial(writer: asyncio.StreamWriter) -> str:
    return str(writer.get_extra_info("peercert")["serialNumber"])


def test_a_bad_file_is_reported_once_and_a_good_one_after_it_is_taken(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = authority.server("third").copy_to(tmp_path)
    tls = ServerTls(options(place))
    before = tls.context(BOTH)
    good = place.certificate.read_bytes()
    place.certificate.write_text("nonsense")
    for _ in range(3):
        tls.reload_if_changed()
    assert caplog.text.count("is not replaced") == 1
    assert tls.context(BOTH) is before
    assert not tls.reload(), "asked to, it looks again"
    place.certificate.write_bytes(good)
    tls.reload_if_changed()
    assert tls.context(BOTH) is not before


def test_every_bad_file_is_named_with_what_is_wrong(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    other = authority.server("other")
    empty, garbled, locked = (tmp_path / name for name in ("empty.pem", "garbled.pem", "locked.key"))
    empty.write_text("")
    garbled.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n")
    good, key = str(pair.certificate), str(pair.key)
    cases = [
        (TlsOptions(str(tmp_path / "none.pem"), key), "none.pem: no such file"),
        (TlsOptions(str(tmp_path), key), f"{tmp_path}: cannot be read: Is a directory"),
        (TlsOptions(str(empty), key), "empty.pem: no certificate in PEM"),
        (TlsOptions(str(garbled), key), "garbled.pem: a certificate cannot be read"),
        (TlsOptions(key, key), "server.key: no certificate in PEM"),
        (TlsOptions(good), "server.pem: no private key in PEM"),
        (TlsOptions(good, good), "server.pem: no private key in PEM"),
        (TlsOptions(good, str(other.key)), f"other.key: this is not the key of the certificate in {good}"),
        (TlsOptions(good, key, str(empty), "required"), "empty.pem: no certificate in PEM"),
        (TlsOptions(good, str(locked)), "locked.key"),
    ]
    for wrong, text in cases:
        with pytest.raises(ServingError) as refused:
            server_context(wrong, ["h2"])
        assert text in refused.value.message


def test_an_encrypted_key_is_refused_without_asking_the_terminal(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    import subprocess

    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", str(pair.key), "-aes128", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ServingError, match=r"locked\.key: the private key is encrypted"):
        server_context(TlsOptions(str(pair.certificate), str(locked)), ["h2"])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"certificate": "", "key": "k"}, "needs a certificate"),
        ({"certificate": "c", "client_auth": "sometimes"}, "none, optional, required"),
        ({"certificate": "c", "client_auth": "required"}, "needs a client_ca"),
        ({"certificate": "c", "client_ca": "a"}, "client_auth is none"),
    ],
)
def test_options_that_cannot_be_meant(given: dict[str, str], text: str) -> None:
    with pytest.raises(ServingError, match=text):
        TlsOptions(**given)
