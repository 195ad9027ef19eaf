"""What tuning makes of a model to try in its place, and where that is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from servable.engines.base import Artifact
from servable.forge.quantization.steps import step_for
from servable.forge.samples import Samples
from servable.forge.steps import Step
from servable.forge.tuning import forms
from servable.forge.verify import EXACT

SAVED, ONNX = Artifact("saved_model", Path("/m/1")), Artifact("onnx", Path("/forms/1/model.onnx"))


def test_what_was_converted_is_quantized_rather_than_a_saved_model() -> None:
    found = list(forms._quantizations([SAVED, ONNX]))
    assert [step.name for step, _ in found] == ["int8-openvino", "int8-onnx", "int8-weights-onnx"]
    assert {source.kind for _, source in found} == {"onnx"}
    assert [(step.name, source.kind) for step, source in forms._quantizations([SAVED])] == [
        ("int8-openvino", "saved_model")
    ]


def test_other_data_calibrates_another_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def perform(step: Step, source: Artifact, final: Path, **_: Any) -> SimpleNamespace:
        made.append(final)
        return SimpleNamespace(artifact=source)

    monkeypatch.setattr(forms, "perform", perform)

    def make(method: str, value: float) -> Path:
        data = Samples({"x": np.full((2, 2), value)}, "a file")
        forms._made(step_for(method, "onnx", "onnxruntime"), ONNX, tmp_path, data, EXACT, lambda _line: None)
        return made[-1]

    assert make("int8", 1.0) == make("int8", 1.0) != make("int8", 2.0)
    assert make("int8-weights", 1.0) == make("int8-weights", 2.0)
