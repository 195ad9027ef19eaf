"""How versions lie on disk: which directory names are version numbers, and what is in a base path now."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from servable.core.errors import Code, ServingError, not_found, unavailable

_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]+[ \t\n\v\f\r]*", re.ASCII)
_LARGEST = 2**63 - 1
_NUMBERED_NAME = re.compile(r"v(?:ersion)?[-_. ]?0*([0-9]+)|0*([0-9]+)\.[0-9.]+", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listing:
    """The versions in a base path, and what a person should know about entries that were passed over."""

    versions: dict[int, Path]
    warnings: tuple[str, ...] = ()


def parse_version(name: str) -> int | None:
    """Return the version that a directory's name stands for, or ``None``.

    The whole name is a decimal 64-bit integer; leading zeros, a sign and blanks around it are accepted, negative
    numbers are not.
    """
    if not _NUMBER.fullmatch(name):
        return None
    number = int(name)
    return number if 0 <= number <= _LARGEST else None


def list_versions(base_path: Path) -> Listing:
    """Return the version directories of a base path. Files are passed over, whatever their name.

    Of two names for one number the last in order wins, with a warning. A path that cannot be read is NOT_FOUND or
    UNAVAILABLE, and never an empty listing.
    """
    versions: dict[int, Path] = {}
    warnings: list[str] = []
    try:
        with os.scandir(base_path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                number = parse_version(entry.name)
                if number is None or not entry.is_dir():
                    continue
                if number in versions:
                    warnings.append(
                        f"{base_path} has two directories for version {number}: "
                        f"{entry.name!r} is taken, {versions[number].name!r} is not"
                    )
                versions[number] = base_path / entry.name
    except OSError as error:
        raise file_error(error, base_path) from None
    return Listing(versions, tuple(warnings))


def misnamed_version(base_path: Path) -> str:
    """Return a hint for a directory that looks like a version but is not named by a number alone, or ""."""
    try:
        names = sorted(entry.name for entry in os.scandir(base_path) if entry.is_dir())
    except OSError:
        return ""
    for name in names:
        found = _NUMBERED_NAME.fullmatch(name)
        if found:
            return f"; {name!r} is not a version number: rename it to {found.group(1) or found.group(2)!r}"
    return ""


def file_error(error: OSError, path: Path) -> ServingError:
    """Return what a failure of the file system at ``path`` means; UNAVAILABLE is for what may pass."""
    if isinstance(error, FileNotFoundError):
        return not_found(f"{path} does not exist")
    if isinstance(error, NotADirectoryError):
        return not_found(f"{path} is not a directory")
    if isinstance(error, PermissionError):
        return ServingError(Code.PERMISSION_DENIED, f"{path} may not be read: {error.strerror}")
    if isinstance(error, shutil.Error):  # a list of what could not be copied where, and why
        return unavailable(f"{path} cannot be used: {error.args[0][0][2]}")
    return unavailable(f"{path} cannot be used: {error.strerror or error}")
