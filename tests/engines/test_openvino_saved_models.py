"""SavedModels in OpenVINO: TensorFlow's own answers, or a refusal that names what is in the way."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.engines import savedmodel
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.openvino import OpenVinoEngine

pytestmark = pytest.mark.tensorflow

Answer = tuple[dict[str, Array], dict[str, Array] | None]

HELD = [
    ("half_plus_two", "serving_default"), ("three", "dense"), ("three", "scale"), ("three", "both"),
    ("unknown_rank", "serving_default"), ("scalar", "serving_default"), ("same_names", "serving_default"),
    ("same_tensor", "serving_default"), ("unused_input", "serving_default"), ("shape_of", "serving_default"),
    ("shards", "serving_default"), ("control", "serving_default"), ("recurrent", "serving_default"),
    ("image", "serving_default"), ("tokens", "serving_default"), ("flags", "serving_default"),
    ("int32", "serving_default"),
]  # fmt: skip

REFUSED = {
    "float64": "its input 'x' is float64",
    "float64_inside": r"operation \w+ \(node .*\) on float64",
    "uint64": "its input 'x' is uint64",
    "complex64": "its input 'x' is complex64",
    "float16": r"operation AddV2 \(node .*\) computes float16",
    "uint8": r"operation AddV2 \(node .*\) computes uint8",
    "int64_sum": r"operation AddV2 \(node .*\) on int64",
    "int64_product": r"operation Mul \(node .*\) on int64",
    "int64_cast": r"operation Cast \(node .*\) from float32 to int64",
    "int64_variable": "variable .* is int64",
    "int64_constant": "the constant .* holds 1125899906842624",
    "division": r"operation FloorDiv \(node .*\): it does not refuse to divide by zero",
    "string": "its input 's' is string",
    "string_inside": "operation AsString, StringLength",
    "jpeg": "its input 's' is string",
    "parse": "its input 's' is string",
    "table": "its input 's' is string",
    "random": "operation RandomUniform",
    "counter": "operation AssignAddVariableOp",
    "unique": "operation Unique",
    "scatter": "operation ScatterNd",
    "assert": "operation Assert",
    "digamma": "operation Digamma",
    "constant_output": "it drops the output 'y'",
    "sliced": "operation VarHandleOp: its variables are stored in slices",
}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino_cases")
    builder = Path(__file__).with_name("build_openvino_cases.py")
    done = subprocess.run([sys.executable, builder, folder], check=False, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def answers(built: Path) -> dict[tuple[str, str], list[Answer]]:
    found: dict[tuple[str, str], list[Answer]] = pickle.loads((built / "expected.pickle").read_bytes())
    return found


@pytest.fixture(scope="session")
def loaded(built: Path) -> dict[str, Model]:
    return {name: load(built / name / "1") for name in {name for name, _ in HELD}}


def load(folder: Path, **options: object) -> Model:
    return OpenVinoEngine().load(Artifact("saved_model", folder), EngineOptions(**options))  # type: ignore[arg-type]


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        if array.dtype.kind == "f":
            assert np.all(np.abs(found[name] - array) <= 1e-5 + 1e-4 * np.abs(array))
        else:
            assert np.array_equal(found[name], array)


@pytest.mark.parametrize(("name", "signature"), HELD)
def test_it_answers_what_tensorflow_answers_and_refuses_what_it_refuses(
    loaded: dict[str, Model], answers: dict[tuple[str, str], list[Answer]], name: str, signature: str
) -> None:
    model = loaded[name]
    assert answers[name, signature]
    for inputs, expected in answers[name, signature]:
        outputs = tuple(model.signatures[signature].outputs)
        if expected is not None:
            assert_same(model.run(signature, inputs, outputs), expected)
            continue
        with pytest.raises(ServingError, match="do not fit; expected") as failure:
            model.run(signature, inputs, outputs)
        assert failure.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_it_cannot_hold_is_refused_by_name_with_what_would_help(built: Path, name: str, reason: str) -> None:
    with pytest.raises(
        ServingError, match=rf"signature 'serving_default' of .*{name}.* exactly: .*{reason}"
    ) as failure:
        load(built / name / "1")
    assert failure.value.code is Code.UNIMPLEMENTED
    assert "pip install 'servable[tensorflow]'" in failure.value.message


def test_a_signature_that_gives_no_tensor_is_listed_and_cannot_be_called(loaded: dict[str, Model]) -> None:
    model = loaded["three"]
    assert list(model.signatures) == ["__saved_model_init_op", "both", "dense", "scale"]
    with pytest.raises(ServingError, match="cannot be called: it gives no tensor") as failure:
        model.run("__saved_model_init_op", {}, ("__saved_model_init_op",))
    assert failure.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("ids", [[[0, 1, 2, 10]], [[-11, 0, 0, 0]]])
def test_ids_outside_of_the_table_are_refused_and_not_answered_with_zeros(
    loaded: dict[str, Model], ids: list[list[int]]
) -> None:
    with pytest.raises(ServingError, match=r"input 'ids' holds (10|-11): it is not in \[") as failure:
        loaded["tokens"].run("serving_default", {"ids": np.array(ids)}, ("mean",))
    assert failure.value.code is Code.INVALID_ARGUMENT


def test_negative_ids_are_taken_where_the_graph_wraps_them(loaded: dict[str, Model]) -> None:
    run = loaded["tokens"].run
    wrapped = run("serving_default", {"ids": np.array([[-1, -10, 3, 4]])}, ("mean",))["mean"]
    assert np.array_equal(wrapped, run("serving_default", {"ids": np.array([[9, 0, 3, 4]])}, ("mean",))["mean"])


def test_integers_too_large_to_be_exact_are_refused(loaded: dict[str, Model]) -> None:
    with pytest.raises(ServingError, match="input 'x' holds 16777217: OpenVINO holds integers exactly up to 16777216"):
        loaded["int32"].run("serving_default", {"x": np.array([2**24 + 1], np.int32)}, ("y",))


def test_several_shards_are_really_several(built: Path) -> None:
    assert len(list((built / "shards" / "1" / "variables").glob("variables.data-*"))) > 1
    for name in {name for name, _ in HELD} | set(REFUSED):
        assert savedmodel.missing(built / name / "1") is None


def test_many_ranks_are_compiled_in_turn_and_stay_right(loaded: dict[str, Model]) -> None:
    model = loaded["unknown_rank"]
    for _ in range(2):
        for rank in range(7):
            for width in (1, 2):
                x = np.full((width,) * rank, 3, np.float32)
                assert np.array_equal(model.run("serving_default", {"x": x}, ("y",))["y"], x * 2 + 1)


def test_the_copy_that_it_reads_is_gone_afterwards(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = load(built / "three" / "1")
    model.run("scale", {"v": np.ones((2, 7), np.float32)}, ("y",))
    assert list(tmp_path.iterdir()) == []


def test_the_artifact_may_go_but_not_change_under_a_loaded_model(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "half_plus_two" / "1", tmp_path / "1")
    model = load(tmp_path / "1")
    (tmp_path / "1" / "saved_model.pb").write_bytes((built / "scalar" / "1" / "saved_model.pb").read_bytes())
    assert model.run("serving_default", {"x": np.ones((2, 1), np.float32)}, ("y",))["y"].tolist() == [[2.5], [2.5]]
    with pytest.raises(ServingError, match="is no longer what was loaded") as failure:
        model.run("serving_default", {"x": np.ones(2, np.float32)}, ("y",))
    assert failure.value.code is Code.INVALID_ARGUMENT


def test_tags_that_are_not_there_are_not_found(built: Path) -> None:
    with pytest.raises(ServingError, match=r"matching supplied tags: \{ gpu serve \}") as failure:
        load(built / "scalar" / "1", saved_model_tags=("serve", "gpu"))
    assert failure.value.code is Code.NOT_FOUND
