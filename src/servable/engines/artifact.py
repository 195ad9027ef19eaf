"""Which file or folder of a version is the model: by name, in a fixed order, never by a look inside."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from servable.core.errors import ServingError, failed_precondition, not_found, unimplemented
from servable.engines.base import Artifact
from servable.engines.version_settings import ARTIFACT, read_version_settings

SAVED_MODEL_FILE = "saved_model.pb"
SAVED_MODEL_FOLDER = "model.savedmodel"
TRANSFORM_FILE = "transform.py"
SETTINGS_FILE = "servable.toml"

FILES: Final = MappingProxyType(
    {
        "model.onnx": "onnx",
        "model.xml": "openvino",
        "model.tflite": "tflite",
        "model.pt2": "torch_export",
        "model.pt": "torchscript",
        "graph.pb": "graph_def",
        "graph.pbtxt": "graph_def",
        "model.py": "python",
    }
)
"""File of a version -> kind of artifact, by precedence. A SavedModel is a folder and comes before all of them."""
SIGNED_BY_SETTINGS: Final = frozenset({"tflite", "torch_export", "torchscript", "graph_def", "onnx", "openvino"})
"""Kinds whose signatures, or further names of the one, may stand in the ``servable.toml`` beside them, because their
format cannot hold all of it."""

_UNSERVED = "saved_model.pbtxt"
_KINDS_BY_SUFFIX = {
    ".onnx": "onnx", ".xml": "openvino", ".tflite": "tflite", ".pt2": "torch_export", ".pt": "torchscript",
    ".pb": "graph_def", ".pbtxt": "graph_def", ".py": "python",
}  # fmt: skip
_UNSERVED_SUFFIXES = (".keras", ".h5")


def find_artifact(version_dir: Path) -> Artifact:
    """Return the main artifact of a version's folder.

    What ``artifact`` in its ``servable.toml`` names; else the first that is there of ``saved_model.pb``,
    ``model.savedmodel/`` and ``FILES``. NOT_FOUND says what was looked for; UNIMPLEMENTED names an artifact that is
    there but that this version does not serve.
    """
    if not version_dir.is_dir():
        raise not_found(f"there is no version folder {version_dir}")
    transform, settings = version_dir / TRANSFORM_FILE, version_dir / SETTINGS_FILE
    has_settings = settings.is_file()
    named = _named_in(settings) if has_settings else None
    return replace(
        _main_artifact(version_dir) if named is None else named,
        transform=transform if transform.is_file() else None,
        settings=settings if has_settings else None,
    )


def _named_in(settings: Path) -> Artifact | None:
    """Return the artifact that the settings name, ``None`` if they name none, or say what is nobody's here to judge."""
    name = None
    with contextlib.suppress(ServingError):  # whoever reads all of the file says what is wrong with it
        name = read_version_settings(settings).get(ARTIFACT)
    if name is None:
        return None
    if type(name) is not str or Path(name).name != name:
        raise failed_precondition(
            f"{settings}: {ARTIFACT}: expected the name of a file or folder beside it, not {name!r}"
        )
    path = settings.parent / name
    if path.is_dir():
        if (path / SAVED_MODEL_FILE).is_file():
            return Artifact("saved_model", path)
        raise not_found(f"{path}, which {settings} names, is a folder without a {SAVED_MODEL_FILE}")
    return replace(artifact_of_file(path), settings=None)


def _main_artifact(version_dir: Path) -> Artifact:
    for folder in (version_dir, version_dir / SAVED_MODEL_FOLDER):
        if (folder / SAVED_MODEL_FILE).is_file():
            return Artifact("saved_model", folder)
    for name, kind in FILES.items():
        if kind == "python" and (unserved := version_dir / _UNSERVED).exists():
            raise _not_served(unserved)
        if (path := version_dir / name).is_file():
            return Artifact(kind, path)
    raise _nothing_to_serve(version_dir)


def artifact_of_file(path: Path) -> Artifact:
    """Return the artifact that a path is: a SavedModel's folder or its ``saved_model.pb``, or a file by its suffix.

    A transform and settings count only beside the artifact of a version's folder, not beside a file that was named by
    itself; but settings that may say the signature do, if the file has a name of ``FILES``.
    """
    if path.is_dir():
        return find_artifact(path)
    if not path.exists():
        raise not_found(f"there is no file {path}")
    if path.name == SAVED_MODEL_FILE:
        return Artifact("saved_model", path.parent)
    if path.name == _UNSERVED or path.suffix in _UNSERVED_SUFFIXES:
        raise _not_served(path)
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return Artifact("openvino", path.with_suffix(".xml"))
    kind = _KINDS_BY_SUFFIX.get(path.suffix)
    if kind is None:
        raise not_found(f"{path} is not a model; {_SERVED}")
    settings = path.with_name(SETTINGS_FILE)
    signed = kind in SIGNED_BY_SETTINGS and path.name in FILES and settings.is_file()
    return Artifact(kind, path, settings=settings if signed else None)


_SERVED = (
    "a model is a SavedModel folder, an .onnx file, an OpenVINO .xml file with its .bin beside it, a .tflite file, a "
    "torch.export .pt2 or TorchScript .pt file, a frozen graph's .pb or .pbtxt file, or a .py file"
)


def _not_served(path: Path) -> ServingError:
    way = ": export it first (servable export)" if path.suffix in _UNSERVED_SUFFIXES else ""
    return unimplemented(f"{path} is not served by this version{way}; {_SERVED}")


def _nothing_to_serve(version_dir: Path) -> ServingError:
    if (version_dir / _UNSERVED).exists():
        return _not_served(version_dir / _UNSERVED)
    if (version_dir / "export.meta").exists():
        return unimplemented("Session Bundle is deprecated and removed.")
    *names, last = FILES
    return not_found(
        f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {version_dir}; "
        f"nor is there {SAVED_MODEL_FOLDER}/{SAVED_MODEL_FILE}, {', '.join(names)} or {last}"
    )
