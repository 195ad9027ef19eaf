"""A list of a version's files with sizes and checksums: ``servable.manifest.json`` beside them.

``{"files": {"model.onnx": {"size": 1024, "sha256": "9f86..."}}}``, names relative to the version. Files that it does
not name are allowed; what it names must be there and agree.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "servable.manifest.json"


def write_manifest(version_dir: Path) -> Path:
    """Write the manifest of every file under ``version_dir``, and return its path."""
    files = {}
    for path in sorted(Path(parent, name) for parent, _, names in os.walk(version_dir) for name in names):
        relative = path.relative_to(version_dir).as_posix()
        if relative != MANIFEST:
            files[relative] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    target = version_dir / MANIFEST
    target.write_text(json.dumps({"files": files}, indent=1, sort_keys=True) + "\n")
    return target


def disagreement(version_dir: Path) -> str | None:
    """Return how the files disagree with the manifest, "" if they agree, ``None`` if there is no manifest.

    Sizes are compared first, so that a version on its way costs little. Raises ``OSError``.
    """
    try:
        text = (version_dir / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        files = _parse(text)
    except ValueError as error:
        return f"{MANIFEST} is not a manifest: {error}"
    return _missing(version_dir, files) or _altered(version_dir, files)


def _parse(text: bytes) -> dict[str, tuple[int, str]]:
    document = json.loads(text)
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict) or not files:
        raise ValueError('expected {"files": {name: {"size": bytes, "sha256": hex}}}')
    return {name: _entry(name, entry) for name, entry in files.items()}


def _entry(name: str, entry: Any) -> tuple[int, str]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r} leaves the version's directory")
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("size"), int)
        or not isinstance(entry.get("sha256"), str)
    ):
        raise ValueError(f"{name!r} needs an integer size and a sha256")  # noqa: TRY004  # a document, not an argument
    return entry["size"], entry["sha256"].lower()


def _missing(version_dir: Path, files: dict[str, tuple[int, str]]) -> str:
    for name, (size, _) in files.items():
        try:
            found = (version_dir / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing, which {MANIFEST} names"
        if found != size:
            return f"{name} has {found} of the {size} bytes that {MANIFEST} states"
    return ""


def _altered(version_dir: Path, files: dict[str, tuple[int, str]]) -> str:
    for name, (_, expected) in files.items():
        if _sha256(version_dir / name) != expected:
            return f"the checksum of {name} is not the one that {MANIFEST} states"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
