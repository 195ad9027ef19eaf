"""classify and regress of the client, over both wires, against a server whose settings say how to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.live_models import LiveModels

import servable
from servable.app import Server
from servable.core.errors import Code, ServingError
from servable.settings import ServeSettings
from servable.wire.example_features import example_bytes, plain_features

WIRES = ["grpc", "http"]
LABELS = ["low", "middle", "h\u00f6her"]
Test = Callable[[servable.AsyncClient], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LiveModels(tmp_path_factory.mktemp("heads")).made("onnx_heads")


def run(heads: Path, wire: str, test: Test) -> None:
    async def main() -> None:
        server = Server(ServeSettings(models=(f"heads={heads}",), listen=("127.0.0.1:0",)))
        await server.start()
        try:
            assert await server.ready()
            async with servable.AsyncClient(f"{wire}://{server.listeners[0].address}") as client:
                await test(client)
        finally:
            await server.stop()

    asyncio.run(main())


@pytest.mark.parametrize("wire", WIRES)
def test_classify_and_regress(heads: Path, wire: str) -> None:
    async def test(client: servable.AsyncClient) -> None:
        examples: list[dict[str, Any]] = [{"x": [1, 2.0], "k": np.int64(3)}, {"x": np.array([0.5, 0.25], np.float32)}]
        assert await client.regress("heads", examples, "flat") == [10.5, 1.0]
        assert await client.regress("heads", examples, "flat", context={"k": 2}, version=1) == [10.5, 2.0]
        first, second = await client.classify("heads", examples)
        assert [label for label, _ in first] == LABELS
        assert math.isclose(sum(score for _, score in second), 1.0, rel_tol=1e-5)
        (scores,) = await client.classify("heads", examples[:1], "scores")
        assert scores == [("", score) for _, score in first]
        (value,) = await client.regress("heads", [{"x": [math.inf, 1.0]}], "flat")
        assert not math.isfinite(value)

    run(heads, wire, test)


@pytest.mark.parametrize("wire", WIRES)
def test_what_the_server_says_of_examples_is_raised(heads: Path, wire: str) -> None:
    async def test(client: servable.AsyncClient) -> None:
        async def fails(code: Code, words: str, *arguments: Any, **options: Any) -> None:
            with pytest.raises(ServingError, match=words) as failure:
                await client.regress(*arguments, **options)
            assert failure.value.code is code

        row = {"x": [1.0, 2.0]}
        await fails(Code.NOT_FOUND, "Latest", "nonesuch", [row])
        await fails(Code.NOT_FOUND, "Specific", "heads", [row], version=4)
        await fails(Code.INVALID_ARGUMENT, "label: blue", "heads", [row], label="blue")
        await fails(Code.INVALID_ARGUMENT, "No signature was found", "heads", [row], "x")
        await fails(Code.INVALID_ARGUMENT, "is required but could not be found", "heads", [{}], "flat")
        await fails(Code.INVALID_ARGUMENT, "expected type: float", "heads", [{"x": [1, 2]}], "flat")
        await fails(Code.INVALID_ARGUMENT, "feature 'x' holds NoneType", "heads", [{"x": None}], "flat")
        await fails(Code.INVALID_ARGUMENT, "empty", "heads", [], "flat")

    run(heads, wire, test)


def test_kinds_of_features() -> None:
    features = {
        "i": [1, True], "f": (1, 2.5), "s": "\u00e4", "b": [b"\xff", "x"], "n": np.arange(2), "e": [], "t": False,
    }  # fmt: skip
    assert plain_features(features) == {
        "i": [1, 1], "f": [1.0, 2.5], "s": ["\u00e4".encode()], "b": [b"\xff", b"x"], "n": [0, 1], "e": [], "t": [0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "feature 'f' holds NoneType; expected numbers"),
        ([[1]], "feature 'f' holds list; expected"),
        (np.zeros((2, 2)), "feature 'f' holds list; expected"),
        ([1, "a"], "feature 'f' holds numbers and strings; a feature holds values of one kind"),
        (2**63, "feature 'f' holds an integer that is no int64"),
    ],
)
def test_values_that_no_feature_holds(value: Any, words: str) -> None:
    with pytest.raises(ServingError) as failure:
        example_bytes({"f": value})
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert failure.value.message.startswith(words)
