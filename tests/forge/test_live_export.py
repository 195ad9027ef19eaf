"""``servable.forge.export``: the named signature and the default one answer as the model in memory does."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import servable
from servable.core.errors import ServingError
from servable.core.signatures import TensorSpec
from servable.core.tensors import FLOAT32, INT64
from servable.engines.plan import find_artifact
from servable.forge.conversion.live import named_outputs, read_spec
from servable.forge.workshop import open_model

pytestmark = pytest.mark.timeout(180)


def has(*packages: str) -> bool:
    return all(importlib.util.find_spec(one) is not None for one in packages)


def exported(part: str, root: Path) -> dict[str, str]:
    program = Path(__file__).with_name("live_exports.py")
    command = [sys.executable, str(program), part, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, str] = json.loads((root / "told.json").read_text())
    return told


def answer(version: Path, signature: str, engine: str | None, **inputs: object) -> dict[str, list[list[float]]]:
    model = open_model(find_artifact(version), engine)
    try:
        found = model.signatures[signature]
        outputs = model.run(
            signature, {name: np.asarray(value, np.float32) for name, value in inputs.items()}, list(found.outputs)
        )
        return {name: value.tolist() for name, value in outputs.items()}
    finally:
        model.close()


@pytest.mark.tensorflow
@pytest.mark.skipif(not has("tensorflow", "keras", "tf2onnx"), reason="TensorFlow is not installed")
def test_keras_models_and_modules(tmp_path: Path) -> None:
    told = exported("tensorflow", tmp_path)

    assert told["named"] == "line/1"
    for signature in ("predict", "serving_default"):
        assert answer(tmp_path / "line" / "1", signature, "openvino", x=[[2.0]]) == {"y": [[3.0]]}
    assert told["next"] == "line/2"
    assert answer(tmp_path / "line" / "2", "serving_default", None, x=[[2.0]]) == {"y": [[3.0]]}
    assert told["module"] == "module/1"
    assert answer(tmp_path / "module" / "1", "serving_default", "openvino", x=[[1, 2]]) == {"y": [[3.0, 6.0]]}
    (features,) = answer(tmp_path / "part" / "1", "serving_default", "openvino", values=[[1, 2]])["features"]
    assert len(features) == 3
    assert told["again"].startswith("ALREADY_EXISTS")
    assert "the model has 1 (input)" in told["too many"]
    assert "input x: int64[?,1] was asked for, and the model takes float32[?,1]" in told["wrong type"]
    assert "the model has no output 'absent'; it has dense" in told["wrong output"]
    assert "'floats' is no type and shape" in told["no type"]
    assert "is no model that can be exported" in told["no model"]
    assert "does not say what x is" in told["module without types"]
    assert told["random"].startswith("DATA_LOSS")
    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*"))
    assert kept == ["line/1", "line/2", "module/1", "part/1"]


@pytest.mark.skipif(not has("torch", "onnxscript"), reason="torch is not installed")
def test_torch_modules(tmp_path: Path) -> None:
    told = exported("torch", tmp_path)

    assert told["renamed"] == "line/1"
    for signature in ("predict", "serving_default"):
        assert answer(tmp_path / "line" / "1", signature, None, input=[[2.0]]) == {"y": [[3.0]]}
    assert told["example"] == "line/2"
    assert answer(tmp_path / "line" / "2", "serving_default", None, input=[[2.0], [4.0]]) == {"y": [[3.0], [4.0]]}
    assert "nothing says what that is: give inputs" in told["no example"]
    assert told["no parameter"] == "INVALID_ARGUMENT: forward takes input, not x"


@pytest.mark.skipif(not has("torch"), reason="torch is not installed")
def test_code_that_imports_its_framework_late_draws_the_same_weights_again(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "def build():\n    import torch\n    return torch.nn.Linear(2, 2), torch.ones(1, 2)\n"
    )
    program = (
        "from servable.forge.conversion.model_code import build\n"
        f"first, second = (build('{tmp_path}/late.py:build')[0].weight.tolist() for _ in range(2))\n"
        "assert first == second, (first, second)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("said", "spec"),
    [
        ("float32[?,3]", TensorSpec("x", FLOAT32, (None, 3))),
        ("float32[-1, None , 3]", TensorSpec("x", FLOAT32, (None, None, 3))),
        ("int64[]", TensorSpec("x", INT64, ())),
        ("int64", TensorSpec("x", INT64, None)),
        (np.zeros((4, 3), np.float32), TensorSpec("x", FLOAT32, (None, 3))),
        (TensorSpec("other", FLOAT32, (2,)), TensorSpec("x", FLOAT32, (2,))),
    ],
)
def test_types_and_shapes_are_read_in_many_forms(said: object, spec: TensorSpec) -> None:
    assert read_spec("x", said) == spec


@pytest.mark.parametrize("said", ["floats[?]", "float32[a]", "float32[3", 7, ""])
def test_what_is_no_type_is_refused(said: object) -> None:
    with pytest.raises(ServingError, match="input x: "):
        read_spec("x", said)


def test_outputs_are_renamed_in_order_or_chosen() -> None:
    assert named_outputs(["a", "b"], None) == {"a": 0, "b": 1}
    assert named_outputs(["a", "b"], ["x", "y"]) == {"x": 0, "y": 1}
    assert named_outputs(["a", "b"], {"x": "b"}) == {"x": 1}
    assert named_outputs(["a", "b"], {"x": 1, "b": None}) == {"x": 1, "b": 1}
    for wrong in (["x"], ["x", "x"], {"x": "c"}, {"x": 2}, {"x": -1}, {}):
        with pytest.raises(ServingError, match=r"output"):
            named_outputs(["a", "b"], wrong)


def test_what_is_no_model_is_refused_without_a_framework(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="is no model that can be exported"):
        servable.forge.export("a text", tmp_path / "1")
