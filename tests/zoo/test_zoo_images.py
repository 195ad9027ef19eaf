"""The image models: ONNX against the reference, and a SavedModel that decodes files against both."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.preprocess import images
from servable.preprocess.labels import Labels
from servable.zoo import catalog, pictures
from servable.zoo import image_reference as reference
from servable.zoo.weights import weights_of

ROWS = 3
TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
PILLOW = importlib.util.find_spec("PIL") is not None


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return catalog.build("resnet50", tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built and asked in a process of its own."""
    root = tmp_path_factory.mktemp("resnet_saved_model")
    program = Path(__file__).with_name("resnet_answers.py")
    done = subprocess.run(
        [sys.executable, str(program), str(root), str(ROWS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return root


def test_resnet50_in_onnx_answers_as_the_reference(onnx: Path) -> None:
    session = ort.InferenceSession(onnx / "model.onnx")
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("images", "tensor(float)", ["batch", 256, 256, 3])
    ]
    inputs = catalog.sample_inputs("resnet50", 6, seed=2)
    (scores,) = session.run(["scores"], inputs)
    assert scores.shape == (6, 1)
    assert float(np.ptp(scores)) > 0.3, "pictures are told apart"
    few = {"images": inputs["images"][4:]}
    np.testing.assert_allclose(scores[4:], catalog.reference("resnet50", few)["scores"], rtol=1e-4, atol=1e-5)


def test_resnet50_has_the_layers_of_the_paper() -> None:
    weights = weights_of("resnet50", catalog.DEFAULT_SEED)
    kernels = {key: array.shape for key, array in weights.items() if key.startswith("res")}
    assert len(kernels) == 53
    assert kernels["res_conv1_kernel"] == (7, 7, 3, 64)
    assert kernels["res2a_branch1_kernel"] == (1, 1, 64, 256)
    assert kernels["res5c_branch2b_kernel"] == (3, 3, 512, 512)
    trained = sum(array.size for key, array in weights.items() if not key.endswith(("_mean", "_variance")))
    # 25 557 032 of the usual ResNet-50, whose last layer has 1000 classes instead of 1.
    assert trained == 25_557_032 - 999 * 2049


def test_names_of_the_classes_lie_beside_the_artifact(onnx: Path) -> None:
    assert Labels.load(onnx / "labels.txt").names == ("person",)


@pytest.mark.tensorflow
@pytest.mark.skipif(not TENSORFLOW, reason="TensorFlow is not installed")
@pytest.mark.parametrize("signature", ["predict_images", "serving_default"])
def test_the_saved_model_takes_files_under_both_signatures(answered: Path, signature: str) -> None:
    found = json.loads((answered / "answers.json").read_text())[signature]
    assert found["inputs"] == {"images": ["string", [None]]}
    assert found["outputs"] == {"classes": ["string", [None, 1]], "scores": ["float32", [None, 1]]}
    assert found["classes"] == [["person"]] * ROWS
    described = catalog.describe("resnet50").signature_of("saved_model")
    assert described.name == "predict_images"
    for kind in ("inputs", "outputs"):
        specs: Any = getattr(described, kind)
        assert found[kind] == {key: [spec.dtype.name, list(spec.shape)] for key, spec in specs.items()}


@pytest.mark.tensorflow
@pytest.mark.skipif(not TENSORFLOW, reason="TensorFlow is not installed")
@pytest.mark.parametrize(
    "decoder",
    ["tensorflow", pytest.param("pillow", marks=pytest.mark.skipif(not PILLOW, reason="pillow is not installed"))],
)
def test_files_decoded_and_resized_outside_give_the_same_scores(answered: Path, onnx: Path, decoder: str) -> None:
    with np.load(answered / "pixels.npz") as stored:
        pixels = [stored[str(row)] for row in range(ROWS)]
    if decoder == "pillow":
        pixels = [images.decode((answered / f"{row}.jpg").read_bytes()) for row in range(ROWS)]
    assert len({picture.shape for picture in pixels}) > 1
    batch = np.stack([images.resize(picture.astype(np.float32), 256, 256) for picture in pixels])
    found = np.array(json.loads((answered / "answers.json").read_text())["predict_images"]["scores"], np.float32)
    (scores,) = ort.InferenceSession(onnx / "model.onnx").run(["scores"], {"images": batch})
    np.testing.assert_allclose(found, scores, atol=1e-2)
    np.testing.assert_allclose(found, catalog.reference("resnet50", {"images": batch})["scores"], atol=1e-2)


@pytest.mark.tensorflow
@pytest.mark.skipif(not TENSORFLOW, reason="TensorFlow is not installed")
def test_a_file_that_is_no_picture_is_refused(answered: Path) -> None:
    assert "Unknown image file format" in json.loads((answered / "answers.json").read_text())["refused"]


def test_simple_cnn_ends_where_its_plan_says() -> None:
    weights = weights_of("simple_cnn", catalog.DEFAULT_SEED)
    shapes = [weights[f"conv{stage}_{place}_kernel"].shape[2:] for stage in (1, 2, 3, 4) for place in (1, 2)]
    assert shapes == [(3, 6), (6, 9), (9, 12), (12, 16), (16, 32), (32, 64), (64, 128), (128, 256)]
    assert weights["hidden_kernel"].shape == (256, 512)
    assert weights["head_kernel"].shape == (512, 100)


def by_definition(maps: Array, kernel: Array, stride: int) -> Array:
    tall, wide = kernel.shape[:2]
    height, width = (maps.shape[1] - tall) // stride + 1, (maps.shape[2] - wide) // stride + 1
    result = np.zeros((len(maps), height, width, kernel.shape[3]))
    for row, y, x, after in np.ndindex(*result.shape):
        seen = maps[row, y * stride : y * stride + tall, x * stride : x * stride + wide]
        result[row, y, x, after] = (seen * kernel[..., after]).sum()
    return result


@pytest.mark.parametrize(("size", "stride"), [((1, 1), 1), ((1, 1), 2), ((3, 3), 1), ((7, 5), 2), ((2, 3), 3)])
def test_the_reference_convolves_by_the_definition(size: tuple[int, int], stride: int) -> None:
    rng = np.random.default_rng(1)
    maps, kernel = rng.standard_normal((2, 9, 12, 4)), rng.standard_normal((*size, 4, 3))
    np.testing.assert_allclose(reference.convolve(maps, kernel, stride), by_definition(maps, kernel, stride))


def test_pictures_repeat_by_seed_and_differ() -> None:
    first, again, other = (pictures.pictures(2, 32, 48, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (2, 32, 48, 3)
    np.testing.assert_array_equal(first, again)
    for one, two in ((first, other), (first[:1], first[1:])):
        assert float(np.abs(one.astype(int) - two).mean()) > 10


@pytest.mark.skipif(not PILLOW, reason="pillow is not installed")
def test_encoded_pictures_repeat_by_seed_and_are_of_several_sizes() -> None:
    files = catalog.sample_inputs("resnet50", 5, seed=1, kind="saved_model")["images"]
    assert files.tolist() == pictures.jpegs(5, seed=1).tolist()
    assert [images.decode(file).shape[:2] for file in files] == [*pictures.JPEG_SIZES, pictures.JPEG_SIZES[0]]


def test_encoding_without_a_library_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ServingError, match="needs pillow or TensorFlow") as caught:
        pictures.jpegs(1, seed=1)
    assert caught.value.code is Code.FAILED_PRECONDITION
