"""Bounds on a child: a call that takes too long, memory that grows too much. Real processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.engines import base
from servable.engines.base import Artifact, EngineOptions
from servable.engines.child import load_in_child
from servable.engines.child_model import ChildModel
from servable.engines.child_process import wait_readable

EIGHT = {"x": np.array([8])}


@pytest.fixture(autouse=True)
def echo_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base.ENGINES, "echo", "child_engines:EchoEngine")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def load() -> Iterator[Callable[..., ChildModel]]:
    models: list[ChildModel] = []

    def start(path: str = "m/1", *, timeout_s: float = 0.0, memory_mb: int = 0) -> ChildModel:
        options = EngineOptions(child_timeout_s=timeout_s, child_memory_mb=memory_mb)
        model = load_in_child("echo", Artifact("echo", Path(path)), options)
        assert isinstance(model, ChildModel)
        models.append(model)
        return model

    yield start
    for model in models:
        model.close()


def outcome(model: ChildModel, signature: str, inputs: dict[str, np.ndarray]) -> ServingError | None:
    try:
        model.run(signature, inputs, ["x"])
    except ServingError as error:
        return error
    return None


def failure(model: ChildModel, signature: str, inputs: dict[str, np.ndarray]) -> ServingError:
    error = outcome(model, signature, inputs)
    assert error is not None
    return error


def wait_until_back(model: ChildModel) -> None:
    end = time.monotonic() + 10
    tick = threading.Event()
    while outcome(model, "any", EIGHT) is not None:
        assert time.monotonic() < end
        tick.wait(0.005)


def test_a_call_that_takes_too_long_costs_itself_and_the_process(load: Callable[..., ChildModel]) -> None:
    model = load(timeout_s=0.5)
    assert model.run("any", EIGHT, ["x"])["x"] == 8
    pid_fd = os.pidfd_open(model.pid)
    error = failure(model, "hang", EIGHT)
    assert error.code is Code.UNAVAILABLE
    assert error.message == (
        "the process of model m/1 was killed because a call took longer than 0.5 s (--child_timeout_s); "
        "it is being restarted"
    )
    assert wait_readable(pid_fd, 10)
    os.close(pid_fd)
    wait_until_back(model)


def test_a_call_that_hung_twice_is_refused(load: Callable[..., ChildModel]) -> None:
    model = load(timeout_s=0.3)
    for _ in range(2):
        assert failure(model, "hang", EIGHT).code is Code.UNAVAILABLE
        wait_until_back(model)
    error = failure(model, "hang", EIGHT)
    assert (error.code, "twice" in error.message) == (Code.INVALID_ARGUMENT, True)


def test_a_process_that_takes_too_much_memory_is_killed_and_comes_back(load: Callable[..., ChildModel]) -> None:
    model = load(memory_mb=250)
    model.run("eat", {"x": np.array([1])}, ["x"])
    pid_fd = os.pidfd_open(model.pid)
    error = outcome(model, "eat", {"x": np.array([300])}) or failure(model, "hang", EIGHT)
    assert error.code is Code.UNAVAILABLE
    assert "of memory, more than its 250 (--child_memory_mb); it is being restarted" in error.message
    assert wait_readable(pid_fd, 10)
    os.close(pid_fd)
    wait_until_back(model)


def test_a_load_that_takes_too_much_memory_fails_and_says_so(load: Callable[..., ChildModel]) -> None:
    with pytest.raises(ServingError) as caught:
        load("m/eats", memory_mb=250)
    assert caught.value.code is Code.INTERNAL
    assert "more than its 250 (--child_memory_mb) while it loaded" in caught.value.message


def test_a_process_within_its_bounds_is_let_be(load: Callable[..., ChildModel]) -> None:
    model = load(timeout_s=10, memory_mb=1000)
    pid = model.pid
    for _ in range(20):
        model.run("eat", {"x": np.array([50])}, ["x"])
    assert model.pid == pid
