"""Which file of a version is the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from servable.core.errors import Code, ServingError
from servable.engines.artifact import artifact_of_file, find_artifact
from servable.engines.base import Artifact

BY_PRECEDENCE = [
    "saved_model.pb", "model.savedmodel/saved_model.pb", "model.onnx", "model.xml", "model.tflite", "model.pt2",
    "model.pt", "graph.pb", "graph.pbtxt", "model.py",
]  # fmt: skip


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("first", "kind", "main"),
    [
        (0, "saved_model", "."),
        (1, "saved_model", "model.savedmodel"),
        (2, "onnx", "model.onnx"),
        (3, "openvino", "model.xml"),
        (4, "tflite", "model.tflite"),
        (5, "torch_export", "model.pt2"),
        (6, "torchscript", "model.pt"),
        (7, "graph_def", "graph.pb"),
        (8, "graph_def", "graph.pbtxt"),
        (9, "python", "model.py"),
    ],
)
def test_the_first_by_precedence_is_the_artifact(tmp_path: Path, first: int, kind: str, main: str) -> None:
    put(tmp_path, *BY_PRECEDENCE[first:], "model.bin", "labels.txt")
    assert find_artifact(tmp_path) == Artifact(kind, tmp_path / main)


@pytest.mark.rule("savedmodel-1")
def test_nothing_there_says_what_was_looked_for_as_tensorflow_does(tmp_path: Path) -> None:
    with pytest.raises(ServingError) as failure:
        find_artifact(tmp_path)
    assert failure.value.code is Code.NOT_FOUND
    prefix = "Could not find SavedModel .pb or .pbtxt at supplied export directory path: "
    assert failure.value.message.startswith(f"{prefix}{tmp_path}")
    assert "model.onnx" in failure.value.message


@pytest.mark.rule("savedmodel-2")
def test_a_saved_model_as_text_is_refused_by_name(tmp_path: Path) -> None:
    name = "saved_model.pbtxt"
    put(tmp_path, name)
    for look in (find_artifact, artifact_of_file):
        with pytest.raises(ServingError, match=f"{name} is not served by this version") as failure:
            look(tmp_path)
        assert failure.value.code is Code.UNIMPLEMENTED
    with pytest.raises(ServingError, match="is not served by this version"):
        artifact_of_file(tmp_path / name)


@pytest.mark.rule("savedmodel-1")
def test_a_session_bundle_is_refused_in_the_words_of_tensorflow_serving(tmp_path: Path) -> None:
    put(tmp_path, "export.meta")
    with pytest.raises(ServingError, match="Session Bundle is deprecated and removed") as failure:
        find_artifact(tmp_path)
    assert failure.value.code is Code.UNIMPLEMENTED


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    for look in (find_artifact, artifact_of_file):
        with pytest.raises(ServingError, match="nowhere") as failure:
            look(tmp_path / "nowhere")
        assert failure.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "kind", "main"),
    [
        ("any.onnx", "onnx", "any.onnx"),
        ("any.xml", "openvino", "any.xml"),
        ("any.bin", "openvino", "any.xml"),
        ("any.py", "python", "any.py"),
        ("any.tflite", "tflite", "any.tflite"),
        ("any.pt2", "torch_export", "any.pt2"),
        ("any.pt", "torchscript", "any.pt"),
        ("any.pb", "graph_def", "any.pb"),
        ("any.pbtxt", "graph_def", "any.pbtxt"),
        ("saved_model.pb", "saved_model", "."),
    ],
)
def test_one_file_is_an_artifact_by_its_name(tmp_path: Path, name: str, kind: str, main: str) -> None:
    put(tmp_path, name, "any.xml")
    assert artifact_of_file(tmp_path / name) == Artifact(kind, tmp_path / main)


def test_a_file_that_is_no_model_says_what_one_is(tmp_path: Path) -> None:
    put(tmp_path, "notes.txt")
    with pytest.raises(ServingError, match=r"notes\.txt is not a model; .*\.onnx"):
        artifact_of_file(tmp_path / "notes.txt")


def test_what_is_not_served_does_not_give_way_to_a_file_of_python(tmp_path: Path) -> None:
    put(tmp_path, "saved_model.pbtxt", "model.py")
    with pytest.raises(ServingError, match=r"saved_model\.pbtxt is not served by this version"):
        find_artifact(tmp_path)


@pytest.mark.parametrize("name", ["model.keras", "weights.h5"])
def test_what_can_only_be_exported_says_so(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    with pytest.raises(ServingError, match=r"is not served by this version: export it first \(servable export\)"):
        artifact_of_file(tmp_path / name)


def test_the_word_of_the_settings_goes_before_the_order(tmp_path: Path) -> None:
    put(tmp_path, *BY_PRECEDENCE, "small.tflite", "other/saved_model.pb")
    settings = tmp_path / "servable.toml"
    for name, kind in (("small.tflite", "tflite"), ("other", "saved_model"), ("model.py", "python")):
        settings.write_text(f'artifact = "{name}"')
        assert find_artifact(tmp_path) == Artifact(kind, tmp_path / name, settings=settings)


@pytest.mark.parametrize(
    ("word", "code", "problem"),
    [
        ('"../x.onnx"', Code.FAILED_PRECONDITION, "expected the name of a file or folder beside it, not"),
        ("3", Code.FAILED_PRECONDITION, "expected the name of a file or folder beside it, not 3"),
        ('"gone.onnx"', Code.NOT_FOUND, "there is no file"),
        ('"empty"', Code.NOT_FOUND, "is a folder without a saved_model.pb"),
        ('"notes.txt"', Code.NOT_FOUND, "is not a model"),
    ],
)
def test_a_word_of_the_settings_that_names_no_model_is_said(
    tmp_path: Path, word: str, code: Code, problem: str
) -> None:
    put(tmp_path, "model.onnx", "notes.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "servable.toml").write_text(f"artifact = {word}")
    with pytest.raises(ServingError, match=problem) as failure:
        find_artifact(tmp_path)
    assert failure.value.code is code


def test_settings_that_cannot_be_read_leave_the_order_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, "model.onnx")
    (tmp_path / "servable.toml").write_text("artifact = ")
    assert find_artifact(tmp_path).kind == "onnx"


def test_settings_that_state_signatures_count_beside_a_file_too(tmp_path: Path) -> None:
    put(tmp_path, *BY_PRECEDENCE, "any.onnx", "any.tflite", "servable.toml")
    settings = tmp_path / "servable.toml"
    for name in ("model.onnx", "model.tflite", "model.pt2", "model.pt", "graph.pb"):
        assert artifact_of_file(tmp_path / name).settings == settings
    for name in ("any.onnx", "any.tflite", "model.py"):
        assert artifact_of_file(tmp_path / name).settings is None


@pytest.mark.parametrize("main", BY_PRECEDENCE)
def test_a_transform_belongs_to_the_version_that_it_lies_in(tmp_path: Path, main: str) -> None:
    put(tmp_path, main, "transform.py")
    assert find_artifact(tmp_path).transform == tmp_path / "transform.py"
    assert artifact_of_file(tmp_path).transform == tmp_path / "transform.py"
    if main != BY_PRECEDENCE[1]:
        assert artifact_of_file(tmp_path / main).transform is None


def test_only_python_is_code(tmp_path: Path) -> None:
    transform = tmp_path / "transform.py"
    assert Artifact("onnx", tmp_path).code is None
    assert Artifact("onnx", tmp_path, transform).code == transform
    assert Artifact("python", tmp_path / "model.py", transform).code == tmp_path / "model.py"
    assert Artifact("torch_export", tmp_path / "model.pt2").code == tmp_path / "model.pt2"
    assert Artifact("torchscript", tmp_path / "model.pt").code is None
