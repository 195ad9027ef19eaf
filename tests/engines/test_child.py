"""A model in a child process: tensors, errors, options, logs. Real processes."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import ALL_DTYPES, STRING, Array, DType
from servable.engines import base
from servable.engines.base import Artifact, EngineOptions
from servable.engines.child import label_of, load_in_child
from servable.engines.child_memory import KEPT_SIZE, START_SIZE
from servable.engines.child_model import ChildModel

Load = Callable[..., ChildModel]


@pytest.fixture(scope="module")
def echo_engine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.ENGINES, "echo", "child_engines:EchoEngine")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        yield


@pytest.fixture(scope="module")
def model(echo_engine: None) -> Iterator[ChildModel]:
    loaded = load("shared/1")
    yield loaded
    loaded.close()


def load(path: str | Path, **options: Any) -> ChildModel:
    loaded = load_in_child("echo", Artifact("echo", Path(path)), EngineOptions(**options))
    assert isinstance(loaded, ChildModel)
    return loaded


def assert_same(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if expected.dtype.hasobject:
        assert got.tolist() == expected.tolist()
    else:
        assert got.tobytes() == expected.tobytes()


def sample(dtype: DType, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape))
    if dtype is STRING:
        array = np.empty(shape, dtype=object)
        array.reshape(-1)[:] = [b"\x00\xff" * (index % 3) for index in range(size)]
        return array
    return (np.arange(size) % 5).astype(dtype.numpy).reshape(shape)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_every_type_and_shape_travels_both_ways(model: ChildModel, dtype: DType) -> None:
    shapes: list[tuple[int, ...]] = [(), (0,), (3,), (2, 0, 4), (5, 7), (2, 3, 1, 2)]
    inputs = {f"x{index}": sample(dtype, shape) for index, shape in enumerate(shapes)}
    results = model.run("any", inputs, list(inputs))
    assert list(results) == list(inputs)
    for name, array in inputs.items():
        assert_same(results[name], array)


def test_arrays_that_are_not_in_row_order_or_of_another_byte_order(model: ChildModel) -> None:
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    swapped = square.astype(">f4")
    results = model.run("any", {"t": square.T, "s": square[::2, 1::2], "b": swapped}, [])
    assert_same(results["t"], np.ascontiguousarray(square.T))
    assert_same(results["s"], np.ascontiguousarray(square[::2, 1::2]))
    assert_same(results["b"], square)


def test_calls_larger_than_the_memory_that_is_kept(model: ChildModel) -> None:
    for size in (START_SIZE + 1, KEPT_SIZE // 2, KEPT_SIZE + 12345, 10):
        array = np.arange(size, dtype=np.uint8)
        text = np.array([b"z" * size, b"a"], dtype=object)
        results = model.run("any", {"x": array, "s": text}, [])
        assert_same(results["x"], array)
        assert_same(results["s"], text)


def test_a_large_call_gives_its_memory_back(model: ChildModel) -> None:
    model.run("any", {"x": np.ones(2 * KEPT_SIZE, np.uint8)}, [])
    process = model._keeper.live()
    assert process.requests.size <= KEPT_SIZE
    assert process.answers.size <= KEPT_SIZE


def test_many_tensors_in_one_call(model: ChildModel) -> None:
    inputs = {f"a rather long name of an input {index}": np.array(index) for index in range(5000)}
    results = model.run("any", inputs, [])
    assert [int(value) for value in results.values()] == list(range(5000))


def test_results_are_the_callers_own(model: ChildModel) -> None:
    first = model.run("any", {"x": np.array([1, 2, 3])}, ["x"])["x"]
    second = model.run("any", {"x": np.array([9, 9, 9])}, ["x"])["x"]
    second[0] = 5
    assert first.tolist() == [1, 2, 3]
    assert first.flags.writeable


def test_what_a_model_keeps_does_not_change_under_it(model: ChildModel) -> None:
    model.run("keep", {"x": np.array([1, 2, 3])}, [])
    assert model.run("keep", {"x": np.array([4, 5, 6])}, [])["x"].tolist() == [1, 2, 3]


def test_signatures_cross_whole(model: ChildModel) -> None:
    child_engines: Any = importlib.import_module("child_engines")
    assert (model.engine, model.precision) == ("echo", "f64")
    assert list(model.signatures) == ["any", "other"]
    for expected in (child_engines.ANY, child_engines.OTHER):
        got = model.signatures[expected.name]
        assert (got.name, got.method_name) == (expected.name, expected.method_name)
        assert dict(got.inputs) == dict(expected.inputs)
        assert dict(got.outputs) == dict(expected.outputs)
        assert list(got.defaults) == list(expected.defaults)
        for name, value in expected.defaults.items():
            assert_same(got.defaults[name], value)


def test_errors_of_the_model_cross_with_their_code(model: ChildModel) -> None:
    with pytest.raises(ServingError) as caught:
        model.run("refuse", {}, [])
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, "no: é")


def test_an_exception_of_the_model_is_an_internal_error(model: ChildModel) -> None:
    with pytest.raises(ServingError) as caught:
        model.run("raise", {}, [])
    assert caught.value.code is Code.INTERNAL
    assert "ZeroDivisionError: of the model" in caught.value.message
    assert model.run("any", {"x": np.array(1)}, ["x"])["x"] == 1


def test_an_array_that_is_no_tensor_is_refused_before_it_travels(model: ChildModel) -> None:
    for bad in (np.array(["2020-01-01"], "datetime64[D]"), np.array(["text", 3], dtype=object)):
        with pytest.raises(ServingError) as caught:
            model.run("any", {"x": bad}, ["x"])
        assert caught.value.code is Code.INVALID_ARGUMENT
    assert model.run("any", {"x": np.array(1)}, ["x"])["x"] == 1


def test_the_terminals_signals_are_the_parents_business(model: ChildModel) -> None:
    assert model.run("state", {}, [])["signals"].tolist() == [True, True]
    os.kill(model.pid, 2)
    os.kill(model.pid, 15)
    assert model.run("any", {"x": np.array(1)}, ["x"])["x"] == 1


def test_what_the_model_prints_is_logged_with_its_name(model: ChildModel, caplog: pytest.LogCaptureFixture) -> None:
    seen = threading.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "the end" in record.getMessage():
                seen.set()

    caplog.set_level(logging.INFO, logger="servable.child")
    logger = logging.getLogger("servable.child")
    logger.addHandler(ear := Ear())
    try:
        long = "l" * 20_000
        for text in ("hello\nworld", "gr\u00fc\u00dfe", long, "the end"):
            model.run("print", {"x": np.array(text.encode(), dtype=object)}, ["x"])
        assert seen.wait(10)
    finally:
        logger.removeHandler(ear)
    lines = [record.getMessage() for record in caplog.records]
    for line in ("hello", "world", "grüße", "to stderr"):
        assert f"shared/1: {line}" in lines
    assert "".join(line.removeprefix("shared/1: ") for line in lines).count("l" * 8192) >= 2


def test_options_reach_the_engine(echo_engine: None) -> None:
    lines: list[str] = []
    loaded = load(
        "m/1",
        intra_op_threads=3,
        inter_op_threads=2,
        precision="bf16",
        saved_model_tags=("a", "b"),
        report=lines.append,
    )
    results = loaded.run("options", {}, [])
    loaded.close()
    assert lines == ["half way", "nearly there"]
    assert results["threads"].tolist() == [3, 2]
    assert results["text"].tolist() == [b"bf16", b"a", b"b"]
    assert results["variable"].item() == b"3"  # it was there before anything was imported


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/models/foo/3", "foo/3"),
        ("/models/foo/3/model.savedmodel", "foo/3"),
        ("/models/1/foo", "models/1"),
        ("foo", "foo"),
        ("/a/b/c", "b/c"),
        ("7", "7"),
    ],
)
def test_a_model_is_called_by_its_name_and_version(path: str, label: str) -> None:
    assert label_of(Path(path)) == label


def test_an_unknown_engine_is_named(echo_engine: None) -> None:
    with pytest.raises(ServingError) as caught:
        load_in_child("nothing", Artifact("echo", Path("m/1")), EngineOptions())
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert "'nothing'" in caught.value.message


def test_several_children_compute_at_the_same_time(echo_engine: None) -> None:
    models = [load(f"m/{index}") for index in range(3)]
    wrong: list[int] = []

    def call(index: int) -> None:
        for count in range(200):
            value = np.full((4, 4), 1000 * index + count)
            if not np.array_equal(models[index].run("any", {"x": value}, ["x"])["x"], value):
                wrong.append(index)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({loaded.pid for loaded in models}) == 3
    for loaded in models:
        loaded.close()
    assert not wrong


def test_threads_that_break_the_rule_of_one_at_a_time_get_their_own_answers(model: ChildModel) -> None:
    wrong: list[int] = []

    def call(index: int) -> None:
        answers = [model.run("any", {"x": np.array(index)}, ["x"])["x"] for _ in range(100)]
        wrong.extend(int(answer) for answer in answers if answer != index)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
