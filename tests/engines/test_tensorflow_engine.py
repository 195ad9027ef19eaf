"""The TensorFlow engine, in its child process, against what TensorFlow itself answers in another."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from servable.core.errors import Code, ServingError
from servable.core.signatures import Signature
from servable.core.tensors import ALL_DTYPES, STRING, Array, DType
from servable.engines import base
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.child import load_in_child
from servable.engines.child_model import ChildModel
from servable.engines.tensorflow import TensorFlowEngine, TensorFlowModel
from servable.protos import tensorflow

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved_models")
    builder = Path(__file__).parent / "build_saved_models.py"
    built = subprocess.run([sys.executable, builder, folder], check=False, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def answers(saved_models: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found: tuple[dict[str, Any], dict[str, Any]] = pickle.loads((saved_models / "expected.pickle").read_bytes())
    return found


@pytest.fixture(scope="module")
def many(saved_models: Path) -> Iterator[Model]:
    model = load(saved_models / "many" / "1")
    yield model
    model.close()


@pytest.fixture(scope="module")
def old(saved_models: Path) -> Iterator[Model]:
    model = load(saved_models / "old" / "1")
    yield model
    model.close()


def load(path: Path, **options: Any) -> ChildModel:
    model = load_in_child("tensorflow", Artifact("saved_model", path), EngineOptions(**options))
    assert isinstance(model, ChildModel)
    return model


def refusal(model: Model, signature: str, inputs: dict[str, Array], outputs: list[str]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        model.run(signature, inputs, outputs)
    return caught.value


def assert_equal(got: Array, expected: Any) -> None:
    expected = np.asarray(expected, dtype=object if isinstance(expected, bytes) else None)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    else:
        assert got.tolist() == expected.tolist()


def assert_answers(model: Model, answers: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    inputs, expected = answers[0][name], answers[1][name]
    got = model.run(name, inputs, list(expected))
    assert list(got) == list(expected)
    for output, value in expected.items():
        assert_equal(got[output], value)


@pytest.mark.parametrize("name", ["half_plus_two", "mixed", "loop"])
def test_answers_are_tensorflows_own(many: Model, answers: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    assert_answers(many, answers, name)


def test_tensorflows_pool_for_operations_gives_the_same_answers(
    saved_models: Path, answers: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    model = load(saved_models / "many" / "1", intra_op_threads=2, inter_op_threads=2)
    assert_answers(model, answers, "loop")
    assert_answers(model, answers, "mixed")
    model.close()


@pytest.mark.parametrize("shape", [(1,), (), (2,), (1, 2), (0, 1), (2, 1, 3)])
def test_shapes_are_the_operations_business(many: Model, shape: tuple[int, ...]) -> None:
    y = many.run("half_plus_two", {"x": np.full(shape, 4, np.float32)}, ["y"])["y"]
    assert y.shape == shape
    assert np.all(y == 4.0)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_every_type_goes_in_and_out(many: Model, dtype: DType) -> None:
    inputs = {name: np.zeros((), spec.dtype.numpy) for name, spec in many.signatures["types"].inputs.items()}
    inputs["string"] = np.array(b"", dtype=object)
    assert many.signatures["types"].inputs[dtype.name].dtype == dtype
    for shape in ((), (3,), (2, 3), (0, 2)):
        value = (np.arange(int(np.prod(shape))) % 3).reshape(shape)
        inputs[dtype.name] = (
            value.astype(str).astype("S").astype(object) if dtype is STRING else value.astype(dtype.numpy)
        )
        result = many.run("types", inputs, [f"{dtype}_out"])[f"{dtype}_out"]
        assert_equal(result, inputs[dtype.name])


def test_signatures_are_listed_with_their_nodes(many: Model) -> None:
    assert {"half_plus_two", "mixed", "keep", "loop", "types", "__saved_model_init_op"} <= set(many.signatures)
    mixed = many.signatures["mixed"]
    assert str(mixed).startswith("mixed(a: int32[...], m: string[?], z: float32[?,3]) -> ")
    assert mixed.inputs["a"].node == "mixed_a:0"


def test_what_is_fed_and_kept_does_not_change_with_the_next_call(many: Model) -> None:
    for fed in (1.0, 2.0, 3.0):
        before = many.run("keep", {"x": np.full(64, fed, np.float32)}, ["before"])["before"]
        assert set(before.tolist()) == {fed - 1.0}


def test_an_operations_error_keeps_tensorflows_text_and_code(many: Model) -> None:
    inputs = {"z": np.zeros((2, 4), np.float32), "a": np.array(1, np.int32), "m": np.array([b"a"], dtype=object)}
    error = refusal(many, "mixed", inputs, ["product"])
    assert error.code is Code.INVALID_ARGUMENT
    text, *nodes = error.message.split("\n")
    assert text.endswith("Matrix size-incompatible: In[0]: [2,4], In[1]: [3,2]")
    assert nodes[0].startswith("\t [[{{node ")
    assert "Original stack trace" not in error.message
    inputs["z"] = np.zeros((2, 3), np.float32)
    assert many.run("mixed", inputs, ["product"])["product"].shape == (2, 2)


def test_a_wrong_type_is_tensorflows_error_too(many: Model) -> None:
    error = refusal(many, "half_plus_two", {"x": np.zeros((1, 1))}, ["y"])
    assert error.code is Code.INVALID_ARGUMENT
    assert "double" in error.message
    assert "float" in error.message


def test_the_initializer_is_listed_but_cannot_be_called(many: Model) -> None:
    error = refusal(many, "__saved_model_init_op", {}, ["__saved_model_init_op"])
    assert error.code is Code.INVALID_ARGUMENT
    assert "cannot be called" in error.message


def test_only_what_is_asked_for_is_computed(old: Model) -> None:
    x = {"x": np.array([1.0, 2.0], np.float32)}
    assert old.run("serving_default", x, ["good"])["good"].tolist() == [3.0, 6.0]
    error = refusal(old, "serving_default", x, ["bad"])
    assert error.code is Code.INVALID_ARGUMENT
    assert "x is not small enough" in error.message
    assert list(old.run("serving_default", {"x": -x["x"]}, ["bad", "good"])) == ["bad", "good"]


def test_an_output_that_is_an_input_is_refused_as_tensorflow_does(old: Model) -> None:
    error = refusal(old, "serving_default", {"x": np.zeros(1, np.float32)}, ["itself"])
    assert error.code is Code.INVALID_ARGUMENT
    assert "fed and fetched" in error.message


def test_the_callables_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import servable.engines.tensorflow as module

    made: list[tuple[str, ...]] = []

    def new_call(_model: TensorFlowModel, _signature: object, outputs: tuple[str, ...]) -> object:
        made.append(outputs)
        return lambda: [np.zeros(1) for _ in outputs]

    class NoSession:
        def close(self) -> None:
            pass

    monkeypatch.setattr(module, "_CALLABLES_KEPT", 2)
    monkeypatch.setattr(TensorFlowModel, "_new_call", new_call)
    signature = Signature("s", {}, {})
    model = TensorFlowModel(NoSession(), {"s": signature}, pooled=False)
    for outputs in (["a"], ["b"], ["a"], ["c"], ["a"], ["b"]):
        model.run("s", {}, outputs)
    assert made == [("a",), ("b",), ("c",), ("b",)]
    model.close()


@pytest.fixture
def copy(saved_models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_models / "old" / "1", tmp_path / "broken" / "1"))


def load_refusal(path: Path, **options: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        load(path, **options)
    return caught.value


def test_an_operation_that_this_tensorflow_lacks_is_named(copy: Path) -> None:
    saved_model = tensorflow.SavedModel.FromString((copy / "saved_model.pb").read_bytes())
    for node in saved_model.meta_graphs[0].graph_def.node:
        if node.name == "good":
            node.op = "NoSuchOperation"
    (copy / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    error = load_refusal(copy)
    assert "NoSuchOperation" in error.message
    assert error.code in {Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT}


def test_damaged_variables_are_found_by_their_checksum(copy: Path) -> None:
    shard = copy / "variables" / "variables.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[0] ^= 0xFF
    shard.write_bytes(data)
    assert TensorFlowEngine.complete(Artifact("saved_model", copy)) is None  # the length is right
    error = load_refusal(copy)
    assert error.code is Code.DATA_LOSS
    assert "hecksum" in error.message
    assert not error.message.startswith("Graph execution error")


def test_files_that_are_not_all_there(copy: Path) -> None:
    assert TensorFlowEngine.complete(Artifact("saved_model", copy)) is None
    (copy / "variables" / "variables.data-00000-of-00001").unlink()
    missing = TensorFlowEngine.complete(Artifact("saved_model", copy))
    assert missing is not None
    assert "variables.data-00000-of-00001" in missing
    assert load_refusal(copy).code in {Code.NOT_FOUND, Code.DATA_LOSS}


def test_tags_that_no_graph_has(copy: Path) -> None:
    error = load_refusal(copy, saved_model_tags=("serve", "gpu"))
    assert error.code is Code.NOT_FOUND
    assert error.message.startswith("Could not find meta graph def matching supplied tags: { gpu serve }")


def test_a_precision_that_tensorflow_does_not_choose(copy: Path) -> None:
    assert load_refusal(copy, precision="bf16").code is Code.UNIMPLEMENTED


def test_a_closed_models_memory_returns_and_tensorflow_stays_out_of_this_process(saved_models: Path) -> None:
    process = psutil.Process()
    modules, environment = set(sys.modules), dict(os.environ)
    children = {child.pid for child in process.children(recursive=True)}
    before = process.memory_info().rss
    model = load(saved_models / "many" / "1")
    model.run("half_plus_two", {"x": np.ones((1000, 1), np.float32)}, ["y"])
    held = psutil.Process(model.pid).memory_info().rss
    model.close()
    assert {child.pid for child in process.children(recursive=True)} <= children
    assert process.memory_info().rss - before < 0.1 * held
    assert not {name for name in set(sys.modules) - modules if name.startswith("tensorflow")}
    assert dict(os.environ) == environment


def test_the_table_finds_the_engine() -> None:
    assert base.engine_class("tensorflow") is TensorFlowEngine
    assert TensorFlowEngine.isolated
