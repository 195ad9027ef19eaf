"""From JSON values to tensors of a known element type, by TensorFlow Serving's rules and with its messages.

Every conversion exists twice. ``pack`` is quick and knows no messages: it returns ``None`` for whatever is not plain
and regular. ``exact_values`` walks the value element by element, accepts the few things that ``pack`` does not (base64,
zero sizes), and says what is wrong with the rest. Whatever ``pack`` accepts, the walk accepts with the same result.

The rules for elements: a float takes any number, rounded to its type; an integer takes integers without fraction and
exponent, never a bool; int8, int16 and uint8 take the whole range of int32 and keep the low bits, as TensorFlow
Serving does; a bool takes true and false; a string takes strings and ``{"b64": "..."}``. float16, bfloat16, float8 and
uint16, which TensorFlow Serving refuses, are taken too.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn, TypeAlias

import numpy as np

from servable.core.errors import invalid_argument, unimplemented
from servable.core.tensors import (
    BFLOAT16,
    BOOL,
    FLOAT8_E4M3FN,
    FLOAT8_E5M2,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT8,
    INT16,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Array,
    DType,
)  # fmt: skip
from servable.wire.json_dialect import excerpt, text_bytes, type_name
from servable.wire.tensor_proto import short_name

MAX_RANK = 31
"""The most dimensions of one value: rows of such values have one more, which is the most that every numpy has."""

Shape: TypeAlias = tuple[int, ...]
Values: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True)
class _Number:
    """How numbers of one element type are stored: struct's letter, the numpy type it makes, and the type wanted.

    ``range`` holds the integers that are accepted; ``None`` means that any number is.
    """

    letter: str
    stored: np.dtype[Any]
    wanted: np.dtype[Any]
    range: range | None = None


def _floats(letter: str, stored: DType, wanted: DType) -> _Number:
    return _Number(letter, stored.numpy, wanted.numpy)


def _integers(letter: str, stored: DType, wanted: DType) -> _Number:
    limits = np.iinfo(stored.numpy)
    return _Number(letter, stored.numpy, wanted.numpy, range(int(limits.min), int(limits.max) + 1))


_NUMBERS: dict[str, _Number] = {
    number.wanted.name: number
    for number in (
        _floats("f", FLOAT32, FLOAT32),
        _floats("d", FLOAT64, FLOAT64),
        _floats("d", FLOAT64, FLOAT16),
        _floats("f", FLOAT32, BFLOAT16),
        _floats("f", FLOAT32, FLOAT8_E5M2),
        _floats("f", FLOAT32, FLOAT8_E4M3FN),
        _integers("i", INT32, INT32),
        _integers("i", INT32, INT16),
        _integers("i", INT32, INT8),
        _integers("i", INT32, UINT8),
        _integers("q", INT64, INT64),
        _integers("H", UINT16, UINT16),
        _integers("I", UINT32, UINT32),
        _integers("Q", UINT64, UINT64),
    )
}


def may_hold_bool(text: bytes) -> bool:
    """Tell whether a JSON text can contain ``true`` or ``false``; a wrong yes costs time, there is no wrong no."""
    if 0x72 not in text and 0x6C not in text:  # "r" and "l"
        return False
    words = text.translate(None, b"0123456789,.-[] ")
    return b"true" in words or b"false" in words


def pack(value: Any, dtype: DType, bools: bool) -> Array | None:
    """Return a plain, regular value as a tensor, or ``None``. ``bools``: the document may contain a bool."""
    shape, level = _leaves(value)
    if not level:
        return None
    number = _NUMBERS.get(dtype.name)
    if number is not None:
        if bools and bool in set(map(type, level)):
            return None
        return _pack_numbers(level, shape, number)
    if dtype is STRING:
        try:
            return _pack_strings(list(map(str.encode, level)), shape)
        except (TypeError, UnicodeEncodeError):
            return None
    if dtype is BOOL and set(map(type, level)) == {bool}:
        return np.array(level, BOOL.numpy).reshape(shape)
    return None


def tensor(value: Any, dtype: DType, bools: bool = True) -> Array:
    """Return a value as a tensor of its own shape; INVALID_ARGUMENT or UNIMPLEMENTED says why it cannot be one."""
    packed = pack(value, dtype, bools)
    if packed is not None:
        return packed
    values, shape = exact_values(value, dtype)
    return from_values(values, shape, dtype)


def exact_values(value: Any, dtype: DType) -> tuple[Values, Shape]:
    """Return the elements of a value in order, checked and converted one by one, and its shape."""
    shape = _shape_of(value)
    element = _element_rule(dtype)
    values: Values = []
    _walk(value, 0, shape, lambda leaf: values.append(element(leaf)))
    return values, shape


def from_values(values: Values, shape: Shape, dtype: DType) -> Array:
    """Return a tensor of elements that ``exact_values`` gave."""
    number = _NUMBERS.get(dtype.name)
    if number is not None:
        packed = _pack_numbers(values, shape, number)
        if packed is None:
            raise AssertionError(f"checked values are not {dtype}")
        return packed
    if dtype is STRING:
        return _pack_strings(values, shape)
    return np.array(values, dtype.numpy).reshape(shape)


def is_base64(value: Any) -> bool:
    """Tell whether a JSON value is an object that stands for bytes."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def base64_bytes(text: str) -> bytes:
    """Decode standard base64, padded or not, white space skipped; INVALID_ARGUMENT when it is something else."""
    data = b"".join(text_bytes(text).split())
    bare = data.rstrip(b"=")
    padding = b"=" * (-len(bare) % 4)
    if len(data) not in {len(bare), len(bare) + len(padding)}:
        raise invalid_argument("Unable to base64 decode")
    try:
        return binascii.a2b_base64(bare + padding, strict_mode=True)
    except binascii.Error:
        raise invalid_argument("Unable to base64 decode") from None


def _leaves(value: Any) -> tuple[Shape, Values]:
    """Return the shape along the first elements and the leaves; no leaves if the lists are empty or differ.

    Among the leaves there may be lists yet, when the first leaf is none: no element type takes them.
    """
    if type(value) is not list:
        return (), [value]
    shape = [len(value)]
    level = value
    while level and type(level[0]) is list:
        size = len(level[0])
        if len(level) == 1:
            level = level[0]
        else:
            for row in level:
                if type(row) is not list or len(row) != size:
                    return (), []
            level = list(chain.from_iterable(level))
        shape.append(size)
    if len(shape) > MAX_RANK:
        return (), []
    return tuple(shape), level


def _pack_numbers(level: Values, shape: Shape, number: _Number) -> Array | None:
    packed = np.empty(shape, number.stored)
    try:
        struct.pack_into(f"{len(level)}{number.letter}", packed, 0, *level)  # type: ignore[arg-type]  # is a buffer
    except struct.error:
        return None
    if number.stored is number.wanted:
        return packed
    with np.errstate(over="ignore"):
        return packed.astype(number.wanted)


def _pack_strings(level: Values, shape: Shape) -> Array:
    packed = np.empty(len(level), object)
    packed[:] = level
    return packed.reshape(shape)


def _shape_of(value: Any) -> Shape:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > MAX_RANK:
            raise invalid_argument(f"Lists are nested too deeply for a tensor, which has at most {MAX_RANK} dimensions")
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _walk(value: Any, level: int, shape: Shape, take: Callable[[Any], None]) -> None:
    """Visit the leaves depth first, as deep as ``shape`` is long, so that the first fault is the one reported."""
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid_argument(
                f"JSON Value: {excerpt(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {rank}"
            )
        take(value)
        return
    if level >= rank:
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _walk(item, level + 1, shape, take)


def _element_rule(dtype: DType) -> Callable[[Any], Any]:
    number = _NUMBERS.get(dtype.name)
    if number is not None and number.range is None:
        return lambda leaf: leaf if type(leaf) in {int, float} else _wrong_type(leaf, dtype)
    if number is not None:
        accepted = number.range or range(0)
        return lambda leaf: leaf if type(leaf) is int and leaf in accepted else _wrong_type(leaf, dtype)
    if dtype is BOOL:
        return lambda leaf: leaf if type(leaf) is bool else _wrong_type(leaf, dtype)
    if dtype is STRING:
        return _string_element
    return lambda leaf: _unknown_type(leaf, dtype)


def _string_element(leaf: Any) -> bytes:
    if type(leaf) is str:
        return text_bytes(leaf)
    if is_base64(leaf):
        return base64_bytes(leaf["b64"])
    if type(leaf) is dict:
        raise invalid_argument(f"JSON Value: {excerpt(leaf)} not formatted correctly for base64 data")
    return _wrong_type(leaf, STRING)


def _wrong_type(leaf: Any, dtype: DType) -> NoReturn:
    raise invalid_argument(
        f"JSON Value: {excerpt(leaf)} Type: {type_name(leaf)} is not of expected type: {short_name(dtype)}"
    )


def _unknown_type(leaf: Any, dtype: DType) -> NoReturn:
    raise unimplemented(f"Conversion of JSON Value: {excerpt(leaf)} to type: {short_name(dtype)}")
