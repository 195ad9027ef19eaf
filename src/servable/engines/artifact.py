"""Which file or folder of a version is the model: by name, in a fixed order, never by a look inside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from servable.core.errors import ServingError, not_found, unimplemented
from servable.engines.base import Artifact

SAVED_MODEL_FILE = "saved_model.pb"
SAVED_MODEL_FOLDER = "model.savedmodel"
TRANSFORM_FILE = "transform.py"
SETTINGS_FILE = "servable.toml"

_UNSERVED = ("saved_model.pbtxt", "model.tflite", "model.pt2", "model.pt", "graph.pb")
_KINDS_BY_SUFFIX = {".onnx": "onnx", ".xml": "openvino", ".py": "python"}
_UNSERVED_SUFFIXES = (".pbtxt", ".tflite", ".pt2", ".pt", ".pb", ".keras", ".h5")


def find_artifact(version_dir: Path) -> Artifact:
    """Return the main artifact of a version's folder.

    The first that is there wins: ``saved_model.pb``, ``model.savedmodel/``, ``model.onnx``, ``model.xml``,
    ``model.py``. NOT_FOUND says what was looked for; UNIMPLEMENTED names an artifact that is there but that this
    version does not serve.
    """
    if not version_dir.is_dir():
        raise not_found(f"there is no version folder {version_dir}")
    transform, settings = version_dir / TRANSFORM_FILE, version_dir / SETTINGS_FILE
    return replace(
        _main_artifact(version_dir),
        transform=transform if transform.is_file() else None,
        settings=settings if settings.is_file() else None,
    )


def _main_artifact(version_dir: Path) -> Artifact:
    for folder in (version_dir, version_dir / SAVED_MODEL_FOLDER):
        if (folder / SAVED_MODEL_FILE).is_file():
            return Artifact("saved_model", folder)
    if (onnx := version_dir / "model.onnx").is_file():
        return Artifact("onnx", onnx)
    if (xml := version_dir / "model.xml").is_file():
        return Artifact("openvino", xml)
    unserved = _unserved(version_dir)
    if unserved is None and (code := version_dir / "model.py").is_file():
        return Artifact("python", code)
    raise unserved or _nothing_to_serve(version_dir)


def artifact_of_file(path: Path) -> Artifact:
    """Return the artifact that a path is: a SavedModel's folder or its ``saved_model.pb``, an ONNX, IR or Python file.

    A transform and settings count only beside the artifact of a version's folder, not beside a file that was named by
    itself.
    """
    if path.is_dir():
        return find_artifact(path)
    if not path.exists():
        raise not_found(f"there is no file {path}")
    if path.name == SAVED_MODEL_FILE:
        return Artifact("saved_model", path.parent)
    kind = _KINDS_BY_SUFFIX.get(path.suffix)
    if kind is not None:
        return Artifact(kind, path)
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return Artifact("openvino", path.with_suffix(".xml"))
    if path.suffix in _UNSERVED_SUFFIXES:
        raise unimplemented(f"{path} is not served by this version; {_SERVED}")
    raise not_found(f"{path} is not a model; {_SERVED}")


_SERVED = "a model is a SavedModel folder, an .onnx file, an OpenVINO .xml file with its .bin beside it, or a .py file"


def _unserved(version_dir: Path) -> ServingError | None:
    found = next((version_dir / name for name in _UNSERVED if (version_dir / name).exists()), None)
    return unimplemented(f"{found} is not served by this version; {_SERVED}") if found else None


def _nothing_to_serve(version_dir: Path) -> ServingError:
    if (version_dir / "export.meta").exists():
        return unimplemented("Session Bundle is deprecated and removed.")
    return not_found(
        f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {version_dir}; "
        f"nor is there {SAVED_MODEL_FOLDER}/{SAVED_MODEL_FILE}, model.onnx, model.xml or model.py"
    )
