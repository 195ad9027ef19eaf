"""Small steps over ONNX files for tests of pipelines, and the small network that they work on."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from servable.core.errors import Code, ServingError, unimplemented
from servable.engines.base import Artifact
from servable.forge.steps import Facts, Step, Task
from servable.forge.verify import Tolerance

CLASSES = 4
SIZE = 6
LOSSY = Tolerance(rtol=None, atol=None, cosine=0.9)


def write_network(folder: Path, *, seed: int = 1, filters: int = 8) -> Path:
    """Write a convolution, a mean and a softmax as ``model.onnx`` of a version's folder; return the folder."""
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((filters, 3, 3, 3), dtype=np.float32)
    head = rng.standard_normal((filters, CLASSES), dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(head, "head")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    return folder


def copy(source: Artifact, target: Path, task: Task) -> Facts:
    shutil.copy(source.path, target / "model.onnx")
    return {"removed": {"Identity": 2}, "notes": list(task.options.get("notes", []))}


def rounded(source: Artifact, target: Path, task: Task) -> Facts:
    """Round the weights to a few bits."""
    model = onnx.load(source.path)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        step = np.abs(values).max() / 7
        tensor.CopyFrom(numpy_helper.from_array((np.round(values / step) * step).astype(np.float32), tensor.name))
    onnx.save(model, target / "model.onnx")
    return {"calibrated_with": len(task.samples)}


def wrong(source: Artifact, target: Path, task: Task) -> Facts:
    model = onnx.load(source.path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, target / "model.onnx")
    return {}


def refused(source: Artifact, target: Path, task: Task) -> Facts:
    raise unimplemented(f"{source.path}: operation Softmax is not supported; leave it out")


def cramped(source: Artifact, target: Path, task: Task) -> Facts:
    raise ServingError(Code.RESOURCE_EXHAUSTED, "no memory is left just now")


def endless(source: Artifact, target: Path, task: Task) -> Facts:
    """Write half of an artifact, say so, and never end."""
    (target / "model.onnx").write_bytes(source.path.read_bytes()[:100])
    task.report("halfway")
    time.sleep(1000)
    return {}


def to_openvino(source: Artifact, target: Path, task: Task) -> Facts:
    import openvino

    openvino.save_model(openvino.convert_model(source.path), target / "model.xml", compress_to_fp16=False)
    return {}


_HERE = "tests.forge.pipeline_steps"
_ONNX = frozenset({"onnx"})

STEPS = (
    Step("tidy", "a copy", _ONNX, "onnx", f"{_HERE}:copy"),
    Step("coarse-onnx", "rounded weights", _ONNX, "onnx", f"{_HERE}:rounded", LOSSY, calibrated=True),
    Step("coarse-openvino", "rounded weights", frozenset({"openvino"}), "openvino", f"{_HERE}:rounded", LOSSY),
    Step("negate", "answers something else", _ONNX, "onnx", f"{_HERE}:wrong"),
    Step("refuse", "cannot", _ONNX, "onnx", f"{_HERE}:refused"),
    Step("cram", "finds no room", _ONNX, "onnx", f"{_HERE}:cramped"),
    Step("stall", "takes for ever", _ONNX, "onnx", f"{_HERE}:endless"),
    Step("onnx-openvino", "OpenVINO of ONNX", _ONNX, "openvino", f"{_HERE}:to_openvino"),
    Step("settle", "a copy of an IR", frozenset({"openvino"}), "openvino", f"{_HERE}:copy_ir"),
)


def copy_ir(source: Artifact, target: Path, task: Task) -> Facts:
    for suffix in (".xml", ".bin"):
        shutil.copy(source.path.with_suffix(suffix), target / f"model{suffix}")
    return {}
