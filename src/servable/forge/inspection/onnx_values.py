"""Values of small integers in an ONNX graph: exporters compute shapes by more steps than ONNX's inference follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from servable.core.tensors import DTYPES_BY_NAME, Array
from servable.protos import onnx

_MOST = 64
_DTYPES = {7: "int64", 6: "int32"}
_DATA = {7: "int64_data", 6: "int32_data"}
_TWO: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.floor_divide, "Max": np.maximum,
    "Min": np.minimum,
}  # fmt: skip


def known_values(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the integers that follow from constants and from the shapes of tensors."""
    values: dict[str, Array] = {}
    for tensor in graph.initializer:
        _keep(values, tensor.name, _array(tensor))
    for node in graph.node:
        if node.output:
            try:
                _keep(values, node.output[0], _compute(node, values, shapes))
            except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError):
                continue
    return values


def shape_given(node: Any, values: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> Sequence[int] | None:
    """Return the shape of what is reshaped, expanded or filled to a computed shape."""
    if node.op_type == "ConstantOfShape" and node.input[0] in values:
        return [int(size) for size in values[node.input[0]]]
    if node.op_type not in ("Reshape", "Expand") or len(node.input) < 2:
        return None
    data, wanted = shapes.get(node.input[0]), values.get(node.input[1])
    if data is None or wanted is None:
        return None
    sizes = [int(size) for size in wanted]
    if node.op_type == "Expand":
        return list(np.broadcast_shapes(data, tuple(sizes)))
    if not _number(node, "allowzero", 0):
        sizes = [data[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    rest = math.prod(size for size in sizes if size >= 0)
    if sizes.count(-1) > 1 or (-1 in sizes and not rest):
        return None
    return [math.prod(data) // rest if size == -1 else size for size in sizes]


def _keep(values: dict[str, Array], name: str, value: Any) -> None:
    if value is not None and np.size(value) <= _MOST and np.asarray(value).dtype.kind in "iu":
        values[name] = np.asarray(value, np.int64)


def _array(tensor: Any) -> Array | None:
    name = _DTYPES.get(tensor.data_type)
    if name is None or tensor.data_location == onnx.TensorProto.EXTERNAL or math.prod(tensor.dims) > _MOST:
        return None
    numpy_type = DTYPES_BY_NAME[name].numpy
    flat = np.frombuffer(tensor.raw_data, numpy_type) if tensor.raw_data else getattr(tensor, _DATA[tensor.data_type])
    array = np.array(flat, numpy_type)
    return array.reshape(tuple(tensor.dims)) if array.size == math.prod(tensor.dims) else None


def _compute(node: Any, values: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    kind = node.op_type
    if kind == "Constant":
        return next((_array(given.t) for given in node.attribute if given.name == "value"), None)
    if kind in ("Shape", "Size"):
        shape = shapes[node.input[0]]
        return (
            math.prod(shape) if kind == "Size" else shape[_number(node, "start", 0) : _number(node, "end", len(shape))]
        )
    given = [values[name] for name in node.input if name]
    if kind in _TWO:
        return _TWO[kind](given[0], given[1])
    if kind in ("Identity", "Cast"):
        return given[0] if _number(node, "to", 7) in _DTYPES else None
    if kind == "Concat":
        return np.concatenate(given, _number(node, "axis", 0))
    if kind == "Gather":
        return np.take(given[0], given[1], axis=_number(node, "axis", 0))
    if kind in ("Squeeze", "Unsqueeze", "Reshape"):
        return given[0].reshape(-1) if kind != "Squeeze" else given[0].squeeze()
    if kind == "Slice" and given[0].ndim == 1:
        return given[0][int(given[1][0]) : int(given[2][0]) : int(given[4][0]) if len(given) > 4 else 1]
    if kind == "ReduceProd":
        return np.prod(given[0], keepdims=bool(_number(node, "keepdims", 1)))
    return None


def _number(node: Any, name: str, default: int) -> int:
    return next((int(given.i) for given in node.attribute if given.name == name), default)
