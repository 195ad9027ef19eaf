"""Tensors of the Open Inference Protocol: its names of types, raw bytes, and typed contents."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np

from servable.core import tensors as core
from servable.core.errors import invalid_argument
from servable.core.signatures import Shape, TensorSpec
from servable.core.tensors import STRING, Array, DType, as_tensor, dtype_of

_NAMES: Final = {
    core.BOOL: "BOOL",
    core.UINT8: "UINT8",
    core.UINT16: "UINT16",
    core.UINT32: "UINT32",
    core.UINT64: "UINT64",
    core.INT8: "INT8",
    core.INT16: "INT16",
    core.INT32: "INT32",
    core.INT64: "INT64",
    core.FLOAT16: "FP16",
    core.BFLOAT16: "BF16",
    core.FLOAT32: "FP32",
    core.FLOAT64: "FP64",
    STRING: "BYTES",
}
_DTYPES: Final = {name: dtype for dtype, name in _NAMES.items()}
RAW_ONLY: Final = frozenset({"FP16", "BF16"})
"""Types that neither JSON nor typed contents can carry."""
CONTENTS: Final = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Type -> member of InferTensorContents."""
_SIZE = struct.Struct("<I")


def datatype_of(array: Array) -> str:
    """Return the protocol's name of an array's element type; INVALID_ARGUMENT for one that it has not."""
    dtype = dtype_of(array)
    name = _NAMES.get(dtype)
    if name is None:
        raise invalid_argument(f"the Open Inference Protocol has no type for {dtype}: it has {', '.join(_DTYPES)}")
    return name


def dtype_named(datatype: str) -> DType:
    """Return the element type of that name; INVALID_ARGUMENT if there is none."""
    found = _DTYPES.get(datatype)
    if found is None:
        raise invalid_argument(f"{datatype!r} is no datatype: expected one of {', '.join(_DTYPES)}")
    return found


def to_raw(array: Array) -> bytes:
    """Return the bytes of a tensor: little-endian, row by row; each string with its length before it."""
    if dtype_of(array) is STRING:
        pieces: list[bytes] = []
        for item in as_tensor(array, STRING).reshape(-1):
            pieces += (_SIZE.pack(len(item)), item)
        return b"".join(pieces)
    return np.ascontiguousarray(array).tobytes()


def from_raw(data: bytes | memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """Return the tensor that raw bytes are; INVALID_ARGUMENT if their number does not fit type and shape."""
    dtype, sizes = dtype_named(datatype), checked_shape(shape)
    count = elements(sizes)
    if dtype is STRING:
        return _strings(bytes(data), count).reshape(sizes)
    expected = count * dtype.itemsize
    if len(data) != expected:
        raise invalid_argument(f"{len(data)} bytes are no {datatype} of shape {list(sizes)}: expected {expected}")
    return np.frombuffer(data, dtype.numpy).reshape(sizes)


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape whose sizes are whole numbers of 0 or more; INVALID_ARGUMENT otherwise."""
    sizes = tuple(shape)
    if any(type(size) is not int or size < 0 for size in sizes):
        raise invalid_argument(f"{list(sizes)} is no shape: expected whole numbers of 0 or more")
    return sizes


def elements(shape: Sequence[int]) -> int:
    """Return how many elements a shape has."""
    count = 1
    for size in shape:
        count *= size
    return count


def spec_of(name: str, datatype: str, shape: Sequence[int]) -> TensorSpec:
    """Return what metadata say of a tensor; -1 is a free size."""
    sizes: Shape = tuple(None if size < 0 else size for size in shape)
    return TensorSpec(name, dtype_named(datatype), sizes, name)


def _strings(data: bytes, count: int) -> Array:
    found = np.empty(count, object)
    position = 0
    for place in range(count):
        if len(data) - position < _SIZE.size:
            raise invalid_argument(f"the raw bytes end at string {place} of {count}")
        (size,) = _SIZE.unpack_from(data, position)
        position += _SIZE.size
        if len(data) - position < size:
            raise invalid_argument(f"string {place} of {count} should have {size} bytes, but the raw bytes end before")
        found[place] = data[position : position + size]
        position += size
    if position != len(data):
        raise invalid_argument(f"{len(data) - position} raw bytes follow the last of {count} strings")
    return found
