"""TensorFlow's protos of tensors, types and shapes, as ours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from servable.core.errors import Code, ServingError
from servable.core.signatures import Shape
from servable.core.tensors import DTYPES_BY_NAME, STRING, Array, DType, dtype_named
from servable.protos import tensorflow

_OTHER_NAMES = {"half": "float16", "float": "float32", "double": "float64"}
_FIELDS = {
    "float32": "float_val", "float64": "double_val", "int64": "int64_val", "bool": "bool_val", "string": "string_val",
    "float16": "half_val", "bfloat16": "half_val", "complex64": "scomplex_val", "complex128": "dcomplex_val",
    "uint32": "uint32_val", "uint64": "uint64_val", "float8_e5m2": "float8_val", "float8_e4m3fn": "float8_val",
}  # fmt: skip
_SMALL_INTEGERS = "int_val"


def dtype_of(number: int) -> DType:
    """Return the element type for a TensorFlow ``DataType`` number.

    A type that no tensor of ours holds (``DT_INVALID``, ``DT_RESOURCE``, ...) is known by its name alone: "invalid".
    """
    try:
        name = tensorflow.DataType.Name(number).removeprefix("DT_").lower()
    except ValueError:
        name = f"type {number}"
    name = _OTHER_NAMES.get(name, name)
    return dtype_named(name)


def shape_of(proto: Any) -> Shape | None:
    """Return the shape that a TensorShapeProto states; ``None`` if it does not even state the rank."""
    if proto.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else None for dim in proto.dim)


def to_array(proto: Any) -> Array:
    """Return the tensor; DATA_LOSS if its shape, type and contents do not agree."""
    dtype = dtype_of(proto.dtype)
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if dtype.name not in DTYPES_BY_NAME or any(size < 0 for size in shape):
        raise ServingError(Code.DATA_LOSS, f"a tensor {dtype}{list(shape)} cannot be read")
    count = math.prod(shape)
    if proto.tensor_content and dtype is not STRING:
        if len(proto.tensor_content) != count * dtype.itemsize:
            raise ServingError(
                Code.DATA_LOSS, f"a tensor {dtype}{list(shape)} has {len(proto.tensor_content)} bytes of content"
            )
        return np.frombuffer(proto.tensor_content, dtype.numpy).reshape(shape)
    values = _values(getattr(proto, _FIELDS.get(dtype.name, _SMALL_INTEGERS)), dtype)[:count]
    array = np.zeros(count, dtype.numpy) if dtype is not STRING else np.full(count, b"", dtype=object)
    array[: len(values)] = values
    if len(values):
        array[len(values) :] = values[-1]  # the last value stands for all that follow
    return array.reshape(shape)


def _values(given: Any, dtype: DType) -> Array:
    if dtype is STRING:
        values = np.empty(len(given), dtype=object)
        values[:] = list(given)
        return values
    field = _FIELDS.get(dtype.name)
    if field == "half_val":  # each number carries sixteen bits of pattern
        return np.array(given, np.int64).astype(np.uint16).view(dtype.numpy)
    if field == "float8_val":
        return np.frombuffer(given, np.uint8).view(dtype.numpy)
    if field in ("scomplex_val", "dcomplex_val"):
        parts = np.array(given, np.float64)
        return (parts[0::2] + 1j * parts[1::2]).astype(dtype.numpy)
    wide = np.int64 if field is None else dtype.numpy
    return np.array(given, wide).astype(dtype.numpy)
