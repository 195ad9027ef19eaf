"""Tensors are numpy arrays. This module names their element types and says how arrays and names correspond.

Strings are object arrays of ``bytes``. bfloat16, float8 and 4-bit integers use the numpy types of ``ml_dtypes``.
All data is little endian and, where bytes are taken, row-major.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import ml_dtypes
import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: its canonical name, the numpy type that holds it, and bytes per element (0 for strings)."""

    name: str
    numpy: np.dtype[Any]
    itemsize: int

    def __str__(self) -> str:
        """Return the canonical name."""
        return self.name


def _dtype(name: str, numpy_type: Any) -> DType:
    dtype = np.dtype(numpy_type)
    return DType(name, dtype, 0 if dtype.hasobject else dtype.itemsize)


FLOAT16 = _dtype("float16", np.float16)
BFLOAT16 = _dtype("bfloat16", ml_dtypes.bfloat16)
FLOAT32 = _dtype("float32", np.float32)
FLOAT64 = _dtype("float64", np.float64)
FLOAT8_E5M2 = _dtype("float8_e5m2", ml_dtypes.float8_e5m2)
FLOAT8_E4M3FN = _dtype("float8_e4m3fn", ml_dtypes.float8_e4m3fn)
INT4 = _dtype("int4", ml_dtypes.int4)
UINT4 = _dtype("uint4", ml_dtypes.uint4)
INT8 = _dtype("int8", np.int8)
INT16 = _dtype("int16", np.int16)
INT32 = _dtype("int32", np.int32)
INT64 = _dtype("int64", np.int64)
UINT8 = _dtype("uint8", np.uint8)
UINT16 = _dtype("uint16", np.uint16)
UINT32 = _dtype("uint32", np.uint32)
UINT64 = _dtype("uint64", np.uint64)
BOOL = _dtype("bool", np.bool_)
COMPLEX64 = _dtype("complex64", np.complex64)
COMPLEX128 = _dtype("complex128", np.complex128)
STRING = _dtype("string", np.object_)

ALL_DTYPES: tuple[DType, ...] = (
    FLOAT16, BFLOAT16, FLOAT32, FLOAT64, FLOAT8_E5M2, FLOAT8_E4M3FN, INT4, UINT4, INT8, INT16, INT32, INT64,
    UINT8, UINT16, UINT32, UINT64, BOOL, COMPLEX64, COMPLEX128, STRING,
)  # fmt: skip
DTYPES_BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in ALL_DTYPES}
_BY_NUMPY: dict[np.dtype[Any], DType] = {dtype.numpy: dtype for dtype in ALL_DTYPES}


def dtype_named(name: str) -> DType:
    """Return the element type of that name; one that no array holds (a resource, a variant) is known by name alone."""
    return DTYPES_BY_NAME.get(name) or DType(name, np.dtype("V"), 0)


def dtype_of(array: Array) -> DType:
    """Return the element type of an array; ``TypeError`` names a numpy type that no model takes (dates, records)."""
    found = _BY_NUMPY.get(array.dtype)
    if found is not None:
        return found
    if array.dtype.kind in "SU":
        return STRING
    native = array.dtype.newbyteorder("=")
    if native in _BY_NUMPY:
        return _BY_NUMPY[native]
    raise TypeError(
        f"an array of numpy type {array.dtype} is not a tensor; expected one of {', '.join(DTYPES_BY_NAME)}"
    )


def as_tensor(value: Any, dtype: DType | None = None) -> Array:
    """Return ``value`` (a number, string, list or array) as a tensor that this package's wires and engines take.

    Text becomes UTF-8 bytes, foreign byte orders become native. With ``dtype`` the value is converted to it;
    ``ValueError`` or ``TypeError`` says why it cannot be.
    """
    array = np.asarray(value)
    if dtype is STRING or (dtype is None and array.dtype.kind in "SUO"):
        return _as_strings(array)
    if array.dtype.kind in "SUO":
        raise TypeError(f"expected numbers ({dtype}), not text or objects")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    if dtype is not None and array.dtype != dtype.numpy:
        return array.astype(dtype.numpy)
    dtype_of(array)
    return array


def join_parts(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return an answer that came in parts as one: joined along the first axis, single numbers as a list of them.

    ``ValueError`` names an output whose parts do not fit, or says that there were none.
    """
    if not parts:
        raise ValueError("there are no parts to join")
    joined: dict[str, Array] = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        try:
            joined[name] = np.concatenate(arrays) if arrays[0].ndim else np.stack(arrays)
        except ValueError as error:
            raise ValueError(f"the parts of output {name} cannot be joined: {error}") from None
    return joined


def _as_strings(array: Array) -> Array:
    strings = np.empty(array.shape, dtype=object)
    flat = strings.reshape(-1)
    for index, item in enumerate(array.reshape(-1)):
        if isinstance(item, str):
            flat[index] = item.encode()
        elif isinstance(item, bytes | bytearray | memoryview):
            flat[index] = bytes(item)
        else:
            raise TypeError(f"a string tensor holds text or bytes, but element {index} is {type(item).__name__}")
    return strings


RTOL: Final = 1e-4
ATOL: Final = 1e-5
"""How far the same arithmetic in another order may be off, in float32: ``|a - b| <= ATOL + RTOL * |b|``."""


def close(found: Array, expected: Array, rtol: float = RTOL, atol: float = ATOL) -> bool:
    """Return whether shapes are equal and values are: ``|found - expected| <= atol + rtol * |expected|``, NaN as NaN.

    Strings, integers and booleans must be the same.
    """
    if found.shape != expected.shape:
        return False
    exact = found.dtype.kind in "biu" and expected.dtype.kind in "biu"
    if exact or found.dtype.hasobject or expected.dtype.hasobject:
        return bool(np.array_equal(found, expected))
    wide = np.complex128 if "c" in found.dtype.kind + expected.dtype.kind else np.float64
    return bool(np.allclose(found.astype(wide), expected.astype(wide), rtol, atol, equal_nan=True))
