"""Values of small integers in a TensorFlow graph: what shapes, axes and bounds of loops are computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from servable.core.tensors import DTYPES_BY_NAME, Array
from servable.forge.inspection.tf_known import Call, Known, is_followed
from servable.forge.inspection.tf_shapes import sliced

_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "FloorDiv": np.floor_divide,
    "FloorMod": np.mod, "Maximum": np.maximum, "Minimum": np.minimum, "RealDiv": np.true_divide,
    "Equal": np.equal, "NotEqual": np.not_equal, "Less": np.less, "LessEqual": np.less_equal,
    "Greater": np.greater, "GreaterEqual": np.greater_equal, "LogicalAnd": np.logical_and, "LogicalOr": np.logical_or,
}  # fmt: skip
_UNARY: Mapping[str, Callable[[Any], Any]] = {
    "Identity": np.asarray, "Neg": np.negative, "Abs": np.abs, "LogicalNot": np.logical_not, "Cast": np.asarray,
    "Ceil": np.ceil, "Floor": np.floor, "StopGradient": np.asarray, "EnsureShape": np.asarray,
}  # fmt: skip
_FROM_ALL: Mapping[str, Callable[[tuple[int, ...]], Any]] = {
    "Shape": np.array,
    "Size": np.prod,
    "Rank": len,
}
_SAME_BYTES = frozenset({"Reshape", "Squeeze", "ExpandDims"})
_REDUCTIONS: Mapping[str, Callable[..., Any]] = {
    "Prod": np.prod, "Sum": np.sum, "Max": np.max, "Min": np.min, "All": np.all, "Any": np.any,
}  # fmt: skip


def value_of(call: Call, output: Known) -> Array | None:
    """Return the value of a node's one output if it is small and follows from values that are known."""
    assert output.shape is not None
    if not is_followed(output.dtype, output.shape):
        return None
    try:
        found = _compute(call, output.shape)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError):
        return None
    if found is None:
        return None
    with np.errstate(all="ignore"):
        array = np.asarray(found).astype(DTYPES_BY_NAME[output.dtype].numpy)
    return array.reshape(output.shape) if array.size == np.prod(output.shape, dtype=np.int64) else None


def _compute(call: Call, shape: tuple[int, ...]) -> Any:
    op = call.node.op
    if op in _FROM_ALL:
        given = call.inputs[0].shape
        return None if given is None else _FROM_ALL[op](given)
    values = [known.value for known in call.inputs]
    if op in ("Fill", "BroadcastTo") and len(values) > 1:
        source = values[1] if op == "Fill" else values[0]
        return None if source is None else np.broadcast_to(source, shape)
    if op in _SAME_BYTES:
        return values[0]
    given_values = [value for value in values if value is not None]
    if not given_values or len(given_values) != len(values):
        return None
    with np.errstate(all="ignore"):
        return _of_values(call, op, given_values)


def _of_values(call: Call, op: str, values: list[Array]) -> Any:  # noqa: PLR0911  # one line for each operation
    if op in _BINARY:
        return _BINARY[op](values[0], values[1])
    if op in _UNARY:
        return _UNARY[op](values[0])
    if op in _REDUCTIONS:
        return _REDUCTIONS[op](values[0], axis=tuple(int(axis) for axis in values[1].reshape(-1)))
    if op == "Pack":
        return np.stack(values, call.integer("axis"))
    if op == "ConcatV2":
        return np.concatenate(values[:-1], int(values[-1]))
    if op == "StridedSlice":
        return values[0][sliced(call)]
    if op == "Slice":
        begin, size = call.integers(1), call.integers(2)
        return values[0][tuple(slice(b, None if s < 0 else b + s) for b, s in zip(begin, size, strict=True))]
    if op in ("GatherV2", "Gather"):
        return np.take(values[0], values[1], axis=int(values[2]) if len(values) > 2 else 0)
    if op == "Range":
        return np.arange(*(value.item() for value in values[:3]))
    if op in ("Select", "SelectV2"):
        return np.where(values[0], values[1], values[2])
    return None
