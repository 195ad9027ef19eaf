"""Networks of signs as Python models: a program of few operations, which ``packed_network`` runs in numpy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition, unimplemented
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array
from servable.forge.compression import packed_network
from servable.forge.compression.binary import is_plus
from servable.forge.compression.graph import BINARIZE, Graph, attribute

NETWORK_FILE: Final = "network.npz"


def write_packed(graph: Graph, signature: Signature, folder: Path) -> Path:
    """Write a marked graph as a Python model: ``model.py``, the code that counts bits, and ``network.npz``."""
    constants: dict[str, Array] = {}
    program: list[dict[str, Any]] = []
    for node in graph.nodes:
        program += _steps(graph, node, constants)
    program += [{"operation": "Output", "inputs": [name], "output": name} for name in graph.outputs]
    used = {name for step in program for name in step["inputs"]}
    stored = {f"constant/{name}": value for name, value in constants.items() if name in used}
    text = np.frombuffer(json.dumps(program).encode(), np.uint8)
    # Compressed: the few layers that are no bits are floats, and the program is text.
    np.savez_compressed(folder / NETWORK_FILE, program=text, **stored)  # type: ignore[arg-type]  # names
    shutil.copyfile(packed_network.__file__, folder / "packed_network.py")
    (folder / "model.py").write_text(_model_file(signature))
    return folder / NETWORK_FILE


def _steps(graph: Graph, node: Any, constants: dict[str, Array]) -> list[dict[str, Any]]:
    """Return a node as steps of a program; their constants are added to ``constants``."""
    if node.op_type == BINARIZE and graph.is_constant(node.input[0]):
        return []
    for name in node.input:
        if graph.is_constant(name):
            constants[name] = graph.array(name)
    step: dict[str, Any] = {"operation": node.op_type, "inputs": list(node.input), "output": node.output[0]}
    if node.op_type in {"Conv", "Gemm", "MatMul"} and (marked := graph.maker(node.input[1])) is not None:
        return [_binary_step(graph, node, marked, step, constants)]
    write = _PLAIN.get(node.op_type)
    if write is None and node.op_type not in packed_network.OPERATIONS:
        raise unimplemented(
            f"a packed network has no operation {node.op_type} (node {node.name or node.output[0]}); "
            f"it has {', '.join(sorted({*packed_network.OPERATIONS, *_PLAIN}))}"
        )
    return [step if write is None else step | write(graph, node, constants)]


def _binary_step(
    graph: Graph, node: Any, marked: Any, step: dict[str, Any], constants: dict[str, Array]
) -> dict[str, Any]:
    name = marked.input[0]
    bits = is_plus(graph.array(name))
    if node.op_type == "Conv":
        constants[f"{name}/bits"] = packed_network.pack(np.moveaxis(bits, 1, -1))
        more = {
            "operation": "BinaryConv",
            "strides": list(attribute(node, "strides")),
            "pads": list(attribute(node, "pads")),
        }
    else:
        rows = bits if attribute(node, "transB", 0) else bits.T
        constants[f"{name}/bits"] = packed_network.pack(rows)
        more = {"operation": "BinaryDense"}
    return step | more | {"inputs": [node.input[0], f"{name}/bits"]}


def _scale_step(graph: Graph, node: Any, constants: dict[str, Array]) -> dict[str, Any]:
    scale, bias, mean, variance = (graph.array(name).astype(np.float64) for name in node.input[1:5])
    factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    names = [f"{node.output[0]}/factor", f"{node.output[0]}/shift"]
    for name, value in zip(names, (factor, bias - mean * factor), strict=True):
        constants[name] = value.astype(np.float32)
    return {"operation": "Scale", "inputs": [node.input[0], *names]}


def _clip_step(graph: Graph, node: Any, _constants: dict[str, Array]) -> dict[str, Any]:
    bounds = [float(graph.array(name)) for name in node.input[1:3]]
    return {"inputs": [node.input[0]], "low": bounds[0], "high": bounds[1]}


def _conv_step(_graph: Graph, node: Any, _constants: dict[str, Array]) -> dict[str, Any]:
    if attribute(node, "group", 1) != 1 or set(attribute(node, "dilations", [1])) != {1}:
        raise unimplemented(f"a packed network has no groups or dilations (node {node.name or node.output[0]})")
    return {
        "strides": list(attribute(node, "strides", [1, 1])),
        "pads": list(attribute(node, "pads", [0, 0, 0, 0])),
    }


def _pool_step(_graph: Graph, node: Any, _constants: dict[str, Array]) -> dict[str, Any]:
    size = list(attribute(node, "kernel_shape"))
    if any(attribute(node, "pads", [0])) or attribute(node, "ceil_mode", 0):
        raise unimplemented(f"a packed network pools without padding only (node {node.name or node.output[0]})")
    return {"size": size, "strides": list(attribute(node, "strides", [1] * len(size)))}


def _gemm_step(_graph: Graph, node: Any, _constants: dict[str, Array]) -> dict[str, Any]:
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0 or attribute(node, "transA", 0):
        raise unimplemented(f"a packed network has plain products only (node {node.name or node.output[0]})")
    return {"transposed": bool(attribute(node, "transB", 0))}


_PLAIN: Final[Mapping[str, Callable[[Graph, Any, dict[str, Array]], dict[str, Any]]]] = {
    "AveragePool": _pool_step,
    "BatchNormalization": _scale_step,
    "Clip": _clip_step,
    "Conv": _conv_step,
    "Flatten": lambda _graph, node, _constants: {"axis": attribute(node, "axis", 1)},
    "Gemm": _gemm_step,
    "MatMul": lambda _graph, _node, _constants: {"operation": "Gemm", "transposed": False},
    "MaxPool": _pool_step,
    "Softmax": lambda _graph, node, _constants: {"axis": attribute(node, "axis", -1)},
    "Transpose": lambda _graph, node, _constants: {"order": list(attribute(node, "perm"))},
}


def _model_file(signature: Signature) -> str:
    for name in signature.inputs:
        if not name.isidentifier():
            raise failed_precondition(f"input {name!r} cannot be a parameter in Python: rename it in the ONNX file")
    inputs = ", ".join(f"{name}: {_annotation(spec)}" for name, spec in signature.inputs.items())
    outputs = ", ".join(f"{name!r}: {_annotation(spec)}" for name, spec in signature.outputs.items())
    given = ", ".join(f"{name!r}: {name}" for name in signature.inputs)
    return f'''"""A network whose inner layers have weights and inputs of one bit; packed_network.py counts them."""

from typing import TypedDict

from packed_network import PackedNetwork
from servable import Tensor

Answer = TypedDict("Answer", {{{outputs}}})


class Binary:
    def load(self, directory):
        self.network = PackedNetwork(directory / "{NETWORK_FILE}")

    def predict(self, {inputs}) -> Answer:
        return self.network.run({{{given}}})
'''


def _annotation(spec: TensorSpec) -> str:
    if spec.shape is None:
        return f'Tensor["{spec.dtype.name}"]'
    sizes = ["'n'" if axis == 0 and size is None else repr(size) for axis, size in enumerate(spec.shape)]
    return f'Tensor["{spec.dtype.name}", {", ".join(sizes) or "()"}]'
