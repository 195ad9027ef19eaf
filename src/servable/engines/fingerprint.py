"""What an artifact is by its contents: the same bytes give the same fingerprint, wherever and whenever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from servable.core.errors import ServingError, unavailable
from servable.engines.base import Artifact

_ALGORITHM = "sha256"


def outline(artifact: Artifact) -> tuple[tuple[str, int], ...]:
    """Return the names and lengths of the artifact's files: as much as can be known without reading them."""
    return tuple((name, _length(path)) for name, path in files(artifact))


def fingerprint(artifact: Artifact) -> str:
    """Return a digest of the artifact's files and their names; reads all of them (about a second for 2 GB).

    UNAVAILABLE names a file that cannot be read.
    """
    digest = hashlib.new(_ALGORITHM)
    for name, path in files(artifact):
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, _ALGORITHM).hexdigest()
        except OSError as error:
            raise unavailable(f"{path} cannot be read: {error.strerror}") from None
        digest.update(f"{name}\0{content}\n".encode())
    return f"{_ALGORITHM}:{digest.hexdigest()}"


def files(artifact: Artifact) -> list[tuple[str, Path]]:
    """Return the files that make up an artifact, in order, with names that do not depend on where it lies.

    The settings beside it count: they may hold its signatures.
    """
    main = artifact.path
    if main.is_dir():
        found = [("saved_model.pb", main / "saved_model.pb")]
        for folder in ("variables", "assets"):
            inside = sorted(path for path in (main / folder).rglob("*") if path.is_file())
            found += [(str(path.relative_to(main)), path) for path in inside]
    else:
        found = [(f"model{main.suffix}", main)]
        found += [(path.name.replace(main.stem, "model", 1), path) for path in _beside(artifact)]
    if artifact.settings is not None:
        found.append((artifact.settings.name, artifact.settings))
    return found


def _beside(artifact: Artifact) -> Iterator[Path]:
    main = artifact.path
    if artifact.kind == "openvino" and (weights := main.with_suffix(".bin")).exists():
        yield weights
    if artifact.kind == "onnx":
        from servable.engines.onnx_model import data_files, read

        try:
            yield from (main.parent / name for name in data_files(read(main)))
        except ServingError:
            return  # a file that cannot be understood has no others


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
