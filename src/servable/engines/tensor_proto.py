"""A TensorProto inside a graph or signature as an array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from servable.core.errors import Code, ServingError
from servable.core.tensors import (
    BFLOAT16,
    BOOL,
    COMPLEX64,
    COMPLEX128,
    FLOAT8_E4M3FN,
    FLOAT8_E5M2,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT8,
    INT16,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Array,
    DType,
)  # fmt: skip

_BY_NUMBER: dict[int, tuple[DType, str]] = {
    1: (FLOAT32, "float_val"), 2: (FLOAT64, "double_val"), 3: (INT32, "int_val"), 4: (UINT8, "int_val"),
    5: (INT16, "int_val"), 6: (INT8, "int_val"), 7: (STRING, "string_val"), 8: (COMPLEX64, "scomplex_val"),
    9: (INT64, "int64_val"), 10: (BOOL, "bool_val"), 14: (BFLOAT16, "half_val"), 17: (UINT16, "int_val"),
    18: (COMPLEX128, "dcomplex_val"), 19: (FLOAT16, "half_val"), 22: (UINT32, "uint32_val"),
    23: (UINT64, "uint64_val"), 24: (FLOAT8_E5M2, "float8_val"), 25: (FLOAT8_E4M3FN, "float8_val"),
}  # fmt: skip


def to_array(proto: Any) -> Array:
    """Return the tensor; DATA_LOSS if its shape, type and contents do not agree."""
    dtype, field = _BY_NUMBER.get(proto.dtype, (None, ""))
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if dtype is None or any(size < 0 for size in shape):
        raise ServingError(Code.DATA_LOSS, f"a tensor of type {proto.dtype} and shape {list(shape)} cannot be read")
    count = math.prod(shape)
    if proto.tensor_content and dtype is not STRING:
        if len(proto.tensor_content) != count * dtype.itemsize:
            raise ServingError(
                Code.DATA_LOSS, f"a tensor {dtype}{list(shape)} has {len(proto.tensor_content)} bytes of content"
            )
        return np.frombuffer(proto.tensor_content, dtype.numpy).reshape(shape)
    values = _values(getattr(proto, field), dtype)[:count]
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
    if dtype in (FLOAT16, BFLOAT16):  # each number carries sixteen bits of pattern
        return np.array(given, np.int64).astype(np.uint16).view(dtype.numpy)
    if dtype in (FLOAT8_E5M2, FLOAT8_E4M3FN):
        return np.frombuffer(given, np.uint8).view(dtype.numpy)
    if dtype in (COMPLEX64, COMPLEX128):
        parts = np.array(given, np.float64)
        return (parts[0::2] + 1j * parts[1::2]).astype(dtype.numpy)
    return np.array(given, None if len(given) else dtype.numpy).astype(dtype.numpy)
