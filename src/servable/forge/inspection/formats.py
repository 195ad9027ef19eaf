"""Which reader reads which kind of artifact, and what a path holds."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from servable.core.errors import not_found, unimplemented
from servable.engines.base import Artifact
from servable.forge.inspection.graph import Bound, Inspection

READERS: Mapping[str, str] = {
    "saved_model": "servable.forge.inspection.read_tensorflow:read_saved_model",
    "graph_def": "servable.forge.inspection.read_tensorflow:read_graph_def",
    "keras": "servable.forge.inspection.read_keras:read",
    "onnx": "servable.forge.inspection.read_onnx:read",
    "openvino": "servable.forge.inspection.read_openvino:read",
    "tflite": "servable.forge.inspection.read_tflite:read",
    "torch_export": "servable.forge.inspection.read_torch:read",
    "torchscript": "servable.forge.inspection.read_torchscript:read",
}
"""Kind of artifact -> "module:function", which takes a path and the shapes of inputs."""

SUFFIXES: Mapping[str, str] = {
    ".onnx": "onnx", ".xml": "openvino", ".tflite": "tflite", ".pt2": "torch_export", ".pt": "torchscript",
    ".pb": "graph_def", ".pbtxt": "graph_def", ".keras": "keras", ".h5": "keras",
}  # fmt: skip
_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")


def artifact_at(path: Path) -> Artifact | None:
    """Return the artifact that a path itself is; ``None`` for a folder of versions or of models, and for code."""
    if path.is_dir():
        found = next((name for name in _SAVED_MODEL_FILES if (path / name).is_file()), None)
        return Artifact("saved_model", path) if found else None
    if path.name in _SAVED_MODEL_FILES:
        return Artifact("saved_model", path.parent)
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return Artifact("openvino", path.with_suffix(".xml"))
    kind = SUFFIXES.get(path.suffix)
    return None if kind is None or not path.is_file() else Artifact(kind, path)


def inspect(artifact: Artifact, bound: Bound | None = None) -> Inspection:
    """Read an artifact without running it; ``bound`` are shapes to assume for inputs by their names.

    UNIMPLEMENTED for Python, which only running could tell; NOT_FOUND, DATA_LOSS and others say what is wrong with a
    file.
    """
    if artifact.kind not in READERS:
        raise unimplemented(f"{artifact.path} is {artifact.kind}: what it consists of only running it could tell")
    if not artifact.path.exists():
        raise not_found(f"there is no {artifact.path}")
    module, _, name = READERS[artifact.kind].partition(":")
    found: Inspection = getattr(importlib.import_module(module), name)(artifact.path, bound or {})
    return found
