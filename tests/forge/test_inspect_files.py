"""Files that are damaged, cut off, empty or something else: one line that names the file, and never anything else."""

from __future__ import annotations

import importlib.util
import random
import shutil
import zipfile
from pathlib import Path

import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact
from servable.forge.inspection.costs import count
from servable.forge.inspection.formats import artifact_at, inspect

MODELS = Path(__file__).parent / "inspect_models"
NEEDED = {".keras": "h5py", ".h5": "h5py", ".pt": "torch"}
FILES = (
    "pictures.keras", "pictures.h5", "pictures.pb", "pictures.pbtxt", "pictures.tflite", "pictures.pt", "tokens.pt2",
)  # fmt: skip


def skip_without(path: str) -> None:
    package = NEEDED.get(Path(path).suffix)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def refusal(path: Path) -> ServingError:
    artifact = artifact_at(path)
    assert artifact is not None
    with pytest.raises(ServingError) as caught:
        inspect(artifact)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["half", "empty", "noise"])
def test_what_is_not_a_model_is_said_in_one_line(name: str, how: str, tmp_path: Path) -> None:
    skip_without(name)
    whole = (MODELS / name).read_bytes()
    contents = {"half": whole[: len(whole) // 2], "empty": b"", "noise": random.Random(1).randbytes(4000)}
    path = tmp_path / name
    path.write_bytes(contents[how])
    error = refusal(path)
    assert error.code is Code.DATA_LOSS
    assert str(path) in error.message


@pytest.mark.parametrize("name", ["pictures.pb", "states.pb", "pictures.tflite", "states.tflite", "tokens.pt2"])
def test_flipped_bytes_are_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servable.forge.inspection.read_tflite.run_apart", lambda *_, **__: [])
    rng = random.Random(7)
    whole = (MODELS / name).read_bytes()
    path = tmp_path / name
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 5, 30))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            found = inspect(Artifact(artifact_kind(path), path))
            for graph in found.graphs.values():
                count(graph)
        except ServingError as error:
            assert "\n" not in error.message  # noqa: PT017  # most are refused, some can be read


def artifact_kind(path: Path) -> str:
    artifact = artifact_at(path)
    assert artifact is not None
    return artifact.kind


def test_a_saved_model_without_its_weights(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "tokens", tmp_path / "model")
    data = next((tmp_path / "model").rglob("variables.data-*"))
    data.write_bytes(data.read_bytes()[:100])
    error = refusal(tmp_path / "model")
    assert f"{data} has 100 of at least" in error.message


def test_a_saved_model_cut_off(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "tokens", tmp_path / "model")
    path = tmp_path / "model" / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "is damaged or not complete" in refusal(path).message


def test_openvino_files(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    for text, said in (
        ("<net", "is damaged or not complete"),
        ("<html/>", "is not an OpenVINO model: its root is <html>"),
        ('<net><layers><layer id="0" type="Const"><data offset="0" size="9"/></layer></layers></net>', "there is no"),
        ('<net><layers><layer id="0" type="Result" name="x"/></layers></net>', "is damaged or not complete"),
    ):
        path.write_text(text)
        assert said in refusal(path).message


def test_weights_without_a_model_and_models_that_are_code(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["first"] = [1.0, 2.0]
    assert refusal(path).message == f"{path} holds weights without a model: save the whole model as .keras"
    path = tmp_path / "own.keras"
    with zipfile.ZipFile(MODELS / "pictures.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, b'{"class_name": "MyModel", "config": {}}' if name == "config.json" else data)
    error = refusal(path)
    assert (error.code, "is a MyModel, whose layers only its own code knows" in error.message) == (
        Code.UNIMPLEMENTED,
        True,
    )


def test_a_zip_that_is_no_exported_program(tmp_path: Path) -> None:
    path = tmp_path / "other.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is no program of torch.export" in refusal(path).message


def test_functions_that_call_themselves_end(tmp_path: Path) -> None:
    from servable.protos import tensorflow

    graph = tensorflow.GraphDef()
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    graph.node.add(name="y", op="again", input=["x"])
    function = graph.library.function.add()
    function.signature.name = "again"
    function.signature.input_arg.add(name="a", type=1)
    function.signature.output_arg.add(name="b", type=1)
    function.node_def.add(name="inner", op="again", input=["a"])
    function.ret["b"] = "inner:b:0"
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.SerializeToString())
    assert refusal(path).message == "the function again calls itself"


def test_a_missing_file_and_python(tmp_path: Path) -> None:
    assert artifact_at(tmp_path / "none.onnx") is None
    with pytest.raises(ServingError, match="what it consists of only running it could tell"):
        inspect(Artifact("python", tmp_path / "model.py"))
    with pytest.raises(ServingError, match="there is no"):
        inspect(Artifact("onnx", tmp_path / "model.onnx"))
