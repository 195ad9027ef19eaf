"""Where the fields of a message stand in the text that it was read from, so that errors of meaning can say it too."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

FieldPath: TypeAlias = tuple[str | int, ...]
"""Names of fields, each followed by its index among those of its name: ``("config", 1, "name", 0)``."""

_TOKENS = re.compile(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[{}<>\[\]:;,]|[^\s{}<>\[\]:;,#"']+""")
_CLOSING = {"{": "}", "<": ">", "[": "]"}


class Place(NamedTuple):
    """A line and a column, both from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


class _Token(NamedTuple):
    text: str
    offset: int


def field_places(text: str) -> dict[FieldPath, Place]:
    """Return where each field of a text begins that was parsed without an error. What is no such text gives less."""
    tokens = [_Token(found[0], found.start()) for found in _TOKENS.finditer(text) if not found[0].startswith("#")]
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    places: dict[FieldPath, Place] = {}
    for path, offset in _fields(iter(tokens), (), ""):
        line = bisect_right(starts, offset)
        places[path] = Place(line, offset - starts[line - 1] + 1)
    return places


def _fields(tokens: Iterator[_Token], outer: FieldPath, end: str) -> Iterator[tuple[FieldPath, int]]:
    """Yield the fields of one message, up to the token that ends it."""
    seen: Counter[str] = Counter()
    token = next(tokens, None)
    while token is not None and token.text != end:
        if token.text in {",", ";"}:
            token = next(tokens, None)
            continue
        name, offset = token
        if name == "[":  # an Any or an extension: its name stands in brackets
            name = f"[{''.join(part.text for part in _until(tokens, ']'))}]"
        found = next(tokens, None)
        if found is not None and found.text == ":":
            found = next(tokens, None)
        if found is not None and found.text == "[":
            for element in _until_closed(tokens, "]"):
                yield from _one(tokens, (*outer, name), seen, offset, element)
            token = next(tokens, None)
            continue
        if found is None:
            return
        yield from _one(tokens, (*outer, name), seen, offset, found)
        token = next(tokens, None)
        while token is not None and token.text[0] in "\"'":  # adjacent strings are one value
            token = next(tokens, None)


def _one(
    tokens: Iterator[_Token], path: FieldPath, seen: Counter[str], offset: int, value: _Token
) -> Iterator[tuple[FieldPath, int]]:
    name = str(path[-1])
    here = (*path, seen[name])
    seen[name] += 1
    yield here, offset
    if value.text in {"{", "<"}:
        yield from _fields(tokens, here, _CLOSING[value.text])


def _until(tokens: Iterator[_Token], end: str) -> Iterator[_Token]:
    for token in tokens:
        if token.text == end:
            return
        yield token


def _until_closed(tokens: Iterator[_Token], end: str) -> Iterator[_Token]:
    """Yield the first token of each element; whoever takes it reads the rest of a message."""
    return (token for token in _until(tokens, end) if token.text != ",")
