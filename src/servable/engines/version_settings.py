"""The ``servable.toml`` of a version: which tables it may have, and how a wrong value is named."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from servable.core.errors import ServingError, failed_precondition, not_found

ARTIFACT: Final = "artifact"
"""The file or folder of the version that is the model, where the order of precedence would find another."""
EXAMPLES: Final = "examples"
SIGNATURES: Final = "signatures"
KEYS: Final = frozenset({ARTIFACT, EXAMPLES, SIGNATURES})
"""What the file may hold. The modules ``artifact``, ``example_settings`` and ``signature_settings`` read them."""
_WORD = re.compile(r"\s*artifact\s*=")


def read_version_settings(path: Path) -> dict[str, Any]:
    """Return the file's contents; NOT_FOUND, or FAILED_PRECONDITION if it is no TOML or has a key that nobody reads."""
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise failed_precondition(f"{path}: no TOML: {error}") from None
    unknown = document.keys() - KEYS
    if unknown:
        known = ", ".join(sorted(KEYS))
        raise failed_precondition(
            f"{path}: there is no key {min(unknown)!r} in the file of a version; there are {known}"
        )
    return document


def copy_version_settings(source: Path, target: Path) -> None:
    """Copy the file to a version whose model may lie in another file: all but the word which one it is."""
    document = read_version_settings(source)
    content = source.read_text("utf-8")
    if ARTIFACT in document:
        content = "".join(line for line in content.splitlines(keepends=True) if not _WORD.match(line))
        del document[ARTIFACT]
        if tomllib.loads(content) != document:
            raise failed_precondition(f"{source}: {ARTIFACT} cannot be taken out: write it as a line of its own")
    if document:
        target.write_text(content, "utf-8")


def check_keys(found: Any, known: AbstractSet[str], where: str) -> dict[str, Any]:
    """Return the table; FAILED_PRECONDITION names a key that is not one of those known."""
    for key in table(found, where):
        if key not in known:
            raise failed_precondition(f"{where}: there is no key {key!r}; there are {', '.join(sorted(known))}")
    return table(found, where)


def table(value: Any, where: str) -> dict[str, Any]:
    """Return the value if it is a table."""
    if type(value) is not dict:
        raise wrong(where, "a table", value)
    return value


def text(value: Any, where: str) -> str:
    """Return the value if it is a string."""
    if type(value) is not str:
        raise wrong(where, "a string", value)
    return value


def wrong(where: str, expected: str, found: Any) -> ServingError:
    """Return the error for a value of the wrong kind; ``where`` is the file and the key."""
    return failed_precondition(f"{where}: expected {expected}, not {found!r}")
