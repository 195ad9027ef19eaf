from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

import servable
from servable.app import Server
from servable.client.channel import parse_url
from servable.core.errors import Code, ServingError
from servable.core.status import VersionState
from servable.transport.address import Address
from servable.zoo import catalog

WIRES = ["grpc", "http"]


def url(server: Server, wire: str) -> str:
    return f"{wire}://{server.listeners[0].address}"


@pytest.mark.parametrize("wire", WIRES)
def test_arrays_in_and_out(serve: Any, wire: str) -> None:
    async def test() -> None:
        async with serve() as server, servable.AsyncClient(url(server, wire)) as client:
            x = np.array([[1.0], [2.0]], np.float32)
            r = await client.predict("half_plus_two", x=x)
            assert r.y.dtype == np.float32
            assert r["y"].tolist() == [[2.5], [3.0]]
            assert list(r) == ["y"]
            assert r.model.name == "half_plus_two"
            if wire == "grpc":
                assert r.model.version == 1
            with pytest.raises(AttributeError, match="there are y"):
                _ = r.z

    asyncio.run(test())


@pytest.mark.parametrize("wire", WIRES)
def test_lists_get_the_types_of_the_signature(serve: Any, wire: str) -> None:
    async def test() -> None:
        async with serve() as server, servable.AsyncClient(url(server, wire)) as client:
            tokens = [[1] * 50, [2] * 50]
            r = await client.predict("noop", tokens=tokens)
            expected = catalog.reference("noop", {"tokens": np.array(tokens, np.int32)})["scores"]
            np.testing.assert_allclose(r.scores, expected, rtol=1e-4, atol=1e-5)

    asyncio.run(test())


@pytest.mark.parametrize("wire", WIRES)
def test_what_the_server_says_is_raised(serve: Any, wire: str) -> None:
    async def test() -> None:
        async with serve() as server, servable.AsyncClient(url(server, wire)) as client:

            async def fails(code: Code, words: str, *arguments: Any, **inputs: Any) -> None:
                with pytest.raises(ServingError, match=words) as raised:
                    await client.predict(*arguments, **inputs)
                assert raised.value.code is code

            x = np.zeros((1, 1), np.float32)
            await fails(Code.NOT_FOUND, "Servable not found", "nothing", x=x)
            await fails(Code.NOT_FOUND, r"Specific\(half_plus_two, 7\)", "half_plus_two", version=7, x=x)
            await fails(Code.INVALID_ARGUMENT, "x", "half_plus_two", z=x)
            await fails(Code.INVALID_ARGUMENT, "not both", "half_plus_two", version=1, label="a", x=x)
            await fails(Code.INVALID_ARGUMENT, "input 'x' is no tensor", "half_plus_two", x=["a", 1.0])
            assert (await client.predict("half_plus_two", x=x)).y.tolist() == [[2.0]]

    asyncio.run(test())


@pytest.mark.parametrize("wire", WIRES)
def test_signatures_and_status(serve: Any, wire: str) -> None:
    async def test() -> None:
        async with serve() as server, servable.AsyncClient(url(server, wire)) as client:
            signature = (await client.signatures("half_plus_two"))["serving_default"]
            assert str(signature) == "serving_default(x: float32[?,1]) -> y: float32[?,1]"
            (status,) = await client.status("half_plus_two")
            assert (status.version, status.state) == (1, VersionState.AVAILABLE)

    asyncio.run(test())


@pytest.mark.parametrize("wire", WIRES)
def test_many_calls_beside_each_other(serve: Any, wire: str) -> None:
    async def test() -> None:
        async with serve() as server, servable.AsyncClient(url(server, wire)) as client:

            async def ask(i: int) -> float:
                r = await client.predict("half_plus_two", x=np.array([[i]], np.float32))
                return float(r.y[0, 0])

            assert await asyncio.gather(*map(ask, range(200))) == [i / 2 + 2 for i in range(200)]

    asyncio.run(test())


@pytest.mark.parametrize("wire", WIRES)
def test_a_server_that_came_back_is_found_again(serve: Any, wire: str) -> None:
    async def test() -> None:
        x = np.zeros((1, 1), np.float32)
        async with serve() as first:
            address = first.listeners[0].address
            client = servable.AsyncClient(f"{wire}://{address}")
            await client.predict("half_plus_two", x=x)
        with pytest.raises(ServingError) as raised:
            await client.predict("half_plus_two", x=x)
        assert raised.value.code is Code.UNAVAILABLE
        assert str(address) in raised.value.message
        again = Server(first.settings.__class__(models=first.settings.models, listen=(str(address),)))
        await again.start()
        try:
            assert await again.ready()
            assert (await client.predict("half_plus_two", x=x)).y.tolist() == [[2.0]]
        finally:
            await client.close()
            await again.stop()

    asyncio.run(test())


def test_outputs_can_be_chosen(serve: Any) -> None:
    async def test() -> None:
        async with serve() as server:
            for wire in WIRES:
                async with servable.AsyncClient(url(server, wire)) as client:
                    r = await client.predict("half_plus_two", outputs=["y"], inputs={"x": [[4]]})
                    assert r.y.tolist() == [[4.0]]

    asyncio.run(test())


def test_the_synchronous_client_works_from_threads_and_inside_a_loop(serve: Any) -> None:
    async def test() -> None:
        async with serve() as server:
            client = servable.Client(url(server, "grpc"))
            found: list[float] = []

            def ask(i: int) -> None:
                found.append(float(client.predict("half_plus_two", x=[[i]]).y[0, 0]))

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            assert sorted(found) == [i / 2 + 2 for i in range(8)]
            await asyncio.to_thread(client.__exit__, None, None, None)

    asyncio.run(test())


def test_nobody_there() -> None:
    with servable.Client("grpc://127.0.0.1:1") as client, pytest.raises(ServingError) as raised:
        client.predict("m", x=np.zeros(1))
    assert raised.value.code is Code.UNAVAILABLE
    assert "127.0.0.1:1" in raised.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grpc://h:1", ("grpc", Address("h", 1), False)),
        ("grpc://h", ("grpc", Address("h", 8500), False)),
        ("grpcs://h", ("grpc", Address("h", 8500), True)),
        ("http://h/", ("rest", Address("h", 8501), False)),
        ("https://h/", ("rest", Address("h", 8501), True)),
        ("http://[::1]:5", ("rest", Address("::1", 5), False)),
        ("grpc://[::1]", ("grpc", Address("::1", 8500), False)),
        ("unix:/a/b", ("grpc", Address("", 0, "/a/b"), False)),
    ],
)
def test_urls(text: str, expected: tuple[str, Address, bool]) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize("text", ["h:1", "ftp://h", "grpc:/h", "", "https://unix:/a", "s://h"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ServingError, match="is no server"):
        parse_url(text)
