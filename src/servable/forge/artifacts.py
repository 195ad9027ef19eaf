"""What the forge reads and writes: artifacts that engines load, and sources that become such (Keras, checkpoints)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from servable.core.errors import Code, ServingError, failed_precondition, not_found
from servable.engines.artifact import FILES, SAVED_MODEL_FILE, SETTINGS_FILE, TRANSFORM_FILE
from servable.engines.base import Artifact
from servable.engines.plan import artifact_of_file
from servable.engines.version_settings import copy_version_settings
from servable.lifecycle.layout import list_versions

MAIN_FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "saved_model": SAVED_MODEL_FILE,
        "onnx": "model.onnx",
        "openvino": "model.xml",
        "tflite": "model.tflite",
        "torch_export": "model.pt2",
        "torchscript": "model.pt",
        "graph_def": "graph.pb",
        "python": "model.py",
    }
)
"""Kind of artifact -> the file of a version's folder that it is found by."""
SOURCES: Final[Mapping[str, str]] = MappingProxyType({".keras": "keras", ".h5": "keras"})
"""Suffix -> kind of what no engine serves, but steps read."""
CODE: Final = re.compile(r"(?P<place>.+):(?P<function>[A-Za-z_]\w*)")
"""``file.py:function`` or ``module:function``: what builds a model, for which a checkpoint may have the weights."""
_FOLDERS: Final[Mapping[str, str]] = MappingProxyType(
    {"saved_model": "", "graph_def": f", where {SETTINGS_FILE} beside it holds its signature"}
)
"""Kinds that no file alone can be, and why."""
COMPANIONS: Final = (SETTINGS_FILE, TRANSFORM_FILE, "labels.txt", "assets.extra")
"""What lies beside an artifact and belongs to every form of it."""


def find_source(path: Path, version: int | None = None) -> Artifact:
    """Return the artifact at a path: a file, a version's folder, or a model's folder (its newest version, or that one).

    NOT_FOUND and UNIMPLEMENTED say what was looked for and what can be read.
    """
    if path.suffix in SOURCES and path.is_file():
        return Artifact(SOURCES[path.suffix], path)
    if CODE.fullmatch(path.name) and not path.exists():
        return Artifact("checkpoint", path)
    if path.is_dir() and not _is_version(path):
        versions = list_versions(path).versions
        if versions:
            number = max(versions) if version is None else version
            if number not in versions:
                raise not_found(f"{path} has no version {number}; there are {', '.join(map(str, sorted(versions)))}")
            return artifact_of_file(versions[number])
    return artifact_of_file(path)


def folder_of(artifact: Artifact) -> Path:
    """Return the folder that the artifact's companions lie in."""
    return artifact.path if artifact.path.is_dir() else artifact.path.parent


def copy_companions(source: Artifact, target: Path) -> None:
    """Copy settings, transform, labels and assets of a version; a file that was named by itself has none."""
    if source.kind not in MAIN_FILES or (source.path.is_file() and source.path.name not in FILES):
        return
    folder = folder_of(source)
    for name in COMPANIONS:
        found = folder / name
        if found.is_dir():
            shutil.copytree(found, target / name)
        elif name == SETTINGS_FILE and found.is_file():
            copy_version_settings(found, target / name)
        elif found.is_file():
            shutil.copy2(found, target / name)


def destination(path: Path, kind: str) -> Path:
    """Return where a new artifact of that kind goes: a file with its suffix, a version's folder, or the next version.

    A path whose last part is a number is a version's folder, any other without the suffix a model's folder.
    ALREADY_EXISTS if something is there: nothing is ever overwritten.
    """
    suffix = Path(MAIN_FILES[kind]).suffix
    if path.suffix and path.suffix in {Path(name).suffix for name in FILES}:
        if kind in _FOLDERS or path.suffix != suffix:
            expected = "a folder" + _FOLDERS.get(kind, f" or a file *{suffix}")
            raise failed_precondition(f"{path}: a {kind} artifact goes to {expected}")
        final = path
    elif path.name.isdecimal():
        final = path
    else:
        present = list_versions(path).versions if path.is_dir() else {}
        final = path / str(max(present, default=0) + 1)
    if final.exists():
        raise ServingError(Code.ALREADY_EXISTS, f"{final} is there already; nothing is overwritten: name another place")
    return final


def bytes_of(artifact: Artifact) -> int:
    """Return the size of the files that make up the artifact, in bytes, without its companions."""
    path = artifact.path
    if path.is_dir():
        files = [path / SAVED_MODEL_FILE, *(found for found in (path / "variables").rglob("*") if found.is_file())]
        files += [found for found in (path / "assets").rglob("*") if found.is_file()]
        return sum(found.stat().st_size for found in files if found.exists())
    beside = {".xml": (path.with_suffix(".bin"),), ".onnx": (path.with_suffix(".onnx.data"),)}.get(path.suffix, ())
    return path.stat().st_size + sum(found.stat().st_size for found in beside if found.exists())


def _is_version(path: Path) -> bool:
    return any((path / name).exists() for name in (SAVED_MODEL_FILE, "model.savedmodel", *FILES))
