"""The artifacts that servers are started with, each built at most once in a session."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from servable.zoo import catalog

TYPES = {
    "bool": TensorProto.BOOL, "float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE, "int8": TensorProto.INT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32,
    "int64": TensorProto.INT64, "string": TensorProto.STRING, "uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32, "uint64": TensorProto.UINT64,
}  # fmt: skip
"""The inputs of the model ``types``, named by their types; each comes back as ``same_`` and its name."""
SAVED_MODELS = ("half_plus_two", "lstm_tokens", "text_cnn", "text_cnn_small")
"""The example models that are built as SavedModels as well."""
BUILT_WITHIN_S = 150.0
_TESTS = Path(__file__).parents[1]
_BUILDERS = (_TESTS / "engines" / "build_saved_models.py", _TESTS / "e2e" / "build_heads.py")
"""Programs that build SavedModels in the folder that is their argument."""
_BUILD_SAVED_MODELS = """
import runpy, sys
from pathlib import Path
from servable.zoo import catalog
root, builders, *names = sys.argv[1:]
for name in names:
    catalog.build(name, Path(root), kind="saved_model")
for builder in builders.split(","):
    sys.argv = [builder, root]
    runpy.run_path(builder, run_name="__main__")
"""


class LiveModels:
    """Directories of models, below one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def onnx(self, name: str) -> Path:
        """Return the model directory of an example model as ONNX."""
        final = self._root / "onnx" / name
        if not final.exists():
            catalog.build(name, final.parent, kind="onnx")
        return final

    def saved_model(self, name: str) -> Path:
        """Return the model directory of an example model as SavedModel."""
        return self._saved_models() / name

    def many_signatures(self) -> Path:
        """Return a SavedModel that TensorFlow alone can hold: strings, tables, state, and no default signature."""
        return self._saved_models() / "many"

    def heads(self) -> Path:
        """Return a SavedModel with heads for Classify and Regress, good ones and bad ones."""
        return self._saved_models() / "heads"

    def heads_answers(self) -> Path:
        """Return the file with examples and what TensorFlow answers: see ``build_heads.py``."""
        return self._saved_models() / "heads.pickle"

    def _saved_models(self) -> Path:
        """Build all of them in one process: to import TensorFlow takes longer than to build a model."""
        root = self._root / "saved_model"
        if not root.exists():
            root.mkdir(parents=True)
            builders = ",".join(map(str, _BUILDERS))
            command = [sys.executable, "-c", _BUILD_SAVED_MODELS, str(root), builders, *SAVED_MODELS]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=BUILT_WITHIN_S)
            assert done.returncode == 0, done.stderr
        return root

    def made(self, name: str) -> Path:
        """Return the model directory of one of the models below."""
        file = self._root / "made" / name / "1" / "model.onnx"
        if not file.exists():
            file.parent.mkdir(parents=True)
            onnx.save(_MADE[name](), file)
            if name in _SETTINGS:
                file.with_name("servable.toml").write_text(_SETTINGS[name])
        return file.parent.parent


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: tuple[onnx.TensorProto, ...] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializer=initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _types() -> onnx.ModelProto:
    """Return what it is given, whatever type and length that has."""
    return _model(
        [helper.make_node("Identity", [name], [f"same_{name}"]) for name in TYPES],
        [helper.make_tensor_value_info(name, number, ["rows"]) for name, number in TYPES.items()],
        [helper.make_tensor_value_info(f"same_{name}", number, ["rows"]) for name, number in TYPES.items()],
    )


def _echo() -> onnx.ModelProto:
    """Return a matrix of any size as it came."""
    shape = ["rows", "columns"]
    return _model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )


def _slow() -> onnx.ModelProto:
    """Take as long as the input says, in steps of a matrix product each, then return the number of steps."""
    size = 384
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "weights"], ["product"]),
            helper.make_node("Tanh", ["product"], ["state_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [size, size]),
        ],
    )
    matrix = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32) / 20
    return _model(
        [
            helper.make_node("Loop", ["steps", "go", "weights"], ["state"], body=body),
            helper.make_node("Mul", ["state", "nothing"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Cast", ["zero"], ["whole_zero"], to=TensorProto.INT64),
            helper.make_node("Add", ["steps", "whole_zero"], ["done"]),
        ],
        [helper.make_tensor_value_info("steps", TensorProto.INT64, [])],
        [helper.make_tensor_value_info("done", TensorProto.INT64, [])],
        (
            numpy_helper.from_array(matrix, "weights"),
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(np.array(0.0, np.float32), "nothing"),
        ),
    )


def _heads() -> onnx.ModelProto:
    """Compute what the heads in ``build_heads.py`` do, from tensors: ONNX has no parser of Examples."""
    weights = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], np.float32)
    return _model(
        [
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Cast", ["k"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["factor", "last"], ["column"]),
            helper.make_node("Mul", ["product", "column"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
            helper.make_node("ReduceSum", ["logits", "last"], ["value"], keepdims=0),
        ],
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2]),
            helper.make_tensor_value_info("k", TensorProto.INT64, ["rows"]),
        ],
        [
            helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["rows", 3]),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["rows"]),
        ],
        (numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1]), "last")),
    )


_FEATURES = "features = { x = {}, k = { default = 1 } }"
_SETTINGS = {
    "onnx_heads": f"""
[examples.serving_default]
method = "classify"
labels = ["low", "middle", "h\u00f6her"]
outputs = {{ scores = "probs" }}
{_FEATURES}

[examples.scores]
method = "classify"
outputs = {{ scores = "probs" }}
{_FEATURES}

[examples.flat]
method = "regress"
outputs = {{ outputs = "value" }}
{_FEATURES}
"""
}
"""The ``servable.toml`` beside some of the models below."""

_MADE = {"types": _types, "echo": _echo, "slow": _slow, "onnx_heads": _heads}
