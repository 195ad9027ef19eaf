"""Protobuf's text format, strictly: configuration files, and messages inside error texts.

All punctuation that TensorFlow's own parser takes is accepted: ``a: {}`` and ``a {}``, commas and semicolons after
fields, ``[..]`` lists, ``<..>`` for braces, comments, adjacent strings. Unknown and repeated fields are errors.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from servable.protos import pool

_STRINGS = re.compile(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")
_ESCAPES = re.compile(
    r"""\\(?:[abfnrtv\\'"?]|[0-3][0-7]{0,2}|[4-7][0-7]?(?![0-7])|"""
    r"""[xX][\da-fA-F]{1,2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|(?P<wrong>.))"""
)
_SAME = re.compile(
    r"""(?:[^\\]++|\\(?:[abfnrtv\\'"]|[0-3][0-7]{0,2}|[4-7][0-7]?(?![0-7])|"""
    r"""x[\da-fA-F]{1,2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}))*+"""
)
"""Strings that both parsers read alike: nearly all, and those of weights have millions of escapes."""
_SPELLED = {"\\?": "?", "\\X": "\\x"}
"""The beginning of an escape that only the C++ parser knows -> what means the same."""


def parse(text: str | bytes, message_class: Any, source: str = "<text>", *, allow_unknown: bool = False) -> Any:
    """Return the message that ``text`` describes. ``ValueError`` names source, line, column and field.

    ``allow_unknown`` passes over fields that the message does not have.
    """
    from google.protobuf import text_format

    if isinstance(text, bytes):
        text = _decode(text, source)
    text = _with_python_escapes(text.removeprefix("\ufeff"), source)
    try:
        return text_format.Parse(text, message_class(), allow_unknown_field=allow_unknown, descriptor_pool=pool())
    except text_format.ParseError as failure:
        raise ValueError(_explain(failure, text, message_class.DESCRIPTOR.name, source)) from None
    except RecursionError:
        raise ValueError(f"{source}: the message is nested too deeply") from None


def to_text(message: Any, *, one_line: bool = False) -> str:
    """Return a message in text format, as people read it: UTF-8 stays, one field a line unless ``one_line``."""
    from google.protobuf import text_format

    text = text_format.MessageToString(message, as_utf8=True, as_one_line=one_line, descriptor_pool=pool())
    return str(text)


def _decode(data: bytes, source: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise ValueError(f"{source}:{line}: byte {failure.start} is not UTF-8") from None


def _with_python_escapes(text: str, source: str) -> str:
    """Return the text with the escapes that Python's parser knows. It would take others for the characters they are."""
    if "\\" not in text:
        return text

    def escape(found: re.Match[str]) -> str:
        if found["wrong"] is not None:
            start = string.start() + found.start()
            line = text.count("\n", 0, start) + 1
            column = start - text.rfind("\n", 0, start)
            raise ValueError(f"{source}:{line}:{column}: there is no escape \\{found['wrong']}; \\\\ is a backslash")
        head = found[0][:2]
        return _SPELLED.get(head, head) + found[0][2:]

    parts, end = [], 0
    for string in _STRINGS.finditer(text):
        if string[0][0] != "#" and not _SAME.fullmatch(string[0]):
            parts += [text[end : string.start()], _ESCAPES.sub(escape, string[0])]
            end = string.end()
    return "".join([*parts, text[end:]])


def _explain(failure: Any, text: str, message_name: str, source: str) -> str:
    line, column = failure.GetLine(), failure.GetColumn()
    reason = re.sub(r"^\d+:\d+ ?: ", "", str(failure)).strip()
    if line is None:
        return f"{source}: {reason} (in {message_name})"
    unknown = re.search(r'Message type "([\w.]+)" has no field named "([^"]+)"', reason)
    if unknown:
        return f"{source}:{line}:{column}: {unknown[1]} has no field {unknown[2]!r}; {_fields(unknown[1], unknown[2])}"
    lines = [*text.split("\n"), ""]  # an error at the end may be on the line after the last
    reason = reason.removeprefix(f"{lines[line - 1]!r}: ").rstrip(".")
    before = "\n".join([*lines[: line - 1], lines[line - 1][: (column or 1) - 1]])[-2000:]
    field = re.search(r"([A-Za-z_]\w*)\s*:?\s*\[?[\s\w.,\"'+-]*$", before)
    where = f" in field {field[1]!r}" if field and f'"{field[1]}"' not in reason else ""
    return f"{source}:{line}:{column}: {reason}{where} (reading {message_name})"


def _fields(message_name: str, wrong: str) -> str:
    names = [field.name for field in pool().FindMessageTypeByName(message_name).fields]
    close = difflib.get_close_matches(wrong, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names) or 'none'}"
