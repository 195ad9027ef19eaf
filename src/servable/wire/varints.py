"""Protobuf's variable-length integers: one at a time, and whole arrays at once."""

from __future__ import annotations

import numpy as np

from servable.core.tensors import Array

_SMALL = 32


def varint(value: int) -> bytes:
    """Return the encoding of a non-negative integer."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the integer at ``position`` and the position after it; ``ValueError`` if there is none."""
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise ValueError(f"the bytes end inside a varint at {position}")


def pack_varints(values: Array) -> bytes:
    """Return the packed form of integers or booleans, in C order. Negative ones take ten bytes, as in protobuf."""
    flat = values.reshape(-1)
    if len(flat) <= _SMALL:
        numbers = flat.tolist()
        try:
            packed = bytes(numbers)
        except ValueError:
            packed = b"\xff"
        if packed.isascii():  # every number below 128 is its own encoding
            return packed
        return b"".join([varint(number & 0xFFFFFFFFFFFFFFFF) for number in numbers])
    return _pack_many(flat)


def _pack_many(flat: Array) -> bytes:
    numbers = flat.astype(np.int64).view(np.uint64) if flat.dtype.kind == "i" else flat.astype(np.uint64)
    largest = int(numbers.max())
    width = max(1, -(-largest.bit_length() // 7))
    if width == 1:
        return numbers.astype(np.uint8).tobytes()
    if largest < 2**32:
        numbers = numbers.astype(np.uint32)
    unsigned = numbers.dtype.type
    groups = np.empty((width, len(numbers)), np.uint8)  # one row for each seven bits
    used = np.ones((width, len(numbers)), np.bool_)
    for index in range(width):
        groups[index] = numbers >> unsigned(7 * index)
        if index:
            np.greater_equal(numbers, unsigned(1 << 7 * index), out=used[index])
    groups &= 0x7F
    groups[:-1][used[1:]] |= 0x80
    return groups.T[used.T].tobytes()
