"""Tensors in memory that two processes map: one writes them, the other takes copies, in turns.

Copies, because a framework may keep what it is given (TensorFlow aliases an aligned array into a variable), and the
next call overwrites this memory. Elements lie row-major at multiples of 64 bytes; a string tensor is the lengths of
its elements (int64) followed by their bytes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

import numpy as np

from servable.core.tensors import DTYPES_BY_NAME, STRING, Array, dtype_of
from servable.engines.child_messages import Place

ALIGNMENT = 64
START_SIZE = 1024 * 1024
KEPT_SIZE = 64 * START_SIZE
"""An arena that grew beyond this for one large call shrinks back after it: both sides do so in their turn."""


def new_memory(name: str) -> int:
    """Return a descriptor of fresh memory without a name, for an ``Arena`` here and one in a child."""
    fd = os.memfd_create(name)
    os.ftruncate(fd, START_SIZE)
    return fd


class Arena:
    """One direction of tensors. Takes the descriptor over."""

    def __init__(self, fd: int) -> None:
        try:
            self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)  # the map keeps a descriptor of its own, by which it resizes

    @property
    def size(self) -> int:
        """Return the bytes mapped."""
        return len(self._map)

    def put(self, tensors: Iterable[tuple[str, Array]]) -> list[Place]:
        """Write tensors over what was there and return where they are. Grows as needed."""
        self.shrink()
        places: list[Place] = []
        values: list[Array | bytes] = []
        end = 0
        for name, array in tensors:
            dtype = dtype_of(array)
            value = _pack(array) if dtype is STRING else array
            size = len(value) if isinstance(value, bytes) else value.size * dtype.itemsize
            places.append(Place(name, dtype.name, array.shape, end, size))
            values.append(value)
            end += -(-size // ALIGNMENT) * ALIGNMENT
        if end > len(self._map):
            self._map.resize(_rounded(end))
        for place, value in zip(places, values, strict=True):
            self._write(place, value)
        return places

    def _write(self, place: Place, value: Array | bytes) -> None:
        if isinstance(value, bytes):
            self._map[place.begin : place.begin + place.size] = value
        elif place.size:
            self._view(place)[...] = value

    def _view(self, place: Place) -> Array:
        return np.ndarray(place.shape, DTYPES_BY_NAME[place.dtype].numpy, self._map, place.begin)

    def take(self, places: Iterable[Place], size: int) -> dict[str, Array]:
        """Return copies of the tensors that the other side put; ``size`` is its arena's."""
        if size != len(self._map):
            self._map.resize(size)
        tensors = {place.name: self._read(place) for place in places}
        self.shrink()
        return tensors

    def _read(self, place: Place) -> Array:
        if place.dtype == STRING.name:
            return _unpack(self._map[place.begin : place.begin + place.size], place.shape)
        if not place.size:
            return np.empty(place.shape, DTYPES_BY_NAME[place.dtype].numpy)
        return self._view(place).copy()

    def shrink(self) -> None:
        """Give back what one large call took."""
        if len(self._map) > KEPT_SIZE:
            self._map.resize(KEPT_SIZE)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


def _rounded(size: int) -> int:
    """Grow by doubling, so that slowly growing calls seldom resize."""
    return int(1 << (size - 1).bit_length()) if size < KEPT_SIZE else -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _pack(array: Array) -> bytes:
    elements = array.reshape(-1).tolist()
    lengths = np.fromiter(map(len, elements), np.int64, len(elements))
    return lengths.tobytes() + b"".join(elements)


def _unpack(data: bytes, shape: tuple[int, ...]) -> Array:
    array = np.empty(shape, dtype=object)
    flat = array.reshape(-1)
    begin = 8 * array.size
    for index, length in enumerate(np.frombuffer(data, np.int64, array.size).tolist()):
        flat[index] = data[begin : begin + length]
        begin += length
    return array
