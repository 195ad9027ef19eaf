"""TensorProto -> numpy, by the rules of TensorFlow's C++: what it accepts is accepted, and means the same.

Errors are ``ValueError`` with the reason. Which request and which input they belong to is the caller's to say.
The way back is ``tensor_bytes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from servable import protos
from servable.core import tensors
from servable.core.tensors import Array, DType, dtype_named
from servable.wire.varints import read_varint

MAX_FILL_BYTES = 64 * 1024 * 1024
"""How large a tensor may be that is not sent but declared: a shape with fewer values than elements."""

MAX_RANK = 64
_MAX_ELEMENTS = 2**62
_QUANTIZED = {11: tensors.INT8, 12: tensors.UINT8, 13: tensors.INT32, 15: tensors.INT16, 16: tensors.UINT16}

DTYPES: dict[int, DType] = {
    1: tensors.FLOAT32,
    2: tensors.FLOAT64,
    3: tensors.INT32,
    4: tensors.UINT8,
    5: tensors.INT16,
    6: tensors.INT8,
    7: tensors.STRING,
    8: tensors.COMPLEX64,
    9: tensors.INT64,
    10: tensors.BOOL,
    14: tensors.BFLOAT16,
    17: tensors.UINT16,
    18: tensors.COMPLEX128,
    19: tensors.FLOAT16,
    22: tensors.UINT32,
    23: tensors.UINT64,
    24: tensors.FLOAT8_E5M2,
    25: tensors.FLOAT8_E4M3FN,
    29: tensors.INT4,
    30: tensors.UINT4,
}
"""TensorFlow's DataType numbers -> element types. Quantized types are absent: see ``dtype_of_number``."""

NUMBERS: dict[str, int] = {dtype.name: number for number, dtype in DTYPES.items()}
"""Names of element types -> TensorFlow's DataType numbers."""

_SHORT_NAMES = {"float32": "float", "float64": "double", "float16": "half"}
VALUE_FIELDS: Mapping[str, str] = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "float8_e5m2": "float8_val",
    "float8_e4m3fn": "float8_val",
}
"""Names of element types -> the field of TensorProto that holds their values; those absent use ``int_val``."""

_FIELD_DTYPES: dict[str, np.dtype[Any]] = {
    "float_val": np.dtype(np.float32),
    "double_val": np.dtype(np.float64),
    "int_val": np.dtype(np.int32),
    "half_val": np.dtype(np.int32),
    "scomplex_val": np.dtype(np.float32),
    "dcomplex_val": np.dtype(np.float64),
    "int64_val": np.dtype(np.int64),
    "uint32_val": np.dtype(np.uint32),
    "uint64_val": np.dtype(np.uint64),
    "bool_val": np.dtype(np.bool_),
}


def short_name(dtype: DType) -> str:
    """Return TensorFlow's name of an element type inside messages: ``float``, ``double``, ``half``, ``int32``."""
    return _SHORT_NAMES.get(dtype.name, dtype.name)


def dtype_of_number(number: int) -> DType | None:
    """Return the element type of a DataType number, ``None`` for those no array holds (resources, variants, refs).

    Quantized types are the integers that carry them.
    """
    return DTYPES.get(number) or _QUANTIZED.get(number)


def declared_dtype(number: int) -> DType:
    """Return what a signature declares; a type that no array holds is known by its name alone (``invalid``)."""
    return DTYPES.get(number) or dtype_named(_number_name(number).removeprefix("DT_").lower())


def number_of(dtype: DType) -> int:
    """Return the DataType number of an element type, of those too that are known by name alone; else DT_INVALID."""
    number = NUMBERS.get(dtype.name)
    if number is not None:
        return number
    try:
        return int(protos.tensorflow.DataType.Value(f"DT_{dtype.name.upper()}"))
    except ValueError:
        return 0


def decode_tensor(proto: Any, max_fill_bytes: int = MAX_FILL_BYTES) -> Array:
    """Return the array of a TensorProto. What came as ``tensor_content`` is a read-only view of those bytes.

    Missing values repeat the last one, or are zeros; ``max_fill_bytes`` bounds what a short message can so claim.
    """
    return _decode(proto, max_fill_bytes)[0]


def decode_tensors(inputs: Mapping[str, Any], max_fill_bytes: int = MAX_FILL_BYTES) -> dict[str, Array]:
    """Return the arrays of named TensorProtos, which share the bound. The error is ``(name, reason)``."""
    arrays: dict[str, Array] = {}
    for name in inputs:
        try:
            arrays[name], filled = _decode(inputs[name], max_fill_bytes)
        except ValueError as failure:
            raise ValueError(name, str(failure)) from None
        max_fill_bytes -= filled
    return arrays


def _decode(proto: Any, max_fill_bytes: int) -> tuple[Array, int]:
    """Return the array, and how many of its bytes stand for values that were not sent."""
    dtype = dtype_of_number(proto.dtype)
    if dtype is None:
        raise ValueError(f"{_number_name(proto.dtype)} is not a type of tensor that can be sent")
    shape = _shape(proto.tensor_shape)
    count = _count(shape)
    content = proto.tensor_content
    if content and count:
        return _from_content(content, dtype, shape, count), 0
    values = _values(proto, dtype)
    given = len(values)
    if given >= count:
        return values[:count].reshape(shape), 0
    fill = (count - given) * (dtype.itemsize or 8)
    if fill > max_fill_bytes:
        raise ValueError(f"shape {list(shape)} declares {count} elements, but {given} values were sent")
    return _fill(values, dtype, count).reshape(shape), fill


def _number_name(number: int) -> str:
    try:
        return str(protos.tensorflow.DataType.Name(number))
    except ValueError:
        return f"data type {number}"


def _shape(proto: Any) -> tuple[int, ...]:
    """Return the sizes. ``unknown_rank`` means nothing here: without sizes it is a scalar, with them it is ignored."""
    shape = tuple([dim.size for dim in proto.dim])
    if len(shape) > MAX_RANK:
        raise ValueError(f"the shape has {len(shape)} dimensions; at most {MAX_RANK} are possible")
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {list(shape)} has a negative size")
    return shape


def _count(shape: tuple[int, ...]) -> int:
    count = least = 1
    for size in shape:
        count *= size
        least *= size or 1
        if least > _MAX_ELEMENTS:
            raise ValueError(f"shape {list(shape)} has too many elements")
    return count


def _from_content(content: bytes, dtype: DType, shape: tuple[int, ...], count: int) -> Array:
    if dtype is tensors.STRING:
        return _strings_from_content(content, count).reshape(shape)
    if len(content) != count * dtype.itemsize:
        raise ValueError(
            f"tensor_content has {len(content)} bytes, but {short_name(dtype)}{list(shape)} takes "
            f"{count * dtype.itemsize}"
        )
    if dtype is tensors.BOOL and content.strip(b"\x00\x01"):  # numpy would keep such a byte and compare wrongly
        raise ValueError("tensor_content of a bool tensor has bytes other than 0 and 1")
    return np.frombuffer(content, dtype.numpy).reshape(shape)


def _strings_from_content(content: bytes, count: int) -> Array:
    if count > len(content):
        raise ValueError(f"tensor_content has {len(content)} bytes, too few for the lengths of {count} strings")
    lengths = []
    position = 0
    for _ in range(count):
        length, position = read_varint(content, position)
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ValueError(f"tensor_content has {len(content)} bytes, but its strings take {position + sum(lengths)}")
    strings = np.empty(count, dtype=object)
    for index, length in enumerate(lengths):
        strings[index] = content[position : position + length]
        position += length
    return strings


def _values(proto: Any, dtype: DType) -> Array:
    """Return the values of the field that belongs to ``dtype``, as many as were sent, in the tensor's own type."""
    name = dtype.name
    field = VALUE_FIELDS.get(name, "int_val")
    sent = getattr(proto, field)
    if field == "float8_val":
        return np.frombuffer(sent, dtype.numpy)
    if dtype is tensors.STRING:
        strings: Array = np.empty(len(sent), dtype=object)
        strings[:] = list(sent)
        return strings
    values: Array = np.array(sent, _FIELD_DTYPES[field])
    if field == "half_val":
        return values.astype(np.uint16).view(dtype.numpy)
    if dtype.numpy.kind == "c":
        return values[: len(values) // 2 * 2].view(dtype.numpy)
    if name in ("int4", "uint4"):
        return values.astype(np.int8).astype(dtype.numpy)
    return values.astype(dtype.numpy, copy=False)


def _fill(values: Array, dtype: DType, count: int) -> Array:
    filled: Array = np.empty(count, dtype.numpy)
    filled[: len(values)] = values
    if len(values):
        filled[len(values) :] = values[-1]
    else:
        filled.fill(b"" if dtype is tensors.STRING else 0)
    return filled
