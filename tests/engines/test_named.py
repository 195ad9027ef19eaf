"""ONNX and OpenVINO hold one signature by no name; a servable.toml beside them gives it further ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import ServingError
from servable.engines.artifact import find_artifact
from servable.engines.base import EngineOptions, Model
from servable.engines.plan import choose, load
from servable.zoo import catalog

NAMES = """
[signatures.predict.inputs.x]
dtype = "float32"
shape = [-1, 1]

[signatures.predict.outputs.y]
dtype = "float32"

[signatures.renamed]
method_name = "tensorflow/serving/regress"

[signatures.renamed.inputs.given]
dtype = "float32"
node = "x"

[signatures.renamed.outputs.half]
dtype = "float32"
node = "y"
"""


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return catalog.build("half_plus_two", tmp_path)


def opened(version: Path, settings: str, engine: str) -> Model:
    (version / "servable.toml").write_text(settings)
    artifact = find_artifact(version)
    return load(choose(artifact, engine), artifact, EngineOptions())


def ask(model: Model, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, object]:
    return {name: array.tolist() for name, array in model.run(signature, inputs, outputs).items()}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_signature_answers_by_all_of_its_names(version: Path, engine: str) -> None:
    model = opened(version, NAMES, engine)
    x = np.array([[2.0]], np.float32)

    assert list(model.signatures) == ["serving_default", "predict", "renamed"]
    assert str(model.signatures["renamed"].inputs["given"]) == "float32[?,1]"
    assert model.signatures["renamed"].method_name == "tensorflow/serving/regress"
    assert str(model.signatures["predict"].outputs["y"]) == "float32[?,1]"  # the artifact's own shape
    assert ask(model, "serving_default", {"x": x}, ["y"]) == {"y": [[3.0]]}
    assert ask(model, "predict", {"x": x}, ["y"]) == {"y": [[3.0]]}
    assert ask(model, "renamed", {"given": x}, ["half"]) == {"half": [[3.0]]}
    with pytest.raises(ServingError, match="there is no signature 'absent'"):
        model.run("absent", {"x": x}, ["y"])
    model.close()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('node = "x"', 'node = "z"', r"signatures.renamed.inputs.given.node: the artifact has no input 'z'"),
        ('node = "y"', 'node = "z"', r"signatures.renamed.outputs.half.node: the artifact has no output 'z'"),
        (
            '"float32"\nshape',
            '"int64"\nshape',
            r"signatures.predict.inputs.x.dtype: the artifact has float32, not int64",
        ),
        (
            '[signatures.predict.inputs.x]\ndtype = "float32"\nshape = [-1, 1]',
            "",
            "the artifact's input 'x' is missing",
        ),
    ],
)
def test_names_that_do_not_fit_are_refused_by_their_place(version: Path, before: str, after: str, said: str) -> None:
    assert before in NAMES
    with pytest.raises(ServingError, match=said):
        opened(version, NAMES.replace(before, after), "onnxruntime")
