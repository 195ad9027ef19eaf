"""What was done before: records beside the artifacts, found by the content of all that went into them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from servable.core.errors import failed_precondition
from servable.engines.base import Artifact
from servable.forge.artifacts import folder_of
from servable.forge.samples import Samples

FOLDER: Final = ".optimize"
"""Hidden, so that no server takes it for a model."""
_CHUNK: Final = 1 << 20
_BESIDE: Final[Mapping[str, tuple[str, ...]]] = {".xml": (".bin",), ".onnx": (".onnx.data",)}
_LIBRARIES: Final = (
    "servable", "numpy", "onnx", "onnxruntime", "openvino", "nncf", "onnxslim", "onnxscript", "tf2onnx", "tensorflow",
    "tensorflow-cpu", "keras", "torch", "ai-edge-litert",
)  # fmt: skip


class Records:
    """Records by name in a folder. A record is written whole or not at all."""

    def __init__(self, out: Path) -> None:
        self._folder = out / FOLDER

    def read(self, name: str) -> dict[str, Any]:
        """Return a record, empty if there is none that can be read."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self._folder / f"{name}.json").read_bytes())
            if isinstance(found, dict):
                return found
        return {}

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep a record."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, suffix=".part", delete=False) as file:
                try:
                    json.dump(record, file)
                    file.close()
                    Path(file.name).replace(self._folder / f"{name}.json")
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise failed_precondition(f"cannot write {self._folder}: {error.strerror}") from None


def key_of(**parts: Any) -> str:
    """Return a short name for all that went into a result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def digest_of(artifact: Artifact) -> str:
    """Return the fingerprint of an artifact's content: of its version's folder, or of the file that was named."""
    found = hashlib.sha256(artifact.kind.encode())
    folder = folder_of(artifact)
    for path in _files(artifact):
        found.update(f"\0{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    return found.hexdigest()


def digest_of_samples(samples: Samples | None) -> str:
    """Return the fingerprint of data; "" for none."""
    if samples is None:
        return ""
    found = hashlib.sha256()
    for name in sorted(samples.rows):
        array = samples.rows[name]
        found.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        found.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    if samples.labels is not None:
        found.update(samples.labels.tobytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that steps and engines use."""
    found = {}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def _files(artifact: Artifact) -> Iterator[Path]:
    path = artifact.path
    if path.is_dir():
        parents = [(Path(parent), names) for parent, _, names in os.walk(path)]
        yield from sorted(parent / name for parent, names in parents for name in names)
        return
    yield path
    for suffix in _BESIDE.get(path.suffix, ()):
        if (beside := path.with_suffix(suffix)).is_file():
            yield beside
    yield from (found for found in (artifact.transform, artifact.settings) if found is not None)
