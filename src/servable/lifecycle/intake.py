"""When a version on disk is complete enough to be loaded, and how to publish one so that it always is.

A version is taken when a manifest with checksums agrees, or when its format proves that nothing is missing and two
scans in a row saw the same files. Scans are compared with each other, never with the time of day: the clock that
wrote the files is not ours. Files that keep still for ``PATIENCE_S`` without a proof get one attempt to load.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from servable.core.errors import Code, ServingError, invalid_argument, not_found
from servable.core.scratch import scratch
from servable.lifecycle.layout import file_error, list_versions
from servable.lifecycle.manifest import disagreement, write_manifest

PATIENCE_S = 10.0

Fingerprint: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Relative name, size, modification time in ns and inode of every file, in order of names."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one look at a version's files found.

    ``lacking`` is what the format or the manifest misses, "" if nothing. ``manifest`` says whether there is one:
    its word is final, in both directions.
    """

    lacking: str = ""
    manifest: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not to be loaded yet, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Taken:
    """To be loaded. ``doubt`` says what completeness lacked when patience ended; ``refused`` that it must fail."""

    doubt: str = ""
    refused: bool = False


class Intake:
    """The memory of one version directory between scans. Pure: files and clock are passed in."""

    def __init__(self) -> None:
        self.seen: Fingerprint | None = None
        self._seen_since = 0.0

    def look(self, fingerprint: Fingerprint, now: float) -> bool:
        """Remember what a scan saw; return whether it is what the scan before saw."""
        if fingerprint == self.seen:
            return True
        self.seen = fingerprint
        self._seen_since = now
        return False

    def judge(self, evidence: Evidence, now: float, *, stable: bool, once: bool) -> Taken | Waiting:
        """Decide, after ``look``. ``stable`` is its answer, or true where the proof alone is enough.

        ``once`` says that there will be no other scan, so patience would be in vain.
        """
        if not evidence.lacking and (stable or evidence.manifest):
            return Taken()
        if not evidence.lacking:
            return Waiting("waits for a second scan that finds the same files")
        if once or now - self._seen_since >= PATIENCE_S:
            return Taken(evidence.lacking, refused=evidence.manifest)
        return Waiting(evidence.lacking)


def fingerprint(path: Path) -> Fingerprint:
    """Return the identity of all files under ``path``, or of one file. Links are followed.

    Raises ``ServingError`` if the files cannot be read or go away meanwhile.
    """
    found: list[tuple[str, int, int, int]] = []
    try:
        if path.is_dir():
            _walk(path, "", found, set())
        else:
            found.append(_identity(path.name, path.stat()))
    except OSError as error:
        raise file_error(error, Path(error.filename or path)) from None
    return tuple(sorted(found))


def _identity(name: str, stat: os.stat_result) -> tuple[str, int, int, int]:
    return name, stat.st_size, stat.st_mtime_ns, stat.st_ino


def _walk(directory: Path, prefix: str, found: list[tuple[str, int, int, int]], above: set[tuple[int, int]]) -> None:
    own = directory.stat()
    # A link to a directory above would never end.
    if (own.st_dev, own.st_ino) in above:
        return
    above = above | {(own.st_dev, own.st_ino)}
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir():
                _walk(Path(entry.path), f"{prefix}{entry.name}/", found, above)
            else:
                found.append(_identity(f"{prefix}{entry.name}", entry.stat()))


def publish(source: Path, base_path: Path, version: int | None = None) -> Path:
    """Copy a version (a directory or one artifact file) to ``base_path``/``version``, and return that path.

    ``None`` takes the number after the highest. Servers see nothing or everything: it is written with a manifest to
    a temporary directory beside, and renamed. ALREADY_EXISTS if the version is there, DATA_LOSS if the source has a
    manifest that its files do not agree with.
    """
    if not source.exists():
        raise not_found(f"{source} does not exist")
    if version is not None and version < 0:
        raise invalid_argument(f"{version} is not a version: versions are 0 and more")
    is_new = not base_path.exists()
    try:
        damage = disagreement(source)
        if damage:
            raise ServingError(Code.DATA_LOSS, f"{source} is damaged: {damage}")
        base_path.mkdir(parents=True, exist_ok=True)
        present = list_versions(base_path).versions
        if version is None:
            version = max(present, default=0) + 1
        if version in present:
            raise _already_exists(present[version])
        return _publish(source, base_path, base_path / str(version))
    except OSError as error:
        raise file_error(error, Path(error.filename or base_path)) from None
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                base_path.rmdir()  # stays if something came into it


def _publish(source: Path, base_path: Path, target: Path) -> Path:
    # The name is no number, so a scan that comes by passes over it.
    with scratch(base_path, ".incoming-") as folder:
        incoming = folder / target.name
        incoming.mkdir()
        if source.is_dir():
            shutil.copytree(source, incoming, dirs_exist_ok=True)
        else:
            shutil.copy2(source, incoming / source.name)
        incoming.chmod(0o755)
        write_manifest(incoming)
        _sync(incoming)
        try:
            incoming.rename(target)
        except OSError:
            if target.exists():
                raise _already_exists(target) from None
            raise
    _sync_directory(base_path)
    return target


def _already_exists(path: Path) -> ServingError:
    return ServingError(Code.ALREADY_EXISTS, f"{path} exists; a version is never overwritten: give another number")


def _sync(directory: Path) -> None:
    """Have the disk hold every file before the rename, so that a crash leaves all of a version or nothing."""
    for parent, _, names in os.walk(directory):
        for name in names:
            _sync_file(Path(parent, name))
        _sync_directory(Path(parent))


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems cannot sync a directory; the rename stands all the same.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
