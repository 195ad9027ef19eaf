"""A batch cut into parts: the same answers in the same order, and whole where it may not be cut."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from servable.core.errors import ServingError, invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, Array
from servable.engines.base import Model
from servable.engines.streams import in_streams, threads_of_each

ROWS = Signature("rows", {"x": TensorSpec("x", FLOAT32, (None, 2))}, {"y": TensorSpec("y", FLOAT32, (None,))})
WHOLE = Signature("whole", {"x": TensorSpec("x", FLOAT32, (None, 2))}, {"y": TensorSpec("y", FLOAT32, ())})


class Recorder(Model):
    """Sums rows; remembers how many rows it was given, and in which threads."""

    engine = "recorder"
    concurrent = True

    def __init__(self) -> None:
        self.signatures = {"rows": ROWS, "whole": WHOLE}
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.together = threading.Barrier(2, timeout=5)
        self.closed = 0

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        array = inputs["x"]
        self.sizes.append(len(array))
        self.threads.add(threading.get_ident())
        if signature == "whole":
            return {"y": np.asarray(array.sum())}
        if (array < 0).any():
            raise invalid_argument("negative")
        if (array == 99).any():
            return {"y": np.zeros(1, np.float32)}
        if len(array) == 3:
            self.together.wait()
        return {"y": array.sum(axis=1)}

    def close(self) -> None:
        self.closed += 1


def test_parts_run_beside_each_other_and_come_back_in_order() -> None:
    recorder = Recorder()
    model = in_streams(recorder, 2)
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert model.run("rows", {"x": x}, ("y",))["y"].tolist() == x.sum(axis=1).tolist()
    assert recorder.sizes == [3, 3]  # the barrier let them pass: they ran at the same time
    assert len(recorder.threads) == 2
    model.close()
    assert recorder.closed == 1


@pytest.mark.parametrize(("rows", "sizes"), [(0, [0]), (1, [1]), (2, [1, 1]), (5, [2, 3])])
def test_few_rows_are_cut_as_far_as_they_go(rows: int, sizes: list[int]) -> None:
    recorder = Recorder()
    recorder.together = threading.Barrier(1)
    x = np.ones((rows, 2), np.float32)
    assert in_streams(recorder, 2).run("rows", {"x": x}, ("y",))["y"].shape == (rows,)
    assert sorted(recorder.sizes) == sizes


def test_a_signature_without_rows_is_never_cut() -> None:
    recorder = Recorder()
    assert in_streams(recorder, 2).run("whole", {"x": np.ones((4, 2), np.float32)}, ("y",))["y"] == 8
    assert recorder.sizes == [4]


def test_the_error_of_any_part_is_that_of_the_batch() -> None:
    model = in_streams(Recorder(), 2)
    for bad in (0, 3):
        x = np.ones((4, 2), np.float32)
        x[bad] = -1
        with pytest.raises(ServingError, match="negative"):
            model.run("rows", {"x": x}, ("y",))


def test_rows_that_do_not_add_up_are_computed_as_a_whole() -> None:
    recorder = Recorder()
    x = np.full((4, 2), 99, np.float32)
    in_streams(recorder, 2).run("rows", {"x": x}, ("y",))
    assert sorted(recorder.sizes) == [2, 2, 4]


def test_a_model_that_computes_one_batch_at_a_time_has_no_streams() -> None:
    recorder = Recorder()
    recorder.concurrent = False
    with pytest.raises(ServingError, match="one batch at a time"):
        in_streams(recorder, 2)
    assert recorder.closed == 1
    assert in_streams(recorder, 1) is recorder


@pytest.mark.parametrize(("threads", "streams", "each"), [(2, 2, 1), (4, 2, 3), (1, 2, 1), (4, 0, 4)])
def test_streams_share_the_threads(threads: int, streams: int, each: int) -> None:
    assert threads_of_each(threads, streams) == each
