"""The client over TLS: who is trusted, what is shown, and what a person reads when that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.certificates import Authority, Pair, needs_openssl

import servable
from servable.app import Server
from servable.core.errors import Code, ServingError

pytestmark = needs_openssl
WIRES = pytest.mark.parametrize("wire", ["grpcs", "https"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("client_tls"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> dict[str, str]:
    """The settings of a server with a certificate for the loopback."""
    return settings(authority.server())


def settings(pair: Pair, **more: str) -> dict[str, str]:
    return {"tls_certificate": str(pair.certificate), "tls_key": str(pair.key), **more}


def url(server: Server, wire: str, host: str = "127.0.0.1") -> str:
    return f"{wire}://{host}:{server.listeners[0].address.port}"


async def predict(client: servable.AsyncClient) -> Any:
    return (await client.predict("half_plus_two", x=np.array([[1.0]], np.float32))).y.tolist()


async def fails(client: servable.AsyncClient, *words: str) -> None:
    async with client:
        with pytest.raises(ServingError) as raised:
            await predict(client)
    assert raised.value.code is Code.UNAVAILABLE
    for word in words:
        assert word in raised.value.message


@WIRES
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_that_is_trusted(
    serve: Any, authority: Authority, files: dict[str, str], wire: str, host: str
) -> None:
    async def test() -> None:
        async with serve(**files) as server:
            async with servable.AsyncClient(url(server, wire, host), ca=authority.certificate) as client:
                assert await predict(client) == [[2.5]]
                assert (await client.status("half_plus_two"))[0].version == 1
            assert server.listeners[0].failed_handshakes == 0

    asyncio.run(test())


@WIRES
def test_the_synchronous_client(serve: Any, authority: Authority, files: dict[str, str], wire: str) -> None:
    async def test() -> None:
        async with serve(**files) as server:

            def call() -> list[list[float]]:
                with servable.Client(url(server, wire), ca=authority.certificate) as client:
                    return client.predict("half_plus_two", x=[[1.0]]).y.tolist()  # type: ignore[no-any-return]

            assert await asyncio.to_thread(call) == [[2.5]]

    asyncio.run(test())


@WIRES
def test_a_server_that_is_not_trusted(serve: Any, tmp_path: Path, files: dict[str, str], wire: str) -> None:
    other = Authority(tmp_path, "other")

    async def test() -> None:
        async with serve(**files) as server:
            for ca in ("", other.certificate):
                client = servable.AsyncClient(url(server, wire), ca=ca)
                await fails(client, "cannot connect to 127.0.0.1:", "the server's certificate is not trusted: unable")

    asyncio.run(test())


@WIRES
def test_a_certificate_for_another_name(serve: Any, authority: Authority, wire: str) -> None:
    async def test() -> None:
        async with serve(**settings(authority.server("elsewhere", "DNS:elsewhere.example"))) as server:
            client = servable.AsyncClient(url(server, wire), ca=authority.certificate)
            await fails(client, "not trusted: IP address mismatch, certificate is not valid for '127.0.0.1'")

    asyncio.run(test())


@WIRES
def test_a_port_without_tls(serve: Any, authority: Authority, wire: str) -> None:
    async def test() -> None:
        async with serve() as server:
            await fails(
                servable.AsyncClient(url(server, wire), ca=authority.certificate), "cannot connect to 127.0.0.1"
            )

    asyncio.run(test())


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_a_port_with_tls_and_a_client_without(serve: Any, files: dict[str, str], wire: str) -> None:
    async def test() -> None:
        async with serve(**files) as server:
            await fails(servable.AsyncClient(url(server, wire)), "127.0.0.1")
            assert server.listeners[0].failed_handshakes >= 1

    asyncio.run(test())


@WIRES
def test_a_certificate_of_the_client(serve: Any, authority: Authority, tmp_path: Path, wire: str) -> None:
    worker, stranger = authority.client(), Authority(tmp_path, "stranger").client()
    ca = authority.certificate
    wanted = settings(authority.server("strict"), tls_client_ca=str(ca), tls_client_auth="required")

    async def test() -> None:
        async with serve(**wanted) as server:
            place = url(server, wire)
            shown = servable.AsyncClient(place, ca=ca, certificate=worker.certificate, key=worker.key)
            async with shown as client:
                assert await predict(client) == [[2.5]]
            await fails(servable.AsyncClient(place, ca=ca), "127.0.0.1")
            unknown = servable.AsyncClient(place, ca=ca, certificate=stranger.certificate, key=stranger.key)
            await fails(unknown, "127.0.0.1")

    asyncio.run(test())


def test_bad_arguments_are_refused_before_anything_is_sent(authority: Authority, tmp_path: Path) -> None:
    pair = authority.client("bad")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("grpc://h", {"ca": authority.certificate}, "'grpc://h' is not encrypted"),
        ("grpcs://h", {"ca": tmp_path / "none.pem"}, "none.pem: no such file"),
        ("https://h", {"ca": pair.key}, "bad.key: no certificate in PEM"),
        ("https://h", {"key": pair.key}, "without its certificate"),
        ("https://h", {"certificate": pair.certificate}, "bad.pem: no private key in PEM"),
    ]
    for place, given, text in cases:
        with pytest.raises(ServingError, match=text):
            servable.AsyncClient(place, **given)
