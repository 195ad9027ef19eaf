"""ONNX files with 16-bit floats or 8-bit weights. Needs no data. Steps: they run in the worker."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.tensors import Array
from servable.engines.base import Artifact
from servable.forge.quantization import graphs
from servable.forge.quantization.eight_bits import quantized
from servable.forge.quantization.keep import chosen
from servable.forge.steps import Facts, Task

SMALLEST: Final = 1024
"""Elements below which a constant is left alone: there is nothing to gain."""
DYNAMIC: Final = ("LSTM", "MatMul", "Gemm")
"""What ONNX Runtime computes faster with weights of 8 bits. A convolution it computes ten times more slowly so."""
_LARGEST_HALF: Final = 65504.0
_SMALLEST_HALF: Final = 5.96e-8


def fp16(source: Artifact, target: Path, task: Task) -> Facts:
    """Make constants and arithmetic float16; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = graphs.read(source.path)
    keep = chosen(task.options.get("keep_float", ()), graphs.nodes_of(model))
    before = graphs.bytes_by_type(model)
    beyond = _beyond_half(model)
    casts = _count(model, "Cast")
    halved = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=list(DEFAULT_OP_BLOCK_LIST), node_block_list=keep
    )
    graphs.write(halved, target)
    notes = [
        (
            "ONNX Runtime's CPU has kernels in float16 for few operations and computes the others in float32 between "
            "casts: the file is smaller, not faster; OpenVINO's form (--engine openvino) is as fast as the source"
        )
    ]
    if beyond:
        notes.append(f"{beyond} numbers of the constants are beyond float16 and were moved to its ends")
    return {
        "constants_before": before,
        "constants_after": graphs.bytes_by_type(halved),
        "casts_added": _count(halved, "Cast") - casts,
        "kept_float": keep,
        "notes": notes,
    }


def int8_weights(source: Artifact, target: Path, task: Task) -> Facts:
    """Keep weights as int8 with a scale for each output channel, row or gate."""
    model = graphs.read(source.path)
    keep = chosen(task.options.get("keep_float", ()), graphs.nodes_of(model))
    before = graphs.bytes_by_type(model)
    computed = graphs.names_of_layers(model, frozenset(DYNAMIC))
    computed = [name for name in computed if name not in keep]
    if computed:
        task.report(f"int8-weights-onnx: {len(computed)} layers compute with weights of 8 bits")
        model = dynamic(model, target.parent, keep)
    stored = store(model, [*keep, *(f"{name}_MatMul" for name in keep)])
    if not stored and not computed:
        raise failed_precondition(
            f"{source.path} has no weights to quantize: no constant of {SMALLEST} float32 numbers or more feeds "
            f"{', '.join(sorted(_SHARED))}"
        )
    graphs.write(model, target)
    notes = []
    if stored:
        notes.append(
            "weights of convolutions and tables are kept in 8 bits and unfolded as the model loads (tables: as rows "
            "are read): the file is smaller, the speed that of float32"
        )
    if computed:
        notes.append("operations of ONNX Runtime's own are in it (com.microsoft): other engines cannot read it")
    return {
        "computed_in_int8": computed,
        "stored_as_int8": stored,
        "kept_float": keep,
        "constants_before": before,
        "constants_after": graphs.bytes_by_type(model),
        "notes": notes,
    }


def dynamic(model: Any, folder: Path, keep: list[str], kinds: tuple[str, ...] = DYNAMIC) -> Any:
    """Return the model with such layers in 8 bits whose activations are quantized as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    given, made = folder / "dynamic_in.onnx", folder / "dynamic_out.onnx"
    onnx.save(model, str(given))
    quantize_dynamic(
        str(given),
        str(made),
        op_types_to_quantize=list(kinds),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*keep, *(f"{name}_MatMul" for name in keep)],
    )
    return onnx.load(str(made))


def store(model: Any, keep: Sequence[str]) -> list[str]:
    """Replace weights by int8 ones that are turned back by two operations; return the names of those replaced.

    Cast and Mul of constants are folded by every engine as it loads, DequantizeLinear by none: it would be computed
    with every request.
    """
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, place))
    outputs = {output.name for output in model.graph.output}
    stored: list[str] = []
    unfolding: list[Any] = []
    rows: dict[str, list[Any]] = {}
    for tensor in list(model.graph.initializer):
        uses = readers.get(tensor.name, [])
        if tensor.name in outputs or any(node.name in keep for node, _ in uses) or not _worthwhile(tensor):
            continue
        axes = next((axes for node, place in uses if (axes := _shared_axes(node, place, tensor)) is not None), None)
        if axes is None:
            continue
        _add_small(model, tensor.name, *quantized(graphs.array_of(tensor), axes))
        if all(node.op_type == "Gather" and place == 0 for node, place in uses):
            rows |= {node.name: _rows(tensor.name, node) for node, _ in uses}
        else:
            unfolding += _unfold(tensor.name)
        model.graph.initializer.remove(tensor)
        stored.append(tensor.name)
    nodes = [*unfolding, *(one for node in model.graph.node for one in rows.get(node.name, [node]))]
    fresh = [copy.deepcopy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(fresh)
    return stored


def _worthwhile(tensor: Any) -> bool:
    import onnx

    size = int(np.prod(tensor.dims, dtype=np.int64))
    return bool(tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1 and size >= SMALLEST)


def _attribute(node: Any, name: str) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), 0)


def _all_but(axis: int) -> Callable[[Any, int], tuple[int, ...]]:
    return lambda _node, rank: tuple(other for other in range(rank) if other != axis)


_SHARED: Final[Mapping[str, Mapping[int, Callable[[Any, int], tuple[int, ...]]]]] = MappingProxyType(
    {
        "Conv": {1: _all_but(0)},
        "ConvTranspose": {1: _all_but(1)},
        "Gather": {0: _all_but(0)},
        "Gemm": {1: lambda node, _rank: (1,) if _attribute(node, "transB") else (0,)},
        "GRU": {1: lambda _node, rank: (rank - 1,), 2: lambda _node, rank: (rank - 1,)},
        "LSTM": {1: lambda _node, rank: (rank - 1,), 2: lambda _node, rank: (rank - 1,)},
        "MatMul": {0: lambda _node, rank: (rank - 1,), 1: lambda _node, rank: (rank - 2,)},
        "RNN": {1: lambda _node, rank: (rank - 1,), 2: lambda _node, rank: (rank - 1,)},
    }
)
"""Operation -> place of its weights -> the axes along which numbers share a scale."""


def _shared_axes(node: Any, place: int, tensor: Any) -> tuple[int, ...] | None:
    found = _SHARED.get(node.op_type, {}).get(place)
    if found is None or node.domain or (node.op_type == "Gather" and _attribute(node, "axis")):
        return None
    return found(node, len(tensor.dims))


def _unfold(name: str) -> list[Any]:
    from onnx import TensorProto, helper

    return [
        helper.make_node("Cast", [f"{name}_int8"], [f"{name}_wide"], name=f"{name}/Cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_wide", f"{name}_scale"], [name], name=f"{name}/Mul"),
    ]


def _rows(name: str, node: Any) -> list[Any]:
    """Return what stands for a reader of a table: it reads small rows and their scales, and multiplies."""
    from onnx import TensorProto, helper

    index, row = node.input[1], node.output[0]
    return [
        helper.make_node("Gather", [f"{name}_int8", index], [f"{row}_int8"], name=f"{node.name}/rows", axis=0),
        helper.make_node("Cast", [f"{row}_int8"], [f"{row}_wide"], name=f"{node.name}/Cast", to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scale", index], [f"{row}_scale"], name=f"{node.name}/scales", axis=0),
        helper.make_node("Mul", [f"{row}_wide", f"{row}_scale"], [row], name=node.name),
    ]


def _add_small(model: Any, name: str, small: Array, scale: Array) -> None:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(small, f"{name}_int8"))
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))


def _beyond_half(model: Any) -> int:
    import onnx

    found = 0
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            sizes = np.abs(graphs.array_of(tensor))
            found += int(np.count_nonzero((sizes > _LARGEST_HALF) | ((sizes > 0) & (sizes < _SMALLEST_HALF))))
    return found


def _count(model: Any, kind: str) -> int:
    return sum(node.op_type == kind for node in model.graph.node)
