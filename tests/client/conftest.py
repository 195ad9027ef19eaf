from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from servable.app import Server
from servable.settings import ServeSettings
from servable.zoo import catalog

Serve = Callable[..., AbstractAsyncContextManager[Server]]
Test = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name in ("half_plus_two", "noop"):
        catalog.build(name, root, kind="onnx")
    return root


@pytest.fixture
def serve(models: Path) -> Serve:
    """A whole server on the test's own loop, on a free port."""

    @asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[Server]:
        server = Server(ServeSettings(models=(str(models),), listen=("127.0.0.1:0",), **options))
        await server.start()
        try:
            assert await server.ready()
            yield server
        finally:
            await server.stop()

    return start
