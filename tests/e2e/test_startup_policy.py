"""When ports open: at once, or when the models are loaded. Real servers, on the test's loop and as processes."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable.app import Server
from servable.core.errors import ServingError
from servable.settings import ServeSettings
from servable.transport.address import Address


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(limited())


def accepts(address: Address) -> bool:
    """Ask for the health page; false if the connection is refused."""
    with socket.socket() as dialed:
        dialed.settimeout(5)
        if dialed.connect_ex((address.host, address.port)) != 0:
            return False
        dialed.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        with dialed.makefile("rb") as reply:
            return reply.read().startswith(b"HTTP/1.1 200 ")


@pytest.mark.rule("manager-8")
def test_waiting_ports_refuse_until_a_model_is_there(models: LiveModels, tmp_path: Path) -> None:
    async def main() -> None:
        base = tmp_path / "m"
        base.mkdir()
        settings = ServeSettings(
            startup="wait", listen=("127.0.0.1:0",), model_base_path=str(base), file_system_poll_wait_seconds=0.05
        )
        server = Server(settings)
        await server.start()
        try:
            address = server.listeners[0].address
            assert address.port, "the port is taken at once, so that a busy one fails at once"
            waiting = asyncio.ensure_future(server.ready())
            refused = asyncio.to_thread(accepts, address)
            assert not await refused
            assert not waiting.done()
            shutil.copytree(models.onnx("half_plus_two") / "1", base / "1")
            assert await waiting
            assert await asyncio.to_thread(accepts, address)
        finally:
            await server.stop()

    run(main)


def test_open_ports_accept_before_any_model_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server(ServeSettings(listen=("127.0.0.1:0",), model_base_path=str(tmp_path)))
        await server.start()
        try:
            assert await asyncio.to_thread(accepts, server.listeners[0].address)
        finally:
            await server.stop()

    run(main)


@pytest.mark.rule("manager-8")
def test_a_model_without_versions_does_not_keep_the_ports_shut(models: LiveModels, tmp_path: Path) -> None:
    async def main() -> None:
        settings = ServeSettings(
            models=(str(models.onnx("half_plus_two")),), startup="wait", listen=("127.0.0.1:0",),
            model_base_path=str(tmp_path / "missing"), startup_timeout_s=15,
        )  # fmt: skip
        server = Server(settings)
        await server.start()
        waiting = asyncio.ensure_future(server.ready())
        try:
            address = server.listeners[0].address
            while not await asyncio.to_thread(accepts, address):
                await asyncio.sleep(0.01)
            assert [loaded.name for loaded in server.manager.loaded()] == ["half_plus_two"]
            assert not waiting.done()
        finally:
            waiting.cancel()
            await server.stop()

    run(main)


def test_time_runs_out_with_the_ports_shut(tmp_path: Path) -> None:
    async def main() -> None:
        settings = ServeSettings(
            startup="wait", listen=("127.0.0.1:0",), model_base_path=str(tmp_path), startup_timeout_s=0.1
        )
        server = Server(settings)
        await server.start()
        try:
            assert not await server.ready()
            assert not await asyncio.to_thread(accepts, server.listeners[0].address)
        finally:
            await server.stop()

    run(main)


def test_a_busy_port_fails_before_anything_is_loaded(models: LiveModels) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy:
            address = f"127.0.0.1:{busy.getsockname()[1]}"
            server = Server(
                ServeSettings(models=(str(models.onnx("half_plus_two")),), startup="wait", listen=(address,))
            )
            with pytest.raises(ServingError, match=f"cannot listen on {address}: the address is already in use"):
                await server.start()
            assert not server.listeners

    run(main)


@pytest.mark.parametrize("word", ["--grpc_socket_path={}/s", "--listen=127.0.0.1:0"])
def test_the_default_follows_the_flags(
    models: LiveModels, serve: Callable[..., ServerProcess], tmp_path: Path, word: str
) -> None:
    started = serve(models.onnx("half_plus_two"), word.format(tmp_path)).ready()
    assert ("ports open when the models are loaded" in started.stderr) is ("socket" in word)
    assert started.stop() == 0


def test_nothing_to_serve_ends_a_waiting_server(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes(b"no model")
    started = serve(f"--model_base_path={tmp_path}", "--startup=wait", "--max_num_load_retries=0")
    assert started.wait(20) == 1
    assert "FAILED" in started.stdout
