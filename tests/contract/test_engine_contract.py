"""One body for all engines: what ``engines/base.py`` promises, on the same models in every format."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.contract import build_python_models
from tests.contract.cases import CASES, TYPES, elements

from servable.core.errors import Code, ServingError
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.core.tensors import DTYPES_BY_NAME, Array
from servable.engines.base import Artifact, EngineOptions, Model, engine_class
from servable.engines.plan import artifact_of_file, choose, load

OPENVINO_TYPES = {"float16", "float32", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"}
EXACT_IN_OPENVINO = 2**24


@dataclass(frozen=True)
class Entrant:
    """An engine with one kind of artifact, and the element types that it holds."""

    engine: str
    kind: str
    types: frozenset[str]

    def __str__(self) -> str:
        return f"{self.engine}-{self.kind}"


ENTRANTS = [
    pytest.param(Entrant("onnxruntime", "onnx", frozenset(TYPES) - {"complex64"}), id="onnxruntime-onnx"),
    pytest.param(Entrant("openvino", "onnx", frozenset(OPENVINO_TYPES)), id="openvino-onnx"),
    pytest.param(Entrant("openvino", "openvino", frozenset(OPENVINO_TYPES)), id="openvino-openvino"),
    pytest.param(Entrant("python", "python", frozenset(build_python_models.TYPES)), id="python-python"),
    pytest.param(
        Entrant("openvino", "saved_model", frozenset(OPENVINO_TYPES)),
        id="openvino-saved_model",
        marks=pytest.mark.tensorflow,
    ),
    pytest.param(
        Entrant("tensorflow", "saved_model", frozenset(TYPES)),
        id="tensorflow-saved_model",
        marks=pytest.mark.tensorflow,
    ),
]


class Bench:
    """Loads models of one entrant; closes them in the end."""

    def __init__(self, entrant: Entrant, folder: Path) -> None:
        self.entrant = entrant
        self.folder = folder
        self._models: dict[str, Model] = {}

    def artifact(self, name: str) -> Artifact:
        return artifact_of_file(self.folder / name / "1")

    def load(self, artifact: Artifact, options: EngineOptions | None = None) -> Model:
        options = replace(options or EngineOptions(), allow_python=True)
        return load(choose(artifact, self.entrant.engine), artifact, options)

    def model(self, name: str) -> Model:
        if name not in self._models:
            self._models[name] = self.load(self.artifact(name))
        return self._models[name]

    def typed(self, type_name: str) -> tuple[Model, str]:
        """Return a model for an element type, and its signature for it."""
        if self.entrant.engine == "tensorflow":
            return self.model("types"), type_name
        return self.model(f"type_{type_name}"), DEFAULT_SIGNATURE

    def close(self) -> None:
        for model in self._models.values():
            model.close()


@pytest.fixture(scope="module", params=ENTRANTS)
def bench(request: pytest.FixtureRequest, contract_models: Callable[[str], Path]) -> Iterator[Bench]:
    entrant: Entrant = request.param
    found = Bench(entrant, contract_models(entrant.kind))
    yield found
    found.close()


def assert_close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= 1e-5 + 1e-4 * np.abs(expected))


@pytest.mark.parametrize("name", CASES)
def test_signatures_are_the_artifacts_own(bench: Bench, name: str) -> None:
    found = bench.model(name).signatures[DEFAULT_SIGNATURE]
    expected = CASES[name].signature
    for given, wanted in ((found.inputs, expected.inputs), (found.outputs, expected.outputs)):
        assert set(given) == set(wanted)
        for alias, spec in wanted.items():
            assert (given[alias].name, given[alias].dtype) == (alias, spec.dtype)
    for alias, spec in expected.inputs.items():
        assert found.inputs[alias].shape == spec.shape
        assert found.inputs[alias].node


@pytest.mark.parametrize("rows", [1, 2, 7, 32])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_what_the_model_means(bench: Bench, name: str, rows: int) -> None:
    case = CASES[name]
    inputs = case.inputs(rows)
    found = bench.model(name).run(DEFAULT_SIGNATURE, inputs, tuple(case.signature.outputs))
    expected = case.outputs(inputs)
    assert list(found) == list(case.signature.outputs)
    for alias, array in expected.items():
        assert found[alias].dtype == case.signature.outputs[alias].dtype.numpy
        assert_close(found[alias], array)


def test_no_rows_give_no_rows(bench: Bench) -> None:
    empty = np.zeros((0, 8), np.float32)
    found = bench.model("perceptron").run(DEFAULT_SIGNATURE, {"x": empty}, ("probabilities",))
    assert found["probabilities"].shape == (0, 4)


@pytest.mark.parametrize("outputs", [("label",), ("probabilities",), ("probabilities", "label")])
def test_only_the_outputs_asked_for_come_in_the_order_asked_for(bench: Bench, outputs: tuple[str, ...]) -> None:
    inputs = CASES["perceptron"].inputs(3)
    found = bench.model("perceptron").run(DEFAULT_SIGNATURE, inputs, outputs)
    assert tuple(found) == outputs
    for alias in outputs:
        assert_close(found[alias], CASES["perceptron"].outputs(inputs)[alias])


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("perceptron", {"x": np.zeros((2, 9), np.float32)}),
        ("perceptron", {"x": np.zeros((2, 3), np.float32)}),
        ("perceptron", {"x": np.zeros(8, np.float32)}),
        ("perceptron", {"x": np.zeros((), np.float32)}),
        ("two_inputs", {"a": np.zeros((2, 3), np.float32), "b": np.zeros((4, 3), np.float32)}),
    ],
    ids=["too wide", "too narrow", "a vector", "a scalar", "rows that differ"],
)
def test_shapes_that_do_not_fit_are_the_clients_fault(bench: Bench, name: str, inputs: dict[str, Array]) -> None:
    case = CASES[name]
    model = bench.model(name)
    with pytest.raises(ServingError) as failure:
        model.run(DEFAULT_SIGNATURE, inputs, tuple(case.signature.outputs))
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert "\n\n" not in failure.value.message
    good = case.inputs(2)
    found = model.run(DEFAULT_SIGNATURE, good, tuple(case.signature.outputs))
    for alias, array in case.outputs(good).items():
        assert_close(found[alias], array)


def test_an_index_beyond_the_table_is_the_clients_fault(bench: Bench) -> None:
    with pytest.raises(ServingError) as failure:
        bench.model("tokens").run(DEFAULT_SIGNATURE, {"ids": np.array([[1, 2, 3, 4, 10]])}, ("mean",))
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert "10" in failure.value.message


def test_precision_and_engine_are_named(bench: Bench) -> None:
    model = bench.model("perceptron")
    assert (model.engine, model.precision) == (bench.entrant.engine, "f32")


@pytest.mark.parametrize("type_name", TYPES)
def test_a_type_is_held_exactly_or_refused_by_name(bench: Bench, type_name: str) -> None:
    if type_name not in bench.entrant.types:
        if (bench.folder / f"type_{type_name}").exists():  # not every type can even be written as an OpenVINO model
            with pytest.raises(ServingError, match=type_name):
                bench.load(bench.artifact(f"type_{type_name}"))
        return
    model, signature = bench.typed(type_name)
    given = elements(type_name)
    if bench.entrant.engine == "openvino" and given.dtype.kind in "iu":
        given = np.clip(given, -EXACT_IN_OPENVINO if given.dtype.kind == "i" else 0, EXACT_IN_OPENVINO)
    if bench.entrant.engine == "onnxruntime" and type_name == "string":
        given = given[:3]  # ONNX strings end at a zero byte
    found = model.run(signature, {"x": given}, ("y",))["y"]
    assert found.dtype == DTYPES_BY_NAME[type_name].numpy
    assert found.shape == (1, len(given))
    assert found[0].tolist() == given.tolist()


def test_arrays_that_are_views_are_taken(bench: Bench) -> None:
    case = CASES["two_inputs"]
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    frozen = np.frombuffer(bytes(wide[:, :3].tobytes()), np.float32).reshape(4, 3)
    inputs: dict[str, Array] = {"a": wide[:, ::2], "b": frozen}
    found = bench.model("two_inputs").run(DEFAULT_SIGNATURE, inputs, tuple(case.signature.outputs))
    for alias, array in case.outputs(inputs).items():
        assert_close(found[alias], array)
    assert np.array_equal(wide, np.arange(24, dtype=np.float32).reshape(4, 6))


def test_an_answer_stays_when_the_next_call_comes(bench: Bench) -> None:
    case = CASES["two_inputs"]
    model = bench.model("two_inputs")
    first = model.run(DEFAULT_SIGNATURE, inputs := case.inputs(3), ("product",))["product"]
    model.run(DEFAULT_SIGNATURE, {"a": np.ones((3, 3), np.float32), "b": np.ones((3, 3), np.float32)}, ("product",))
    assert_close(first, case.outputs(inputs)["product"])


def test_another_thread_than_the_loaders_may_run_it(bench: Bench) -> None:
    case = CASES["perceptron"]
    inputs = case.inputs(4)
    model = bench.model("perceptron")
    found: list[Array] = []
    thread = threading.Thread(
        target=lambda: found.append(model.run(DEFAULT_SIGNATURE, inputs, ("probabilities",))["probabilities"])
    )
    thread.start()
    thread.join()
    assert_close(found[0], case.outputs(inputs)["probabilities"])


def test_the_number_of_threads_changes_no_answer(bench: Bench) -> None:
    case = CASES["perceptron"]
    inputs = case.inputs(32)
    model = bench.load(bench.artifact("perceptron"), EngineOptions(intra_op_threads=3, inter_op_threads=2))
    try:
        found = model.run(DEFAULT_SIGNATURE, inputs, ("probabilities",))["probabilities"]
    finally:
        model.close()
    assert_close(found, case.outputs(inputs)["probabilities"])


def test_closing_twice_is_closing_once_and_afterwards_nothing_runs(bench: Bench) -> None:
    model = bench.load(bench.artifact("scalar"))
    model.close()
    model.close()
    with pytest.raises(ServingError):
        model.run(DEFAULT_SIGNATURE, CASES["scalar"].inputs(1), ("y",))


def test_what_is_whole_is_complete(bench: Bench) -> None:
    for name in CASES:
        assert engine_class(bench.entrant.engine).complete(bench.artifact(name)) is None


def test_what_lost_its_second_half_is_neither_complete_nor_loaded(bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(bench.folder / "perceptron" / "1", tmp_path / "1")
    artifact = artifact_of_file(tmp_path / "1")
    main = artifact.path / "saved_model.pb" if artifact.kind == "saved_model" else artifact.path
    main.write_bytes(main.read_bytes()[: main.stat().st_size // 2])
    assert str(main) in (engine_class(bench.entrant.engine).complete(artifact) or "")
    with pytest.raises(ServingError):
        bench.load(artifact)


def test_a_file_that_left_after_it_was_found_is_not_found(bench: Bench, tmp_path: Path) -> None:
    names = {"onnx": "model.onnx", "openvino": "model.xml", "python": "model.py", "saved_model": "gone"}
    gone = names[bench.entrant.kind]
    artifact = Artifact(bench.entrant.kind, tmp_path / gone)
    assert str(tmp_path / gone) in (engine_class(bench.entrant.engine).complete(artifact) or "")
    with pytest.raises(ServingError) as failure:
        bench.load(artifact)
    assert str(tmp_path / gone) in failure.value.message
