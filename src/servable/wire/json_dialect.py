"""TensorFlow Serving's JSON dialect: reading it, and quoting pieces of it in error messages.

A document that is strict JSON is read by orjson. What orjson refuses is read again by the iterative parser here,
which accepts what TensorFlow Serving accepts beyond the standard: ``NaN``, ``Infinity`` and ``Inf`` with an optional
minus, a byte order mark, any text after the first value, and strings that are not UTF-8. What that refuses too gets
TensorFlow Serving's message, with the offset in bytes.

Two differences on purpose. Of duplicate keys the last one wins (there: the first). Nesting deeper than ``MAX_DEPTH``
is refused (there: unlimited), because a level takes sixty times its text in memory and no tensor is that deep.

Bytes of a string that are not UTF-8 travel through ``str`` as surrogate escapes; ``text_bytes`` turns them back.
"""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn, cast

import orjson

from servable.core.errors import ServingError, invalid_argument

MAX_DEPTH = 1024
EXCERPT_SIZE = 256
_MAX_QUOTED = 200

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"[ \t\n\r]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
_DIGITS = re.compile(rb"[0-9]*")
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_FLAT_TEXT = rb"\[[^\[\]{}]*+\]|\{[^\[\]{}]*+\}"
_FLAT = re.compile(_FLAT_TEXT)
_PLAIN_TEXT = rb'-?[0-9][0-9.eE+-]*+|"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
_RUN = re.compile(rb"(?:[ \t\n\r]*+(?:%b|%b)[ \t\n\r]*+,){8,}+" % (_PLAIN_TEXT, _FLAT_TEXT))
_ESCAPES = {
    b'"': '"', b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t",
}  # fmt: skip
_WORDS = {b"t": (b"true", True), b"f": (b"false", False), b"n": (b"null", None)}
_TYPE_NAMES = {type(None): "Null", dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
_STAND_INS = {"N": math.nan, "+": math.inf, "-": -math.inf}
_INTEGERS = range(-(2**63), 2**64)
_LONGEST_INTEGER = 20  # characters of -2**63 and of 2**64 - 1
_END = (b"", b"\0")


def loads(text: bytes) -> Any:
    """Return the first value of ``text``; INVALID_ARGUMENT says what is wrong with it, and at which byte."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return loads_lenient(text)


def loads_lenient(text: bytes) -> Any:
    """Do what ``loads`` does with the iterative parser alone."""
    if not text:
        raise invalid_argument("JSON Parse error: The document is empty")
    return _Reader(text).document()


def error_text(status: int, body: bytes) -> str:
    """Return what a reply that is not 200 says: its ``error``, or what somebody else wrote instead of our JSON."""
    try:
        document = loads(body)
    except ServingError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        return str(document["error"])
    text = body[:_MAX_QUOTED].decode("utf-8", "replace")
    return f"HTTP status {status}: {text}" if text else f"HTTP status {status}"


def text_bytes(text: str) -> bytes:
    """Return the bytes that a JSON string stands for, as they were sent."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def type_name(value: Any) -> str:
    """Return RapidJSON's name for the type of a value, as it appears in error messages."""
    if isinstance(value, bool):
        return "True" if value else "False"
    return _TYPE_NAMES[type(value)]


def excerpt(value: Any) -> str:
    """Return a value as indented JSON with lists on one line, cut after ``EXCERPT_SIZE`` characters."""
    quotation = _Quotation()
    try:
        quotation.add(value, "\n")
    except _FullError:
        quotation.parts.append("...")
    return "".join(quotation.parts)


class _Reader:
    """One pass over a text, without recursion. ``at`` is the offset of the next byte."""

    __slots__ = ("at", "slow_until", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.slow_until = 0
        self.at = len(_BYTE_ORDER_MARK) if text.startswith(_BYTE_ORDER_MARK) else 0

    def document(self) -> Any:
        """Return the first value; what follows it is not looked at."""
        if self.peek() in _END:
            self.fail("The document is empty.")
        parents: list[Any] = []  # the lists and objects that are open, innermost last
        names: list[str] = []  # for each open object, the member whose value is awaited
        while True:
            if parents and type(parents[-1]) is list:
                self.run_into(parents[-1])
            value = self.value()
            if value is _LIST_OPENS or value is _OBJECT_OPENS:
                if len(parents) >= MAX_DEPTH:
                    self.fail(f"Nested deeper than {MAX_DEPTH} levels.")
                parents.append([] if value is _LIST_OPENS else {})
                if value is _OBJECT_OPENS:
                    names.append(self.name())
                continue
            while parents:
                parent = parents[-1]
                if type(parent) is list:
                    parent.append(value)
                    if self.goes_on(b"]", "Missing a comma or ] after an array element."):
                        break
                else:
                    parent[names[-1]] = value
                    if self.goes_on(b"}", "Missing a comma or } after an object member."):
                        names[-1] = self.name()
                        break
                    names.pop()
                value = parents.pop()
            else:
                return value

    def value(self) -> Any:
        """Take a value that is complete in itself, or the opening of one that is not."""
        char = self.peek()
        if char in {b"[", b"{"}:
            flat = self.flat()
            if flat is not None:
                return flat
            self.at += 1
            if char == b"[":
                return _LIST_OPENS if not self.took(b"]") else []
            return _OBJECT_OPENS if not self.took(b"}") else {}
        if char == b'"':
            return self.string()
        if char in _WORDS:
            word, value = _WORDS[char]
            self.take_word(word)
            return value
        return self.number()

    def run_into(self, items: list[Any]) -> None:
        """Take many simple values with their commas at once, by orjson, if the next ones are such.

        Without this, a text with a fault at its end would cost a hundred times what it costs to read a good one.
        """
        if self.at < self.slow_until:
            return
        match = _RUN.match(self.text, self.at)
        if match is None:
            return
        try:
            items.extend(orjson.loads(b"[%b]" % match.group()[:-1]))
            self.at = match.end()
        except orjson.JSONDecodeError:
            self.slow_until = match.end()

    def flat(self) -> list[Any] | dict[str, Any] | None:
        """Take a whole list or object without inner ones by orjson, which is much faster; ``None``: it cannot.

        A string that holds a bracket only makes the piece too short to be read. In a list without strings, strings
        can stand in for the numbers that orjson does not know.
        """
        match = _FLAT.match(self.text, self.at)
        if match is None:
            return None
        piece = match.group()
        special = (b"N" in piece or b"I" in piece) and b'"' not in piece
        if special:
            piece = piece.replace(b"NaN", b'"N"').replace(b"-Infinity", b'"-"').replace(b"Infinity", b'"+"')
        try:
            value: Any = orjson.loads(piece)
        except orjson.JSONDecodeError:
            return None
        self.at = match.end()
        if special:
            return [_STAND_INS[item] if type(item) is str else item for item in value]
        return cast("list[Any] | dict[str, Any]", value)

    def name(self) -> str:
        if self.peek() != b'"':
            self.fail("Missing a name for object member.")
        name = self.string()
        if not self.took(b":"):
            self.fail("Missing a colon after a name of object member.")
        return name

    def goes_on(self, closing: bytes, problem: str) -> bool:
        """Take the comma or the bracket after a value: true means that another value or member follows."""
        if self.took(b","):
            return True
        if not self.took(closing):
            self.fail(problem)
        return False

    def string(self) -> str:
        pieces = []
        at = self.at + 1
        while True:
            plain = cast("re.Match[bytes]", _PLAIN.match(self.text, at))
            pieces.append(plain.group().decode("utf-8", "surrogateescape"))
            at = plain.end()
            char = self.text[at : at + 1]
            if char == b'"':
                self.at = at + 1
                return "".join(pieces)
            if char in _END:
                self.fail("Missing a closing quotation mark in string.", at)
            if char != b"\\":
                self.fail("Invalid encoding in string.", at)
            piece, at = self.escape(at)
            pieces.append(piece)

    def escape(self, at: int) -> tuple[str, int]:
        """Return the character of the escape at ``at``, and the offset after it."""
        char = self.text[at + 1 : at + 2]
        if char in _ESCAPES:
            return _ESCAPES[char], at + 2
        if char != b"u":
            self.fail("Invalid escape character in string.", at)
        unit = self.hex4(at + 2, at)
        end = at + 6
        if not 0xD800 <= unit <= 0xDFFF:
            return chr(unit), end
        if unit > 0xDBFF or self.text[end : end + 2] != b"\\u":
            self.fail("The surrogate pair in string is invalid.", at)
        low = self.hex4(end + 2, at)
        if not 0xDC00 <= low <= 0xDFFF:
            self.fail("The surrogate pair in string is invalid.", at)
        return chr(0x10000 + ((unit - 0xD800) << 10 | low - 0xDC00)), end + 6

    def hex4(self, at: int, escape_at: int) -> int:
        match = _HEX4.match(self.text, at)
        if match is None:
            self.fail("Incorrect hex digit after \\u escape in string.", escape_at)
        return int(match.group(), 16)

    def number(self) -> int | float:
        start = self.at
        whole = _INTEGER.match(self.text, start)
        if whole is None:
            return self.not_finite()
        at = whole.end()
        if self.text[at : at + 1] == b".":
            at = self.digits(at + 1, "Miss fraction part in number.")
        if self.text[at : at + 1] in {b"e", b"E"}:
            at += 2 if self.text[at + 1 : at + 2] in {b"+", b"-"} else 1
            at = self.digits(at, "Miss exponent in number.")
        literal = self.text[start:at]
        self.at = at
        if at == whole.end() and len(literal) <= _LONGEST_INTEGER:
            integer = int(literal)
            if integer in _INTEGERS:
                return integer
        number = float(literal)
        if math.isinf(number):
            self.fail("Number too big to be stored in double.", start)
        return number

    def digits(self, at: int, problem: str) -> int:
        end = cast("re.Match[bytes]", _DIGITS.match(self.text, at)).end()
        if end == at:
            self.fail(problem, at)
        return end

    def not_finite(self) -> float:
        negative = self.text.startswith(b"-", self.at)
        self.at += negative
        if self.text.startswith(b"N", self.at):
            self.take_word(b"NaN")
            return math.nan
        self.take_word(b"Inf")
        if self.text.startswith(b"i", self.at):
            self.take_word(b"inity")
        return -math.inf if negative else math.inf

    def take_word(self, word: bytes) -> None:
        """Take exactly this word, or fail at the first byte that differs."""
        for byte in word:
            if not self.text.startswith(b"%c" % byte, self.at):
                self.fail("Invalid value.")
            self.at += 1

    def took(self, char: bytes) -> bool:
        if self.peek() != char:
            return False
        self.at += 1
        return True

    def peek(self) -> bytes:
        """Skip white space and return the next byte; at the end of the text, nothing."""
        self.at = cast("re.Match[bytes]", _SPACE.match(self.text, self.at)).end()
        return self.text[self.at : self.at + 1]

    def fail(self, problem: str, at: int | None = None) -> NoReturn:
        raise invalid_argument(f"JSON Parse error: {problem} at offset: {self.at if at is None else at}")


_LIST_OPENS = object()
_OBJECT_OPENS = object()


class _FullError(Exception):
    """The quotation has reached its size."""


class _Quotation:
    """JSON text that is being put together; the size limit also bounds the recursion."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._room = EXCERPT_SIZE

    def add(self, value: Any, newline: str) -> None:
        inner = newline + "    "
        if isinstance(value, list):
            self._write("[")
            for index, item in enumerate(value):
                if index:
                    self._write(", ")
                self.add(item, inner)
            self._write("]")
        elif isinstance(value, dict):
            self._write("{")
            for index, (name, item) in enumerate(value.items()):
                self._write(f"{',' if index else ''}{inner}{_scalar(name)}: ")
                self.add(item, inner)
            self._write(f"{newline if value else ''}}}")
        else:
            self._write(_scalar(value))

    def _write(self, text: str) -> None:
        self.parts.append(text[: self._room])
        if len(text) > self._room:
            raise _FullError
        self._room -= len(text)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        value = text_bytes(value[: EXCERPT_SIZE + 1]).decode("utf-8", "replace")
    elif isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return orjson.dumps(value).decode()
