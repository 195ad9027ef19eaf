"""Flatbuffers, as far as reading a TFLite file needs them: tables by the number of a field, vectors, strings.

Whatever lies outside of the file raises ``ValueError`` that says where; nothing is copied before it is asked for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FORMATS = {
    "bool": "<?", "int8": "<b", "uint8": "<B", "int16": "<h", "uint16": "<H", "int32": "<i", "uint32": "<I",
    "int64": "<q", "uint64": "<Q", "float32": "<f", "float64": "<d",
}  # fmt: skip
_SIZES = {name: struct.calcsize(form) for name, form in _FORMATS.items()}


@dataclass(frozen=True, slots=True)
class Table:
    """A table at a place in a buffer. Fields are numbered as in the schema, from 0."""

    data: bytes
    at: int

    def number(self, field: int, form: str, default: float = 0) -> float:
        """Return a number, the default where the field is left out."""
        place = self._place(field)
        return default if not place else _unpack(self.data, place, form)

    def integer(self, field: int, form: str = "int32", default: int = 0) -> int:
        """Return an integer, the default where the field is left out."""
        return int(self.number(field, form, default))

    def flag(self, field: int) -> bool:
        """Return a truth value."""
        return bool(self.number(field, "bool"))

    def text(self, field: int) -> str:
        """Return a string, "" where the field is left out."""
        place = self._place(field)
        if not place:
            return ""
        start, count = self._vector(place)
        return _piece(self.data, start, count).decode(errors="replace")

    def table(self, field: int) -> Table | None:
        """Return a table."""
        place = self._place(field)
        return None if not place else Table(self.data, place + _unpack_int(self.data, place, "uint32"))

    def tables(self, field: int) -> list[Table]:
        """Return a vector of tables."""
        place = self._place(field)
        if not place:
            return []
        start, count = self._vector(place)
        self._check(start, 4 * count)
        places = [start + 4 * index for index in range(count)]
        return [Table(self.data, there + _unpack_int(self.data, there, "uint32")) for there in places]

    def numbers(self, field: int, form: str) -> tuple[int, ...] | None:
        """Return a vector of integers; ``None`` where it is left out."""
        place = self._place(field)
        if not place:
            return None
        start, count = self._vector(place)
        self._check(start, _SIZES[form] * count)
        return struct.unpack_from(f"<{count}{_FORMATS[form][1]}", self.data, start)

    def length(self, field: int) -> int:
        """Return how many elements a vector has."""
        place = self._place(field)
        return self._vector(place)[1] if place else 0

    def content(self, field: int) -> bytes:
        """Return a vector of bytes."""
        place = self._place(field)
        if not place:
            return b""
        start, count = self._vector(place)
        return _piece(self.data, start, count)

    def _place(self, field: int) -> int:
        table = self.at - _unpack_int(self.data, self.at, "int32")
        slot = 4 + 2 * field
        if slot + 2 > _unpack_int(self.data, table, "uint16"):
            return 0
        offset = _unpack_int(self.data, table + slot, "uint16")
        return self.at + offset if offset else 0

    def _vector(self, place: int) -> tuple[int, int]:
        start = place + _unpack_int(self.data, place, "uint32")
        return start + 4, _unpack_int(self.data, start, "uint32")

    def _check(self, start: int, size: int) -> None:
        if start < 0 or start + size > len(self.data):
            raise ValueError(f"what is referred to at byte {start} reaches beyond its end")


def root(data: bytes) -> Table:
    """Return the table that a buffer holds."""
    return Table(data, _unpack_int(data, 0, "uint32"))


def identifier(data: bytes) -> bytes:
    """Return the four letters that say what a buffer is."""
    return data[4:8]


def _piece(data: bytes, start: int, count: int) -> bytes:
    if start < 0 or start + count > len(data):
        raise ValueError(f"{count} bytes at {start} reach beyond its end")
    return data[start : start + count]


def _unpack(data: bytes, place: int, form: str) -> float:
    if place < 0 or place + _SIZES[form] > len(data):
        raise ValueError(f"there is nothing at byte {place} of {len(data)}")
    found: float = struct.unpack_from(_FORMATS[form], data, place)[0]
    return found


def _unpack_int(data: bytes, place: int, form: str) -> int:
    return int(_unpack(data, place, form))
