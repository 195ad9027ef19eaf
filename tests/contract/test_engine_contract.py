"""One body for all engines: what ``engines/base.py`` promises, on the same models in every format."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.mark.structures import ParameterSet
from tests.contract import build_python_models
from tests.contract.cases import CASES, TFLITE_TYPES, TORCH_EXPORT_CASES, TORCH_TYPES, TYPES, elements

from servable.core.errors import Code, ServingError
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.core.tensors import DTYPES_BY_NAME, Array
from servable.engines.artifact import FILES
from servable.engines.base import Artifact, EngineOptions, Model, engine_class
from servable.engines.plan import artifact_of_file, choose, load

OPENVINO_TYPES = {"float16", "float32", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"}
EXACT_IN_OPENVINO = 2**24


@dataclass(frozen=True)
class Entrant:
    """An engine with one kind of artifact, and the element types that it holds.

    ``together``: one artifact, ``all``, has a signature for each case and type. ``cases`` are those that are built.
    """

    engine: str
    kind: str
    types: frozenset[str]
    together: bool = False
    cases: tuple[str, ...] = tuple(CASES)

    def __str__(self) -> str:
        return f"{self.engine}-{self.kind}"


def entrant(engine: str, kind: str, types: Iterable[str], *needs: str, **rest: Any) -> ParameterSet:
    """Return a parameter that is skipped where a package is not installed that it needs."""
    lacking = [name for name in needs if importlib.util.find_spec(name) is None]
    marks = [pytest.mark.skip(reason=f"{name} is not installed") for name in lacking]
    if "tensorflow" in needs:
        marks.append(pytest.mark.tensorflow)
    return pytest.param(Entrant(engine, kind, frozenset(types), **rest), id=f"{engine}-{kind}", marks=marks)


ENTRANTS = [
    entrant("onnxruntime", "onnx", set(TYPES) - {"complex64"}),
    entrant("openvino", "onnx", OPENVINO_TYPES),
    entrant("openvino", "openvino", OPENVINO_TYPES),
    entrant("python", "python", build_python_models.TYPES),
    entrant("openvino", "saved_model", OPENVINO_TYPES, "tensorflow"),
    entrant("tensorflow", "saved_model", TYPES, "tensorflow", together=True),
    entrant("tensorflow", "graph_def", TYPES, "tensorflow", together=True),
    entrant("litert", "tflite", TFLITE_TYPES, "tensorflow", "ai_edge_litert", together=True),
    entrant("torch", "torch_export", (), "torch", cases=TORCH_EXPORT_CASES),
    entrant("torch", "torchscript", TORCH_TYPES, "torch", together=True),
]


class Bench:
    """Loads models of one entrant; closes them in the end."""

    def __init__(self, entrant: Entrant, folder: Path) -> None:
        self.entrant = entrant
        self.folder = folder
        self._models: dict[str, Model] = {}

    def artifact(self, name: str) -> Artifact:
        return artifact_of_file(self.folder / ("all" if self.entrant.together else name) / "1")

    def load(self, artifact: Artifact, options: EngineOptions | None = None) -> Model:
        options = replace(options or EngineOptions(), allow_python=True)
        return load(choose(artifact, self.entrant.engine), artifact, options)

    def model(self, name: str) -> Model:
        if name in CASES and name not in self.entrant.cases:
            pytest.skip(
                "each program of torch.export is a process that takes seconds to load; TorchScript has the case"
            )
        name = "all" if self.entrant.together else name
        if name not in self._models:
            self._models[name] = self.load(self.artifact(name))
        return self._models[name]

    def called(self, name: str) -> str:
        """Return the name of a case's signature."""
        return name if self.entrant.together else DEFAULT_SIGNATURE

    def run(self, name: str, inputs: dict[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Compute a case; all of its outputs, if none are named."""
        wanted = tuple(CASES[name].signature.outputs) if outputs is None else outputs
        return self.model(name).run(self.called(name), inputs, wanted)

    def run_type(self, type_name: str, inputs: dict[str, Array]) -> Array:
        name = type_name if self.entrant.together else f"type_{type_name}"
        return self.model(name).run(self.called(name), inputs, ("y",))["y"]

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
    found = bench.model(name).signatures[bench.called(name)]
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
    found = bench.run(name, inputs)
    expected = case.outputs(inputs)
    assert list(found) == list(case.signature.outputs)
    for alias, array in expected.items():
        assert found[alias].dtype == case.signature.outputs[alias].dtype.numpy
        assert_close(found[alias], array)


def test_no_rows_give_no_rows(bench: Bench) -> None:
    empty = np.zeros((0, 8), np.float32)
    found = bench.run("perceptron", {"x": empty}, ("probabilities",))
    assert found["probabilities"].shape == (0, 4)


@pytest.mark.parametrize("outputs", [("label",), ("probabilities",), ("probabilities", "label")])
def test_only_the_outputs_asked_for_come_in_the_order_asked_for(bench: Bench, outputs: tuple[str, ...]) -> None:
    inputs = CASES["perceptron"].inputs(3)
    found = bench.run("perceptron", inputs, outputs)
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
    with pytest.raises(ServingError) as failure:
        bench.run(name, inputs)
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert "\n\n" not in failure.value.message
    good = case.inputs(2)
    found = bench.run(name, good)
    for alias, array in case.outputs(good).items():
        assert_close(found[alias], array)


def test_an_index_beyond_the_table_is_the_clients_fault(bench: Bench) -> None:
    with pytest.raises(ServingError) as failure:
        bench.run("tokens", {"ids": np.array([[1, 2, 3, 4, 10]])})
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
    given = elements(type_name)
    if bench.entrant.engine == "openvino" and given.dtype.kind in "iu":
        given = np.clip(given, -EXACT_IN_OPENVINO if given.dtype.kind == "i" else 0, EXACT_IN_OPENVINO)
    if bench.entrant.engine == "onnxruntime" and type_name == "string":
        given = given[:3]  # ONNX strings end at a zero byte
    found = bench.run_type(type_name, {"x": given})
    assert found.dtype == DTYPES_BY_NAME[type_name].numpy
    assert found.shape == (1, len(given))
    assert found[0].tolist() == given.tolist()


def test_arrays_that_are_views_are_taken(bench: Bench) -> None:
    case = CASES["two_inputs"]
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    frozen = np.frombuffer(bytes(wide[:, :3].tobytes()), np.float32).reshape(4, 3)
    inputs: dict[str, Array] = {"a": wide[:, ::2], "b": frozen}
    found = bench.run("two_inputs", inputs)
    for alias, array in case.outputs(inputs).items():
        assert_close(found[alias], array)
    assert np.array_equal(wide, np.arange(24, dtype=np.float32).reshape(4, 6))


def test_an_answer_stays_when_the_next_call_comes(bench: Bench) -> None:
    case = CASES["two_inputs"]
    first = bench.run("two_inputs", inputs := case.inputs(3), ("product",))["product"]
    bench.run("two_inputs", {"a": np.ones((3, 3), np.float32), "b": np.ones((3, 3), np.float32)}, ("product",))
    assert_close(first, case.outputs(inputs)["product"])


def test_another_thread_than_the_loaders_may_run_it(bench: Bench) -> None:
    case = CASES["perceptron"]
    inputs = case.inputs(4)
    bench.model("perceptron")
    found: list[Array] = []
    thread = threading.Thread(
        target=lambda: found.append(bench.run("perceptron", inputs, ("probabilities",))["probabilities"])
    )
    thread.start()
    thread.join()
    assert_close(found[0], case.outputs(inputs)["probabilities"])


def test_threads_change_no_answer_and_after_closing_nothing_runs(bench: Bench) -> None:
    case = CASES["perceptron"]
    inputs = case.inputs(32)
    model = bench.load(bench.artifact("perceptron"), EngineOptions(intra_op_threads=3, inter_op_threads=2))
    try:
        found = model.run(bench.called("perceptron"), inputs, ("probabilities",))["probabilities"]
    finally:
        model.close()
    assert_close(found, case.outputs(inputs)["probabilities"])
    model.close()
    with pytest.raises(ServingError):
        model.run(bench.called("perceptron"), inputs, ("probabilities",))


def test_what_is_whole_is_complete(bench: Bench) -> None:
    for name in bench.entrant.cases:
        assert engine_class(bench.entrant.engine).complete(bench.artifact(name)) is None


def test_what_lost_its_second_half_is_neither_complete_nor_loaded(bench: Bench, tmp_path: Path) -> None:
    whole = bench.artifact("perceptron").path
    shutil.copytree(whole if whole.is_dir() else whole.parent, tmp_path / "1")
    artifact = artifact_of_file(tmp_path / "1")
    main = artifact.path / "saved_model.pb" if artifact.kind == "saved_model" else artifact.path
    main.write_bytes(main.read_bytes()[: main.stat().st_size // 2])
    assert str(main) in (engine_class(bench.entrant.engine).complete(artifact) or "")
    with pytest.raises(ServingError):
        bench.load(artifact)


def test_a_file_that_left_after_it_was_found_is_not_found(bench: Bench, tmp_path: Path) -> None:
    gone = next((name for name, kind in FILES.items() if kind == bench.entrant.kind), "gone")
    artifact = Artifact(bench.entrant.kind, tmp_path / gone)
    assert str(tmp_path / gone) in (engine_class(bench.entrant.engine).complete(artifact) or "")
    with pytest.raises(ServingError) as failure:
        bench.load(artifact)
    assert str(tmp_path / gone) in failure.value.message
