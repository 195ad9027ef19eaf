"""An ONNX file without its weights: what describes a model takes kilobytes of the hundreds of megabytes.

Parsing the whole file would hold the interpreter's lock, and so the server's event loop, for the time it takes to copy
every weight. This reads the lengths and skips what they cover. Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

_GRAPH_OF_MODEL = 7
_INITIALIZER_OF_GRAPH = 5
_VALUES_OF_TENSOR = frozenset({4, 5, 6, 7, 9, 10, 11})
"""float_data, int32_data, string_data, int64_data, raw_data, double_data, uint64_data."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10

Rewrite: TypeAlias = Callable[[mmap.mmap, int, int], bytes]


def read_skeleton(path: Path, keep_bytes: int = 0) -> bytes:
    """Return the file's ModelProto without the values of its initializers, but for those of up to ``keep_bytes``.

    ``ValueError`` says at which byte it is damaged or ends too early; ``OSError`` is the file system's.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            return b""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _rewritten(data, 0, len(data), _GRAPH_OF_MODEL, functools.partial(_graph, keep_bytes))


def _graph(keep_bytes: int, data: mmap.mmap, begin: int, end: int) -> bytes:
    return _rewritten(data, begin, end, _INITIALIZER_OF_GRAPH, functools.partial(_tensor, keep_bytes))


def _tensor(keep_bytes: int, data: mmap.mmap, begin: int, end: int) -> bytes:
    if end - begin <= keep_bytes:
        return data[begin:end]
    kept = [data[start:stop] for field, start, _, stop in _fields(data, begin, end) if field not in _VALUES_OF_TENSOR]
    return b"".join(kept)


def _rewritten(data: mmap.mmap, begin: int, end: int, field: int, rewrite: Rewrite) -> bytes:
    """Copy a message, with ``rewrite`` applied to each submessage in ``field``. Neighbours are copied in one piece."""
    pieces = []
    copied = begin
    tag = _encoded(field << 3 | _BYTES)
    for found, start, content, stop in _fields(data, begin, end):
        if found == field:
            inner = rewrite(data, content, stop)
            pieces += [data[copied:start], tag, _encoded(len(inner)), inner]
            copied = stop
    pieces.append(data[copied:end])
    return b"".join(pieces)


def _fields(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (number, start, start of content, end) of each field of the message in ``data[begin:end]``."""
    at = begin
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        kind = tag & 7
        content = at
        if kind == _BYTES:
            size, content = _varint(data, at, end)
            at = content + size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"there is no field at byte {start}")
        if at > end:
            raise ValueError(f"the field at byte {start} ends {at - end} bytes after what holds it")
        yield tag >> 3, start, content, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(at, min(end, at + _LONGEST_VARINT)):
        byte = data[position]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position + 1
        shift += 7
    raise ValueError(f"there is no number at byte {at}")


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
