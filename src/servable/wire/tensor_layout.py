"""Remembers where the tensors lie in messages of one kind, so that the next message like it need not be parsed.

A client that calls one model with one shape sends messages which differ in the tensors' data alone. ``LayoutMemory``
keeps, by total length, where the data lay and every byte that is not data. A new message of that length whose other
bytes are the same has the same structure: the parser never looks into the data, so it would find the same
fields at the same places, and the same data lengths. Hence a hit is exact, not a guess.

Only data that means itself takes part: ``tensor_content``, packed ``float_val`` and ``double_val`` of full length.
Strings, booleans and varints do not; such messages are never remembered and always parsed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from servable.core import tensors
from servable.core.tensors import Array
from servable.wire.varints import read_varint

_MAX_CONSTANT_BYTES = 2048
_MAX_SAME_SIZE = 4
_MAX_ATTEMPTS = 8
_COPY_BELOW = 4096
_VALUE_FIELDS = frozenset(range(4, 19))
_DATA_FIELDS = {4: None, 5: tensors.FLOAT32.numpy, 6: tensors.FLOAT64.numpy}
_LENGTH_DELIMITED = 2
_FIXED_SIZES = {1: 8, 5: 4}

_new_array = np.ndarray


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of message. ``head`` is whatever its constant bytes mean to the codec."""

    head: Any
    constants: tuple[tuple[int, bytes], ...]
    tensors: tuple[tuple[str, tuple[int, ...], np.dtype[Any], int, int], ...]

    def arrays(self, body: bytes, start: int) -> dict[str, Array]:
        """Return the tensors, read-only: aligned copies of small ones, views of large ones, perhaps unaligned."""
        found: dict[str, Array] = {}
        for name, shape, dtype, offset, size in self.tensors:
            if size < _COPY_BELOW:
                begin = start + offset
                found[name] = _new_array(shape, dtype, body[begin : begin + size])
            else:
                found[name] = _new_array(shape, dtype, body, start + offset)
        return found


class LayoutMemory:
    """The layouts of one message type, whose tensors are in map field ``field``. Bounded in number and bytes."""

    def __init__(self, field: int, capacity: int = 512) -> None:
        self._field = field
        self._capacity = capacity
        self._layouts: dict[int, tuple[Layout, ...]] = {}
        self._attempts: dict[int, int] = {}
        self._learning = threading.Lock()

    def find(self, body: bytes, start: int) -> Layout | None:
        """Return the layout of the message at ``body[start:]``, if it is known for certain."""
        for layout in self._layouts.get(len(body) - start, ()):
            for offset, constant in layout.constants:
                if not body.startswith(constant, start + offset):
                    break
            else:
                return layout
        return None

    def learn(self, body: bytes, start: int, head: Any, arrays: Mapping[str, Array]) -> None:
        """Remember a message that was parsed, when one of its length came before. Gives up on a length that resists."""
        with self._learning:
            size = len(body) - start
            if self._worth_it(size):
                layout = _layout(body[start:], self._field, head, arrays)
                if layout is not None:
                    self._layouts[size] = (*self._layouts.get(size, ()), layout)

    def _worth_it(self, size: int) -> bool:
        """Count the attempt, and make room for its outcome."""
        attempts = self._attempts.get(size, 0)
        if attempts > _MAX_ATTEMPTS or len(self._layouts.get(size, ())) >= _MAX_SAME_SIZE:
            return False
        for memory in (self._attempts, self._layouts):
            if size not in memory and len(memory) >= self._capacity:
                del memory[next(iter(memory))]
        self._attempts[size] = attempts + 1
        return attempts > 0


def _layout(message: bytes, field: int, head: Any, arrays: Mapping[str, Array]) -> Layout | None:
    try:
        spans = sorted(_tensor_spans(message, field, arrays))
    except (ValueError, KeyError):
        return None
    if not spans:
        return None
    constants = []
    position = 0
    for offset, size, _name in spans:
        constants.append((position, message[position:offset]))
        position = offset + size
    if position < len(message):
        constants.append((position, message[position:]))
    if sum(len(constant) for _, constant in constants) > _MAX_CONSTANT_BYTES:
        return None
    described = tuple((name, arrays[name].shape, arrays[name].dtype, offset, size) for offset, size, name in spans)
    return Layout(head, tuple(constants), described)


def _tensor_spans(message: bytes, field: int, arrays: Mapping[str, Array]) -> list[tuple[int, int, str]]:
    """Return offset, length and name of every tensor's data; ``ValueError`` if the structure is not the plain one."""
    spans = []
    for number, begin, end in _fields(message, 0, len(message)):
        if number != field:
            continue
        entry = {inner: (at, to) for inner, at, to in _once(message, begin, end)}
        if entry.keys() != {1, 2}:
            raise ValueError("a map entry without name or tensor")
        name = message[slice(*entry[1])].decode()  # of a name that occurs twice the last wins, here and in protobuf
        spans.append((*_data_span(message, *entry[2], arrays[name]), name))
    return spans


def _data_span(message: bytes, begin: int, end: int, array: Array) -> tuple[int, int]:
    values = [(number, at, to) for number, at, to in _once(message, begin, end) if number in _VALUE_FIELDS]
    if len(values) != 1 or array.dtype.kind in "bO":
        raise ValueError("values in no field, or in several")
    number, at, to = values[0]
    if _DATA_FIELDS[number] not in (None, array.dtype) or not to - at == array.nbytes > 0:
        raise ValueError("values that are not the tensor's data as it is")
    return at, to - at


def _once(message: bytes, begin: int, end: int) -> list[tuple[int, int, int]]:
    found = list(_fields(message, begin, end))
    if len({number for number, _, _ in found}) != len(found):
        raise ValueError("a field that occurs twice")
    return found


def _fields(message: bytes, begin: int, end: int) -> list[tuple[int, int, int]]:
    """Return number, begin and end of the payload of each field; groups are ``ValueError``.

    Values that are not length-delimited end where they begin, so that nobody takes them for data.
    """
    found = []
    while begin < end:
        tag, begin = read_varint(message, begin)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size, begin = read_varint(message, begin)
            found.append((tag >> 3, begin, begin + size))
            begin += size
        elif kind == 0:
            _, begin = read_varint(message, begin)
            found.append((tag >> 3, begin, begin))
        else:
            begin += _FIXED_SIZES.get(kind, end)
            found.append((tag >> 3, begin, begin))
    if begin != end:
        raise ValueError("a field that reaches beyond its message")
    return found
