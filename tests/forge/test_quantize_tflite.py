"""SavedModels to small TFLite files and OpenVINO models, each way once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.forge import quantize_models as models

from servable.core.errors import ServingError
from servable.core.tensors import Array
from servable.engines.base import Artifact
from servable.forge import arrays
from servable.forge.artifacts import find_source
from servable.forge.inspection import read_tflite
from servable.forge.quantization import tflite_files as quantize_tflite
from servable.forge.samples import Samples, agreement
from servable.forge.steps import Task
from servable.forge.verify import Question, answers
from servable.forge.worker import run_apart
from servable.forge.workshop import open_model

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("tensorflow", "keras", "ai_edge_litert", "tf2onnx")),
        reason="TensorFlow, LiteRT or tf2onnx is not installed",
    ),
]

WEIGHTS = 4 * (3 * 3 * 3 * 16 + 400 * 5)
"""Bytes of the convolution's weights in float32."""

Made = dict[str, tuple[Artifact, dict[str, Any]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("tflite")
    rows = Samples(models.pictures(32), "the test")
    words = Samples({"words": np.random.default_rng(1).normal(size=(32, 6, 8)).astype(np.float32)}, "the test")
    arrays.save(folder / "conv.npz", rows.batches(1))
    arrays.save(folder / "lstm.npz", words.batches(1))
    facts = run_apart("tests.forge.quantize_models:make_tflite", {"folder": str(folder)})
    return {name: (find_source(folder / name), found) for name, found in facts.items()}


@pytest.mark.parametrize(
    ("name", "most_bytes", "close"),
    [("conv-fp16", 8500, 1e-2), ("conv-weights", 7500, 5e-2), ("conv-int8", 8500, 5e-2), ("conv-fp16-ir", 5500, 1e-2)],
)
def test_a_saved_model_becomes_smaller(name: str, most_bytes: int, close: float, made: Made) -> None:
    artifact, _ = made[name]
    found, right = answered(artifact, "conv", "image")
    assert found.shape == right.shape
    assert found.dtype == np.float32
    assert 0 < np.abs(found - right).max() < close
    holder = artifact.path.with_suffix(".bin") if artifact.kind == "openvino" else artifact.path
    assert holder.stat().st_size < most_bytes < WEIGHTS
    assert (agreement(found, right) or 0) >= 6 / 7


def test_facts_say_what_is_in_it(made: Made) -> None:
    assert made["conv-int8"][1]["tensors"]["int8"] > 3
    assert made["conv-int8"][1]["calibrated_with_rows"] == 32
    assert any("brightness" in note for note in made["conv-int8"][1]["notes"])
    assert made["conv-fp16"][1]["tensors"]["float16"] >= 2
    assert set(open_names(made["conv-fp16"][0])) == {"brightness", "serving_default"}


def test_bytes_go_in_and_come_out(made: Made) -> None:
    artifact, facts = made["conv-uint8"]
    assert facts["integers"] == {
        "image": "uint8[?,12,12,3] of q / 255",
        "probs": "uint8[?,5] of q / 256",
    }
    model = open_model(artifact)
    try:
        signature = model.signatures["serving_default"]
        specs = {**signature.inputs, **signature.outputs}
        assert {name: str(spec) for name, spec in specs.items()} == facts["integers"]
        folder = artifact.path.parent.parent
        pixels = np.rint(np.load(folder / "conv.asked.npy") * 255).astype(np.uint8)
        found = model.run("serving_default", {"image": pixels}, ["probs"])["probs"]
        # What compares models gives them numbers and takes numbers from them.
        (answer,) = answers(model, [Question("serving_default", 7, {"image": np.load(folder / "conv.asked.npy")})])
    finally:
        model.close()
    right = np.load(folder / "conv.said.npy")
    assert found.dtype == np.uint8
    assert np.abs(found / 256 - right).max() < 5e-2
    np.testing.assert_array_equal(answer["probs"], found / np.float32(256))
    inspected = read_tflite.read(artifact.path, {})
    assert str(inspected.signatures["serving_default"].inputs["image"]) == facts["integers"]["image"]


def test_a_recurrent_model_gets_a_fixed_batch_and_takes_any(made: Made) -> None:
    artifact, facts = made["lstm-weights"]
    assert any("fixed batch" in note for note in facts["notes"])
    found, right = answered(artifact, "lstm", "words")
    assert found.shape == right.shape == (5, 3)
    assert np.abs(found - right).max() < 5e-2


def test_a_recurrent_model_is_not_calibrated_to_death(made: Made, tmp_path: Path) -> None:
    lstm = Artifact("saved_model", made["conv"][0].path.parent / "lstm")
    with pytest.raises(ServingError, match=r"crashes as it calibrates a recurrent model; take --int8-weights"):
        quantize_tflite.int8(lstm, tmp_path, Task())


@pytest.mark.parametrize("options", [{"keep_float": ["Conv"]}, {"max_drop": 0.01}])
def test_layers_cannot_be_kept_in_float(options: dict[str, Any], made: Made, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"cannot leave layers in float \(--.*--engine openvino"):
        quantize_tflite.int8_weights(made["conv"][0], tmp_path, Task(options=options))
    assert not list(tmp_path.iterdir())


def answered(artifact: Artifact, source: str, name: str) -> tuple[Array, Array]:
    """Return what it answers, and what TensorFlow did."""
    folder = artifact.path.parent.parent
    model = open_model(artifact)
    try:
        output = next(iter(model.signatures["serving_default"].outputs))
        found = model.run("serving_default", {name: np.load(folder / f"{source}.asked.npy")}, [output])[output]
    finally:
        model.close()
    return found, np.load(folder / f"{source}.said.npy")


def open_names(artifact: Artifact) -> list[str]:
    model = open_model(artifact)
    try:
        return list(model.signatures)
    finally:
        model.close()
