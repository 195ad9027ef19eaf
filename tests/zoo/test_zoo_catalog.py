"""Building the example models as ONNX, and what may happen to the directories they are built into."""

from __future__ import annotations

import functools
import os
import stat
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import FLOAT32, INT64, Array
from servable.zoo import catalog

ORT_TYPES = {"float32": "tensor(float)", "int32": "tensor(int32)", "int64": "tensor(int64)"}
SPREAD = {
    "half_plus_two": 3.0, "lstm_tokens": 0.2, "noop": 0.5, "simple_cnn": 0.5, "text_cnn": 0.2, "text_cnn_small": 0.3,
}  # fmt: skip
"""How far apart at least the highest and lowest of 16 answers lie: a model that answers a constant verifies nothing."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("zoo")
    return {name: catalog.build(name, root) for name in catalog.names(quick=True)}


@functools.cache
def sixteen(name: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return sixteen rows and their right answers; a picture takes a third of a second."""
    inputs = catalog.sample_inputs(name, 16, seed=5)
    return inputs, catalog.reference(name, inputs)


def session(version: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(version / "model.onnx", options)


def answers(version: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    model = session(version)
    outputs = [value.name for value in model.get_outputs()]
    return dict(zip(outputs, model.run(outputs, inputs), strict=True))


@pytest.mark.parametrize("name", catalog.names(quick=True))
def test_onnx_answers_as_the_reference_at_every_batch_size(built: dict[str, Path], name: str) -> None:
    model = session(built[name])
    given, right = sixteen(name)
    for some in (slice(1), slice(1, 3), slice(3, 10), slice(16)):
        inputs = {key: value[some] for key, value in given.items()}
        expected = {key: value[some] for key, value in right.items()}
        rows = len(next(iter(inputs.values())))
        assert list(expected) == [value.name for value in model.get_outputs()]
        for (key, want), got in zip(expected.items(), model.run(list(expected), inputs), strict=True):
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=f"{name}.{key}, {rows} rows")


@pytest.mark.parametrize("name", catalog.names(quick=True))
def test_onnx_has_the_names_types_and_shapes_of_the_catalog(built: dict[str, Path], name: str) -> None:
    model, signature = session(built[name]), catalog.describe(name).signature
    for values, specs in ((model.get_inputs(), signature.inputs), (model.get_outputs(), signature.outputs)):
        assert {value.name: (value.type, tuple(value.shape)) for value in values} == {
            key: (ORT_TYPES[spec.dtype.name], tuple("batch" if size is None else size for size in spec.shape or ()))
            for key, spec in specs.items()
        }


@pytest.mark.parametrize("name", catalog.names(quick=True))
def test_answers_follow_the_input_and_do_not_saturate(name: str) -> None:
    outputs = sixteen(name)[1]
    scores = next(value for key, value in outputs.items() if key != "labels")
    assert float(np.ptp(scores, axis=0).min()) > SPREAD[name]
    if "probs" in outputs:
        np.testing.assert_allclose(scores.sum(axis=1), 1.0, rtol=1e-6)
        assert float(np.median(scores.max(axis=1))) < 0.95


def test_reference_answers_each_row_alone_as_in_a_large_batch() -> None:
    inputs = catalog.sample_inputs("text_cnn_small", 70, seed=2)
    together = catalog.reference("text_cnn_small", inputs)["probs"]
    alone = catalog.reference("text_cnn_small", {"tokens": inputs["tokens"][69:]})["probs"]
    assert together.shape == (70, 2)
    np.testing.assert_array_equal(together[69:], alone)


def test_reference_takes_an_empty_batch() -> None:
    assert catalog.reference("text_cnn", catalog.sample_inputs("text_cnn", 0, seed=1))["probs"].shape == (0, 3)


def test_text_cnn_keeps_the_contract_of_its_users() -> None:
    signature = catalog.describe("text_cnn").signature
    assert {key: (spec.dtype, spec.shape) for key, spec in signature.inputs.items()} == dict.fromkeys(
        ("input_ids", "e1_mas", "e2_mas"), (INT64, (None, 500))
    )
    assert {key: (spec.dtype, spec.shape) for key, spec in signature.outputs.items()} == {
        "labels": (INT64, (None,)),
        "probs": (FLOAT32, (None, 3)),
    }
    inputs = catalog.sample_inputs("text_cnn", 16, seed=3)
    assert inputs["input_ids"].min() >= 1
    assert inputs["input_ids"].max() < 200
    assert set(np.unique(inputs["e1_mas"])) == {0, 1}
    outputs = catalog.reference("text_cnn", inputs)
    np.testing.assert_array_equal(outputs["labels"], outputs["probs"].argmax(axis=1))
    assert len(np.unique(outputs["labels"])) > 1


def test_half_plus_two_is_what_its_name_says(built: dict[str, Path]) -> None:
    x = np.array([[1.0], [2.0], [-4.0]], dtype=np.float32)
    np.testing.assert_array_equal(answers(built["half_plus_two"], {"x": x})["y"], [[2.5], [3.0], [0.0]])


@pytest.mark.parametrize("name", ["lstm_tokens", "noop", "text_cnn"])
def test_a_seed_decides_every_byte(built: dict[str, Path], tmp_path: Path, name: str) -> None:
    same = catalog.build(name, tmp_path)
    assert (same / "model.onnx").read_bytes() == (built[name] / "model.onnx").read_bytes()
    other = catalog.build(name, tmp_path, version=2, seed=2)
    inputs = catalog.sample_inputs(name, 4, seed=1)
    key = next(key for key in catalog.describe(name).signature.outputs if key != "labels")
    assert float(np.abs(answers(other, inputs)[key] - answers(same, inputs)[key]).max()) > 1e-2
    np.testing.assert_allclose(
        answers(other, inputs)[key], catalog.reference(name, inputs, seed=2)[key], rtol=1e-4, atol=1e-5
    )


def test_the_reference_wants_as_many_rows_of_every_input() -> None:
    inputs = catalog.sample_inputs("text_cnn", 3, seed=1)
    with pytest.raises(ServingError, match=r"input_ids is int64\[2, 500\].*as many rows"):
        catalog.reference("text_cnn", inputs | {"input_ids": inputs["input_ids"][:2]})


def test_samples_repeat_by_seed() -> None:
    first, again, other = (catalog.sample_inputs("text_cnn", 3, seed)["input_ids"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_version_is_written_under_the_name_that_was_asked(tmp_path: Path) -> None:
    version = catalog.build("text_cnn", tmp_path, version=12, model_name="test_model_1")
    assert version == tmp_path / "test_model_1" / "12"
    assert [path.name for path in version.iterdir()] == ["model.onnx"]
    assert [path.name for path in version.parent.iterdir()] == ["12"], "nothing is left over beside the version"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(version.stat().st_mode) == 0o777 & ~umask, "a server of another user can read it"


def test_a_version_that_exists_is_replaced_only_on_request(tmp_path: Path) -> None:
    version = catalog.build("noop", tmp_path)
    before = (version / "model.onnx").read_bytes()
    (version / "labels.txt").write_text("mine")
    with pytest.raises(ServingError) as caught:
        catalog.build("noop", tmp_path, seed=2)
    assert caught.value.code is Code.ALREADY_EXISTS
    assert str(version) in caught.value.message
    assert (version / "model.onnx").read_bytes() == before
    catalog.build("noop", tmp_path, seed=2, overwrite=True)
    assert (version / "model.onnx").read_bytes() != before
    assert [path.name for path in version.iterdir()] == ["model.onnx"]
    assert [path.name for path in version.parent.iterdir()] == ["1"]


def test_a_failed_build_leaves_the_old_version_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = catalog.build("noop", tmp_path)
    before = (version / "model.onnx").read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(ServingError, match="No space left on device") as caught:
            catalog.build("noop", tmp_path, seed=2, overwrite=True)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert (version / "model.onnx").read_bytes() == before
    assert [path.name for path in version.parent.iterdir()] == ["1"]


def test_the_old_version_returns_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = catalog.build("noop", tmp_path)
    before = (version / "model.onnx").read_bytes()
    rename = Path.rename

    def stuck(path: Path, target: Path) -> Path:
        if (path / "model.onnx").is_file() and (path / "model.onnx").read_bytes() != before:
            raise OSError(1, "Operation not permitted")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stuck)
        with pytest.raises(ServingError, match="not permitted"):
            catalog.build("noop", tmp_path, seed=2, overwrite=True)
    assert (version / "model.onnx").read_bytes() == before
    assert [path.name for path in version.parent.iterdir()] == ["1"]


def test_graphs_are_checked_and_carry_one_batch_dimension(built: dict[str, Path]) -> None:
    for name, version in built.items():
        model = onnx.load(version / "model.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)], name
        batch = {value.type.tensor_type.shape.dim[0].dim_param for value in (*model.graph.input, *model.graph.output)}
        assert batch == {"batch"}, name


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"kind": "tflite"}, "onnx or saved_model"),
        ({"version": -1}, "from 0 up"),
        ({"model_name": "../escape"}, "plain directory name"),
        ({"model_name": ""}, "plain directory name"),
        ({"model_name": ".."}, "plain directory name"),
    ],
)
def test_a_bad_target_is_named_and_nothing_is_written(tmp_path: Path, arguments: dict[str, object], part: str) -> None:
    with pytest.raises(ServingError, match=part) as caught:
        catalog.build("noop", tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="text_cnn_small") as caught:
        catalog.build("resnet", tmp_path)
    assert caught.value.code is Code.NOT_FOUND


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "noop").write_text("a file")
    with pytest.raises(ServingError, match="noop") as caught:
        catalog.build("noop", tmp_path)
    assert caught.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ({}, "takes the inputs tokens, not none"),
        ({"x": np.zeros((1, 50), np.int32)}, "not x"),
        ({"tokens": np.zeros((1, 50), np.int64)}, r"int64\[1, 50\], expected int32\[\?,50\]"),
        ({"tokens": np.zeros((1, 49), np.int32)}, r"int32\[1, 49\]"),
        ({"tokens": np.array(3, np.int32)}, r"int32\[\]"),
        ({"tokens": np.full((1, 50), 20_000, np.int32)}, "vocabulary"),
        ({"tokens": np.full((1, 50), -1, np.int32)}, "vocabulary"),
    ],
)
def test_the_reference_says_what_is_wrong_with_an_input(inputs: dict[str, Array], part: str) -> None:
    with pytest.raises(ServingError, match=part) as caught:
        catalog.reference("text_cnn_small", inputs)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("kind", "library", "extra"),
    [("onnx", "onnx", r"servable\[zoo\]"), ("saved_model", "tensorflow", r"servable\[tensorflow\]")],
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ServingError, match=extra) as caught:
        catalog.build("noop", tmp_path, kind=kind)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert not list(tmp_path.iterdir())
