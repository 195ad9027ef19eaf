"""A ModelServerConfig is applied to a running server wholly, or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.live_models import LiveModels

from servable import protos
from servable.app import Server
from servable.core.errors import Code, ServingError
from servable.core.status import VersionState
from servable.protos import text_format
from servable.settings import ServeSettings


def config(text: str) -> Any:
    return text_format.parse(f"model_config_list {{ {text} }}", protos.serving.ModelServerConfig)


def available(server: Server, name: str) -> list[int]:
    return [item.version for item in server.statuses_of(name) if item.state is VersionState.AVAILABLE]


B = "config { name: 'b' base_path: 'PATH' }"
LABELLED = "config { name: 'a' base_path: 'PATH' version_labels { key: 'l' value: 9 } }"
LOGGED = "config { name: 'b' base_path: 'PATH' logging_config { log_collector_config { type: 'kafka' } } }"
REFUSED = [
    (f"{B} config {{ name: 'c' base_path: 'x' }}", "have an absolute path or URI", Code.INVALID_ARGUMENT),
    (f"{B} {B}", "Illegal to list model b multiple times in config list", Code.INVALID_ARGUMENT),
    (
        f"{LABELLED} {B}",
        "Request to assign label to version 9 of model a, which is not currently available for inference",
        Code.FAILED_PRECONDITION,
    ),
    (LOGGED, "Cannot find LogCollector::Factory for type: kafka", Code.INVALID_ARGUMENT),
]


@pytest.mark.parametrize(("text", "words", "code"), REFUSED, ids=[words for _, words, _ in REFUSED])
@pytest.mark.rule("reload-4", "reload-6", "reload-8", "log-3")
def test_what_is_refused_changes_nothing(models: LiveModels, tmp_path: Path, text: str, words: str, code: Code) -> None:
    path = str(models.onnx("half_plus_two"))

    async def main() -> None:
        server = Server(ServeSettings(listen=("127.0.0.1:0",), models=(f"a={path}",)))
        await server.start()
        try:
            assert await server.ready()
            before = dict(server.models)
            with pytest.raises(ServingError, match=words) as raised:
                server.apply_model_server_config(config(text.replace("PATH", path)))
            assert raised.value.code is code
            assert server.models == before
            assert server.manager.models() == ["a"]
            assert available(server, "a") == [1]
        finally:
            await server.stop()

    asyncio.run(main())


@pytest.mark.rule("reload-2", "label-2")
def test_what_is_applied_replaces_the_set_and_says_what_is_new(models: LiveModels) -> None:
    path = str(models.onnx("half_plus_two"))

    async def main() -> None:
        server = Server(ServeSettings(listen=("127.0.0.1:0",), models=(f"a={path}", f"b={path}")))
        await server.start()
        try:
            assert await server.ready()
            text = f"config {{ name: 'b' base_path: '{path}' version_labels {{ key: 'l' value: 1 }} }}"
            new = server.apply_model_server_config(config(f"{text} config {{ name: 'c' base_path: '{path}' }}"))
            assert new == {"c"}
            assert await server.manager.wait_settled({"b", "c"}, 15)
            assert [available(server, name) for name in ("b", "c")] == [[1], [1]]
            assert server.manager.labels("b") == {"l": 1}
            assert list(server.models) == ["b", "c"]
            assert server.apply_model_server_config(config("")) == frozenset()
            assert not server.models
        finally:
            await server.stop()

    asyncio.run(main())
