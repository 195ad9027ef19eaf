"""Tensors of PyTorch and arrays: the same memory, by way of bit patterns for types that numpy itself does not know."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from servable.core.tensors import Array, DType, dtype_named

_PATTERNS: Final[Mapping[str, str]] = MappingProxyType(
    {"bfloat16": "uint16", "float8_e5m2": "uint8", "float8_e4m3fn": "uint8"}
)
_NAMES: Final = (
    "float16", "bfloat16", "float32", "float64", "float8_e5m2", "float8_e4m3fn", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128",
)  # fmt: skip
"""The element types that PyTorch has of ours; it calls them the same."""


def holds(dtype: DType) -> bool:
    """Return whether PyTorch has tensors of this type."""
    return dtype.name in _NAMES


@functools.cache
def dtype_of(tensor_dtype: Any) -> DType:
    """Return the element type for PyTorch's; one that no array holds (a quantized one) is known by name alone."""
    return dtype_named(str(tensor_dtype).removeprefix("torch."))


def to_tensor(torch: Any, array: Array, dtype: DType) -> Any:
    """Return an array as a tensor. It shares the array's memory where PyTorch may write to that."""
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = np.array(array, order="C")
    pattern = _PATTERNS.get(dtype.name)
    if pattern is None:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(pattern)).view(getattr(torch, dtype.name))


def to_array(torch: Any, tensor: Any) -> Array:
    """Return a tensor as an array."""
    dtype = dtype_of(tensor.dtype)
    pattern = _PATTERNS.get(dtype.name)
    if pattern is None:
        found: Array = tensor.numpy(force=True)
        return found
    bits: Array = tensor.contiguous().view(getattr(torch, pattern)).numpy(force=True)
    return bits.view(dtype.numpy)
