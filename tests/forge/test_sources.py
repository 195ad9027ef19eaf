"""Which artifact a path means, what goes with it, and where a new one goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact
from servable.forge.artifacts import bytes_of, copy_companions, destination, find_source


def write(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_path_means_a_file_a_version_or_the_newest_version(tmp_path: Path) -> None:
    for version in (2, 10, 9):
        write(tmp_path / "net" / str(version) / "model.onnx")
    write(tmp_path / "net" / "11.part" / "model.onnx")
    assert find_source(tmp_path / "net").path == tmp_path / "net" / "10" / "model.onnx"
    assert find_source(tmp_path / "net", 2).path == tmp_path / "net" / "2" / "model.onnx"
    assert find_source(tmp_path / "net" / "9").path == tmp_path / "net" / "9" / "model.onnx"
    assert find_source(write(tmp_path / "any.tflite")) == Artifact("tflite", tmp_path / "any.tflite")
    with pytest.raises(ServingError, match=r"no version 3; there are 2, 9, 10"):
        find_source(tmp_path / "net", 3)


def test_what_steps_read_and_no_engine_serves(tmp_path: Path) -> None:
    for name in ("net.keras", "net.h5"):
        assert find_source(write(tmp_path / name)) == Artifact("keras", tmp_path / name)
    code = Path(f"{write(tmp_path / 'code.py')}:build")
    assert find_source(code) == Artifact("checkpoint", code)
    with pytest.raises(ServingError, match=r"gone\.keras"):
        find_source(tmp_path / "gone.keras")


def test_what_lies_beside_a_version_goes_with_it(tmp_path: Path) -> None:
    home = tmp_path / "1"
    model = write(home / "model.onnx")
    write(home / "labels.txt", "cat\n")
    write(home / "transform.py", "# none\n")
    write(home / "assets.extra" / "deep" / "words.txt", "a b\n")
    write(home / "servable.toml", 'artifact = "model.onnx"\n[signatures]\n')
    write(home / "notes.txt", "mine")
    (tmp_path / "new").mkdir()
    copy_companions(Artifact("onnx", model), tmp_path / "new")
    copied = {str(found.relative_to(tmp_path / "new")) for found in (tmp_path / "new").rglob("*") if found.is_file()}
    assert copied == {"labels.txt", "transform.py", "servable.toml", "assets.extra/deep/words.txt"}
    assert (tmp_path / "new" / "labels.txt").read_text() == "cat\n"
    assert (tmp_path / "new" / "servable.toml").read_text() == "[signatures]\n", "the new file is another"


def test_a_file_that_was_named_by_itself_has_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "labels.txt", "of somebody else\n")
    (tmp_path / "new").mkdir()
    copy_companions(Artifact("onnx", write(tmp_path / "net.onnx")), tmp_path / "new")
    copy_companions(Artifact("keras", write(tmp_path / "net.keras")), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_where_a_new_artifact_goes(tmp_path: Path) -> None:
    write(tmp_path / "net" / "4" / "model.onnx")
    assert destination(tmp_path / "net", "onnx") == tmp_path / "net" / "5"
    assert destination(tmp_path / "net" / "7", "onnx") == tmp_path / "net" / "7"
    assert destination(tmp_path / "fresh", "openvino") == tmp_path / "fresh" / "1"
    assert destination(tmp_path / "net.v2", "openvino") == tmp_path / "net.v2" / "1"
    assert destination(tmp_path / "small.xml", "openvino") == tmp_path / "small.xml"
    with pytest.raises(ServingError, match=r"goes to a folder or a file \*\.xml"):
        destination(tmp_path / "small.onnx", "openvino")
    with pytest.raises(ServingError, match="goes to a folder"):
        destination(tmp_path / "saved.pb", "saved_model")
    with pytest.raises(ServingError, match="nothing is overwritten") as caught:
        destination(tmp_path / "net" / "4", "onnx")
    assert caught.value.code is Code.ALREADY_EXISTS


def test_the_size_is_of_all_files_of_the_artifact_and_of_no_other(tmp_path: Path) -> None:
    write(tmp_path / "net.xml", "12345")
    write(tmp_path / "net.bin", "123")
    write(tmp_path / "net.onnx", "1234567")
    write(tmp_path / "net.onnx.data", "1")
    write(tmp_path / "saved" / "saved_model.pb", "12")
    write(tmp_path / "saved" / "variables" / "variables.index", "123")
    write(tmp_path / "saved" / "assets" / "deep" / "words.txt", "1234")
    write(tmp_path / "saved" / "assets.extra" / "tf_serving_warmup_requests", "12345")
    assert bytes_of(Artifact("openvino", tmp_path / "net.xml")) == 8
    assert bytes_of(Artifact("onnx", tmp_path / "net.onnx")) == 8
    assert bytes_of(Artifact("saved_model", tmp_path / "saved")) == 9
