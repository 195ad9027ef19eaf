"""The files of Keras: a configuration, and weights in HDF5. Nothing of Keras is imported."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError, failed_precondition, not_found
from servable.forge.inspection.graph import Parameter, tensor_bytes

_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"
_STATE_OF_CHANCE = "seed_generator"


@dataclass(frozen=True, slots=True)
class KerasFile:
    """A configuration, the weights by their paths in the file, and the version that wrote it."""

    config: Mapping[str, Any]
    weights: Mapping[str, Parameter]
    version: str
    by_layer_name: bool
    """Whether the paths of weights begin with the names of layers (``.h5``), not with those of their classes."""


def load(path: Path) -> KerasFile:
    """Read a file; NOT_FOUND, DATA_LOSS if it is damaged, FAILED_PRECONDITION if h5py is not here."""
    if not path.exists():
        raise not_found(f"there is no file {path}")
    try:
        return _load_h5(path) if path.suffix == ".h5" else _load_zip(path)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {reason}") from error


def weight_paths(layers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the folder of each layer's weights, which Keras names by class and number; layers are (name, class)."""
    counts: dict[str, int] = {}
    folders = {}
    for name, kind in layers:
        snake = _snake(kind)
        number = counts.get(snake, -1) + 1
        counts[snake] = number
        folders[name] = f"{snake}_{number}" if number else snake
    return folders


def _snake(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _load_zip(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read(_CONFIG))
        metadata = json.loads(archive.read(_METADATA)) if _METADATA in archive.namelist() else {}
        data = archive.read(_WEIGHTS)
    with _h5py(path).File(io.BytesIO(data), "r") as file:
        weights = _weights(file)
    return KerasFile(config, weights, str(metadata.get("keras_version", "")), by_layer_name=False)


def _load_h5(path: Path) -> KerasFile:
    with _h5py(path).File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise failed_precondition(f"{path} holds weights without a model: save the whole model as .keras")
        config = json.loads(file.attrs["model_config"])
        weights = _in_layers_order(file["model_weights"], _weights(file["model_weights"]))
        return KerasFile(config, weights, str(file.attrs.get("keras_version", "")), by_layer_name=True)


def _h5py(path: Path) -> Any:
    try:
        import h5py  # type: ignore[import-untyped]  # it has no types
    except ImportError:
        raise failed_precondition(f"reading {path} needs h5py: pip install 'servable[forge]'") from None
    return h5py


def _weights(group: Any) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}

    def visit(name: str, item: Any) -> None:
        if not hasattr(item, "dtype") or _STATE_OF_CHANCE in name or name.startswith("optimizer"):
            return
        dtype, shape = str(item.dtype), tuple(int(size) for size in item.shape)
        if tensor_bytes(dtype, shape) is not None:
            found[name] = Parameter(name, dtype, shape, tensor_bytes(dtype, shape) or 0)

    group.visititems(visit)
    return dict(sorted(found.items(), key=lambda entry: _natural(entry[0])))


def _in_layers_order(group: Any, weights: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Return the weights as each layer lists its own: in HDF5 they stand by the alphabet."""
    ordered = {}
    for layer, inner in group.items():
        for name in inner.attrs.get("weight_names", ()):
            path = f"{layer}/{name.decode() if isinstance(name, bytes) else name}"
            if path in weights:
                ordered[path] = weights[path]
    return ordered


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that puts vars/2 before vars/10."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split("/")]
