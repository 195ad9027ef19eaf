"""Fixtures that the whole-program tests and the conformance tests share; their conftests import them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.e2e.live_models import SAVED_MODELS, LiveModels
from tests.e2e.server_process import ServerProcess


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> LiveModels:
    """The artifacts; both folders use what was built."""
    return LiveModels(tmp_path_factory.getbasetemp() / "live_models")


@pytest.fixture
def serve() -> Iterator[Callable[..., ServerProcess]]:
    """Start servers that end with the test."""
    with ExitStack() as ending:

        def start(*arguments: Any, **options: Any) -> ServerProcess:
            return ending.enter_context(ServerProcess(*arguments, **options))

        yield start


@pytest.fixture(scope="session")
def server(models: LiveModels) -> Iterator[ServerProcess]:
    """A server of ONNX models that many tests share; none may harm it."""
    paths = [models.onnx(name) for name in ("half_plus_two", "text_cnn", "text_cnn_small", "lstm_tokens")]
    with ServerProcess(*paths, *map(models.made, ("types", "echo", "slow"))) as started:
        yield started.ready()


@pytest.fixture(scope="session")
def tensorflow_server(models: LiveModels) -> Iterator[ServerProcess]:
    """A server of SavedModels in TensorFlow, each in a process of its own; shared as well."""
    with ServerProcess(*map(models.saved_model, SAVED_MODELS), models.many_signatures()) as started:
        yield started.ready()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what many tests share out of the time of the one that happens to be the first."""
    for item in items:
        if "tensorflow_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(180, func_only=True))
