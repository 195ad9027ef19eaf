"""SavedModels to small TFLite files and OpenVINO models, each way once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.forge import quantize_models as models

from servable.core.errors import ServingError
from servable.engines.base import Artifact
from servable.forge import arrays
from servable.forge.artifacts import bytes_of, find_source
from servable.forge.samples import Samples, agreement
from servable.forge.worker import run_apart
from servable.forge.workshop import open_model

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("tensorflow", "keras", "ai_edge_litert", "tf2onnx")),
        reason="TensorFlow, LiteRT or tf2onnx is not installed",
    ),
]

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
    ("name", "share", "close"),
    [("conv-fp16", 0.7, 1e-2), ("conv-weights", 0.6, 5e-2), ("conv-int8", 0.75, 5e-2), ("conv-fp16-ir", 2.0, 1e-2)],
)
def test_a_saved_model_becomes_smaller(name: str, share: float, close: float, made: Made) -> None:
    artifact, _ = made[name]
    rows = models.pictures(7, seed=9)
    found, right = answer(artifact, rows), answer(made["conv"][0], rows)
    assert found.shape == right.shape
    assert found.dtype == np.float32
    assert 0 < np.abs(found - right).max() < close
    assert bytes_of(artifact) < share * 2 * bytes_of(made["conv-fp16"][0])
    assert (agreement(found, right) or 0) >= 6 / 7


def test_facts_say_what_is_in_it(made: Made) -> None:
    assert made["conv-int8"][1]["tensors"]["int8"] > 3
    assert made["conv-int8"][1]["calibrated_with_rows"] == 32
    assert any("brightness" in note for note in made["conv-int8"][1]["notes"])
    assert made["conv-fp16"][1]["tensors"]["float16"] >= 2
    assert set(open_names(made["conv-fp16"][0])) == {"brightness", "serving_default"}


def test_a_recurrent_model_gets_a_fixed_batch_and_takes_any(made: Made) -> None:
    artifact, facts = made["lstm-weights"]
    assert any("fixed batch" in note for note in facts["notes"])
    rows = {"words": np.random.default_rng(2).normal(size=(5, 6, 8)).astype(np.float32)}
    found, right = answer(artifact, rows), answer(made["lstm"][0], rows)
    assert found.shape == right.shape == (5, 3)
    assert np.abs(found - right).max() < 5e-2


def test_layers_cannot_be_kept_in_float(made: Made, tmp_path: Path) -> None:
    from servable.forge.quantize import Wish, quantize

    wish = Wish("int8-weights", engine="litert", keep_float=("Conv",))
    with pytest.raises(ServingError, match=r"cannot leave layers in float \(--keep-float\)"):
        quantize(made["conv"][0], tmp_path / "out", wish)


def answer(artifact: Artifact, rows: dict[str, Any]) -> Any:
    model = open_model(artifact)
    try:
        signature = model.signatures["serving_default"]
        name = next(iter(signature.outputs))
        return model.run("serving_default", rows, [name])[name]
    finally:
        model.close()


def open_names(artifact: Artifact) -> list[str]:
    model = open_model(artifact)
    try:
        return list(model.signatures)
    finally:
        model.close()
