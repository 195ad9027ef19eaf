"""From tensors to JSON text, in TensorFlow Serving's dialect.

Floats are written with the fewest digits that read back to the same value of their type, integral ones with ``.0``;
int64 and uint64 as plain numbers; what is not finite as the bare words ``NaN``, ``Infinity`` and ``-Infinity``.
Strings of an alias that ends in ``_bytes`` are written as ``{"b64": "..."}``, and so are strings that are not UTF-8,
which TensorFlow Serving would write as broken JSON. float16, bfloat16, float8 and 4-bit integers, which it refuses,
are written as numbers; complex ones are refused here too.
"""

from __future__ import annotations

import math
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson

from servable.core.errors import invalid_argument
from servable.core.tensors import (
    BFLOAT16,
    BOOL,
    FLOAT8_E4M3FN,
    FLOAT8_E5M2,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT4,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT4,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Array,
    dtype_of,
)  # fmt: skip
from servable.wire.tensor_proto import short_name

_OPTION = orjson.OPT_SERIALIZE_NUMPY
_NATIVE = frozenset(
    dtype.numpy for dtype in (FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, BOOL)
)
_WIDER = {
    FLOAT16.numpy: FLOAT32.numpy,
    BFLOAT16.numpy: FLOAT32.numpy,
    FLOAT8_E5M2.numpy: FLOAT32.numpy,
    FLOAT8_E4M3FN.numpy: FLOAT32.numpy,
    INT4.numpy: INT8.numpy,
    UINT4.numpy: UINT8.numpy,
}
_LONG_LONG = {"q": INT64.numpy, "Q": UINT64.numpy}
"""C has two types for 64 bits and numpy as many; orjson knows scalars of one, and ONNX Runtime answers in the other."""
_NOT_FINITE = b"null"
"""orjson's word for a float that is NaN or infinite."""


def dumps(document: Mapping[str, Any]) -> bytes:
    """Return a document of plain values, arrays and what the functions below return, as compact JSON."""
    return orjson.dumps(document, option=_OPTION)


def dumps_value(value: Any) -> bytes:
    """Return one plain value as compact JSON."""
    return orjson.dumps(value, option=_OPTION)


def number_texts(numbers: Array) -> list[bytes]:
    """Return the text of each of a list of floats, in this dialect."""
    if not len(numbers):
        return []
    texts = orjson.dumps(np.ascontiguousarray(numbers), option=_OPTION)[1:-1].split(b",")
    if not np.isfinite(numbers).all():
        for index in np.flatnonzero(~np.isfinite(numbers)).tolist():
            texts[index] = _word(float(numbers[index]))
    return texts


def dumps_tensors(document: Mapping[str, Any], key: str, tensors: Mapping[str, Array]) -> bytes:
    """Return ``document`` with the tensors under ``key``: ``{key: {name: nested list, ...}}``."""
    text = dumps({**document, key: {name: nested(array, name) for name, array in tensors.items()}})
    if not _may_hold_null(text):
        return text
    return dumps({**document, key: {name: finished(nested(array, name)) for name, array in tensors.items()}})


def dumps_tensor(key: str, name: str, array: Array) -> bytes:
    """Return one tensor under ``key``, without its name: ``{key: nested list}``, or a bare scalar."""
    value = nested(array, name)
    text = dumps({key: value})
    if not _may_hold_null(text):
        return text
    return dumps({key: finished(value)})


def dumps_rows(document: Mapping[str, Any], key: str, tensors: Mapping[str, Array]) -> bytes:
    """Return ``document`` with the rows of tensors of equal dim 0 under ``key``: ``{key: [{name: row, ...}, ...]}``."""
    columns = [list(nested(array, name)) for name, array in tensors.items()]
    text = dumps({**document, key: _rows(tensors, columns)})
    if not _may_hold_null(text):
        return text
    return dumps({**document, key: _rows(tensors, [[finished(cell) for cell in column] for column in columns])})


def nested(array: Array, name: str) -> Any:
    """Return what orjson writes as the elements of a tensor; INVALID_ARGUMENT if JSON has no form for them."""
    dtype = array.dtype
    if dtype in _NATIVE:
        if dtype.char in _LONG_LONG:
            array = array.view(_LONG_LONG[dtype.char])
        if array.ndim == 0:
            return array[()]
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
    if dtype.kind in "OSU":
        return _strings(array, in_base64=name.endswith("_bytes"))
    native = dtype.newbyteorder("=")
    wider = _WIDER.get(native, native)
    if wider not in _NATIVE:
        raise invalid_argument(f"Failed to write JSON value for tensor type: {short_name(dtype_of(array))}")
    return nested(array.astype(wider), name)


def _rows(names: Iterable[str], columns: Iterable[Iterable[Any]]) -> list[dict[str, Any]]:
    keys = tuple(names)
    return [dict(zip(keys, cells, strict=True)) for cells in zip(*columns, strict=True)]


def finished(value: Any) -> Any:
    """Return numbers as text with the words for what is not finite where orjson wrote null; other values unchanged."""
    if not isinstance(value, np.ndarray | np.floating):
        return value
    text = orjson.dumps(value, option=_OPTION)
    if _NOT_FINITE not in text:
        return value
    numbers = np.asarray(value)
    words = [_word(number) for number in numbers[~np.isfinite(numbers)].tolist()]
    pieces = text.split(_NOT_FINITE)
    return orjson.Fragment(b"".join([part for pair in zip(pieces, [*words, b""], strict=True) for part in pair]))


def _word(number: float) -> bytes:
    if math.isnan(number):
        return b"NaN"
    return b"Infinity" if number > 0 else b"-Infinity"


def _may_hold_null(text: bytes) -> bool:
    """Tell whether orjson wrote null; looking for one letter first is many times faster than for the word."""
    return 0x6C in text and _NOT_FINITE in text


def _strings(array: Array, *, in_base64: bool) -> Any:
    cells = np.empty(array.size, object)
    cells[:] = [string(item, in_base64=in_base64) for item in array.reshape(-1).tolist()]
    return cells.reshape(array.shape).tolist()


def string(item: bytes | str, *, in_base64: bool = False) -> str | dict[str, str]:
    """Return a string as text, or as ``{"b64": ...}`` if that is asked for or it is not UTF-8."""
    data = item.encode() if isinstance(item, str) else item
    if not in_base64:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": b2a_base64(data, newline=False).decode()}
