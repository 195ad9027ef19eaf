"""From what a person wrote to the value of an option: one rule for flags, environment and files."""

from __future__ import annotations

import math
from dataclasses import MISSING, Field
from typing import Any

_KINDS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def kind(item: Field[Any]) -> type:
    """Return the type of an option, or of its elements."""
    declared = str(item.type)
    return next(found for name, found in _KINDS.items() if name in declared)


def is_list(item: Field[Any]) -> bool:
    """Return whether an option can be given several times."""
    return item.default_factory is not MISSING


def from_text(item: Field[Any], text: str) -> Any:
    """Return the value, one element of a list; ``ValueError`` says what would be right."""
    value = value_of(kind(item), text)
    return value if isinstance(value, bool) else check(item, value)


def value_of(wanted: type, text: str) -> Any:
    """Return a text as a bool, int, float or str; ``ValueError`` says what was expected."""
    if wanted is bool:
        return _boolean(text)
    try:
        return wanted(text)
    except ValueError:
        raise ValueError(f"expected {_WORDS[wanted]}, not {text!r}") from None


def from_file(item: Field[Any], value: object) -> Any:
    """Return a value that has a type already; ``ValueError`` says what would be right."""
    if is_list(item):
        if not isinstance(value, list):
            raise ValueError(f"expected a list such as [{_quoted(value)}], not {value!r}")
        return tuple(_typed(item, element) for element in value)
    return _typed(item, value)


def check(item: Field[Any], value: Any) -> Any:
    """Return the value if it is one of the choices and within the bounds of its option."""
    choices, least, most = (item.metadata[key] for key in ("choices", "least", "most"))
    if choices and value not in choices:
        raise ValueError(f"expected {'' if len(choices) == 1 else 'one of '}{', '.join(choices)}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, not {value}")
    if (least is not None and value < least) or (most is not None and value > most):
        raise ValueError(f"expected {_range(least, most)}, not {value}")
    return value


def default_text(item: Field[Any]) -> str:
    """Return the default of an option as one would write it; "" if it has none."""
    if item.default in (MISSING, None, ""):
        return ""
    return str(item.default).lower() if isinstance(item.default, bool) else str(item.default)


def _typed(item: Field[Any], value: object) -> Any:
    wanted = kind(item)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise ValueError(f"expected {_WORDS[wanted]}, not {value!r}")
    return check(item, value)


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "1"}:
        return True
    if text.lower() in {"false", "0"}:
        return False
    raise ValueError(f"expected true, false, 1 or 0, not {text!r}")


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
