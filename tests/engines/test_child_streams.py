"""Models that yield, in children: parts on demand, beside other calls, ended early, and with what can go wrong."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact, EngineOptions
from servable.engines.child import load_in_child
from servable.engines.child_model import ChildModel

Load = Callable[..., ChildModel]

COUNTS = """
    class Counts:
        closed = 0
        made = 0

        {async_}def predict(self, x: Tensor["float32", "n"]) -> {kind}[Tensor["float32", "n"]]:
            try:
                for step in range(int(x[0])):
                    self.made += 1
                    if step == 4:
                        raise ServingError(11, "enough")
                    if step == 5:
                        raise KeyError("bad")
                    yield x + step
                yield np.array([self.made, self.closed], np.float32)[: len(x)]
            finally:
                Counts.closed += 1
"""


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    models: list[ChildModel] = []

    def start(code: str, **more: str) -> ChildModel:
        head = (
            "import asyncio, os, signal\nfrom collections.abc import AsyncIterator, Iterator\n"
            "import numpy as np\nfrom servable import ServingError, Tensor\n"
        )
        (tmp_path / "model.py").write_text(head + textwrap.dedent(code).format(**more))
        artifact = Artifact("python", tmp_path / "model.py")
        model = load_in_child("python", artifact, EngineOptions(allow_python=True))
        assert isinstance(model, ChildModel)
        models.append(model)
        return model

    yield start
    for model in models:
        model.close()


@pytest.fixture(params=[("", "Iterator"), ("async ", "AsyncIterator")], ids=["plain", "async"])
def counts(load: Load, request: pytest.FixtureRequest) -> ChildModel:
    return load(COUNTS, async_=request.param[0], kind=request.param[1])


def stream(model: ChildModel, *values: float) -> Any:
    return model.stream("serving_default", {"x": np.array(values, np.float32)}, ["output"])


def parts(model: ChildModel, *values: float) -> list[Any]:
    return [part["output"].tolist() for part in stream(model, *values)]


def test_parts_come_in_order_and_two_streams_and_a_call_run_beside_each_other(counts: ChildModel) -> None:
    assert counts.signatures["serving_default"].streamed
    first, second = stream(counts, 3, 0), stream(counts, 2, 9)
    assert next(first)["output"].tolist() == [3, 0]
    assert next(second)["output"].tolist() == [2, 9]
    joined = counts.run("serving_default", {"x": np.array([1, 7], np.float32)}, ["output"])["output"].tolist()
    assert joined == [1, 7, 3, 0]
    assert [part["output"].tolist() for part in first] == [[4, 1], [5, 2], [5, 1]]
    assert [part["output"].tolist() for part in second] == [[3, 10], [6, 2]]


def test_parts_are_computed_on_demand_and_a_stream_that_is_closed_ends_its_generator(counts: ChildModel) -> None:
    left = stream(counts, 3, 0)
    next(left)
    left.close()
    assert parts(counts, 0, 0) == [[1, 1]]


def test_errors_end_a_stream_after_the_parts_before_them(counts: ChildModel) -> None:
    left = stream(counts, 9)
    assert [next(left)["output"].tolist() for _ in range(4)] == [[9], [10], [11], [12]]
    with pytest.raises(ServingError) as caught:
        next(left)
    assert (caught.value.code, caught.value.message) == (Code.OUT_OF_RANGE, "enough")
    with pytest.raises(ServingError):
        counts.run("serving_default", {"x": np.array([9], np.float32)}, ["output"])
    assert parts(counts, 0, 0)[0][1] == 2


def test_a_part_that_is_not_what_was_promised_is_an_error(load: Load) -> None:
    model = load(
        """
        class Bad:
            def predict(self, x: Tensor["float32", "n"]) -> Iterator[Tensor["float32", "n"]]:
                yield x
                yield x[:-1]
        """
    )
    with pytest.raises(ServingError, match="with n = 2 as elsewhere in this call"):
        parts(model, 1, 2)


def test_nothing_and_what_cannot_be_joined(load: Load) -> None:
    model = load(
        """
        class Odd:
            def predict(self, x: Tensor["float32", "n"]) -> Iterator[Tensor["float32"]]:
                if x[0] == 0:
                    return iter(())
                return iter([x.reshape(1, -1), x.reshape(-1, 1), x.sum()][: int(x[0])])
        """
    )
    assert parts(model, 0) == []
    assert parts(model, 2, 1) == [[[2, 1]], [[2], [1]]]
    for value, message in ((0, "there are no parts"), (2, "the parts of output output cannot be joined")):
        with pytest.raises(ServingError, match=message) as caught:
            model.run("serving_default", {"x": np.array([value, 1], np.float32)}, ["output"])
        assert caught.value.code is Code.INTERNAL


def test_a_process_that_ends_between_two_parts_ends_its_streams(counts: ChildModel) -> None:
    left = stream(counts, 3)
    next(left)
    pid_fd = os.pidfd_open(counts.pid)
    os.kill(counts.pid, signal.SIGKILL)
    with pytest.raises(ServingError) as caught:
        list(left)
    assert caught.value.code is Code.UNAVAILABLE
    os.close(pid_fd)


def test_a_function_that_yields_must_say_so(load: Load) -> None:
    with pytest.raises(ServingError, match="yields, but its annotation promises one answer"):
        load(
            """
            class M:
                def predict(self, x: Tensor["float32"]) -> Tensor["float32"]:
                    yield x
            """
        )
