"""What is to be served: models, where their versions lie, which of them are wanted, and how they are loaded."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from servable.core.errors import Code, ServingError, invalid_argument, not_found
from servable.engines.base import EngineOptions
from servable.engines.plan import artifact_of_file
from servable.lifecycle.layout import file_error, list_versions, misnamed_version, parse_version

log = logging.getLogger("servable.lifecycle")


@dataclass(frozen=True, slots=True)
class Latest:
    """The ``count`` highest versions; less than 1 means 1."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Every version there is."""


@dataclass(frozen=True, slots=True)
class Specific:
    """Those of the named versions that exist."""

    versions: tuple[int, ...]


Policy: TypeAlias = Latest | All | Specific


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model. ``base_path`` holds directories named by version numbers.

    ``labels`` are names for versions. ``fixed_versions`` replaces the scan of ``base_path``: for a bare version
    directory or one artifact file.
    """

    name: str
    base_path: Path
    policy: Policy = Latest()
    engine: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    labels: Mapping[str, int] = field(default_factory=dict)
    fixed_versions: Mapping[int, Path] | None = None

    def with_engine(self, engine: str) -> ModelConfig:
        """Return the same model, run by that engine."""
        return replace(self, engine=engine)


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """One version that is wished for, and all that is needed to load it.

    ``files`` stands for the names, sizes and times of its files when it was taken. ``doubt`` says why they never
    proved complete: it gets one attempt. ``refusal`` ends it without any. These two do not belong to its identity.
    ``uses`` are the models that it calls.
    """

    name: str
    version: int
    path: Path
    engine: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    files: int = 0
    doubt: str = field(default="", compare=False)
    refusal: ServingError | None = field(default=None, compare=False)
    uses: tuple[str, ...] = ()


Wish: TypeAlias = Mapping[str, Mapping[int, VersionSpec]]
"""The whole wish: for each model the versions that should be available. What it leaves out is to be unloaded."""


class Transition(Enum):
    """How a version gives way to another: the new one is loaded before the old one goes, or after."""

    AVAILABILITY_PRESERVING = "availability_preserving"
    RESOURCE_PRESERVING = "resource_preserving"


@dataclass(frozen=True, slots=True)
class ManagerOptions:
    """``poll_s`` 0 scans once, negative never. ``load_retry_interval_s`` below 0 is no pause.

    ``load_threads`` 0 loads one version at a time once the server has started, and one for each CPU until then.
    ``scan_timeout_s`` is when a scan that does not answer is reported. ``drain_timeout_s`` bounds ``Manager.stop``.
    """

    poll_s: float = 1.0
    scan_timeout_s: float = 30.0
    max_load_retries: int = 5
    load_retry_interval_s: float = 60.0
    load_threads: int = 0
    unload_threads: int = 1
    transition: Transition = Transition.AVAILABILITY_PRESERVING
    drain_timeout_s: float = 30.0
    labels_before_versions: bool = False
    """Whether a new label may name a version that is not available, as with TensorFlow Serving's flag for that."""


def select(policy: Policy, versions: Mapping[int, Path], good: Callable[[int], bool]) -> list[int]:
    """Return the versions that a policy asks for, highest first.

    ``Latest`` counts only those that are ``good``: what is incomplete or failed does not displace what works.
    ``good`` is asked in that order, and not asked again once enough were found.
    """
    if isinstance(policy, Specific):
        return sorted(set(policy.versions) & versions.keys(), reverse=True)
    highest_first = sorted(versions, reverse=True)
    if isinstance(policy, All):
        return highest_first
    chosen: list[int] = []
    missing = max(1, policy.count)
    for version in highest_first:
        chosen.append(version)
        missing -= good(version)
        if missing == 0:
            break
    return chosen


def resolve_path(path: Path, name: str | None = None) -> list[ModelConfig]:
    """Return the models that ``PATH`` on a command line stands for.

    A model directory (integer version directories), a root of many of those, a bare version or SavedModel directory
    (its version is its number, else 1), or one artifact file. Names default to the directory's, or to the file's
    without its suffix. A path that is itself a model may run Python; those found in a root may not. NOT_FOUND or
    INVALID_ARGUMENT says what is there instead.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # keeps links, which may be how versions are switched
    if not path.exists():
        raise not_found(f"{path} does not exist")
    if path.is_file():
        return [_named(_from_file(path, name))]
    found = _from_directory(path, name)
    if found is not None:
        return [_named(found)]
    models = [model for child in _folders(path) if (model := _child(child)) is not None]
    if not models:
        raise not_found(
            f"{path} holds no model: expected version directories named by integers, such as {path / '1'}, "
            f"directories of those, or an artifact such as saved_model.pb or model.onnx{misnamed_version(path)}"
        )
    if name is not None:
        names = ", ".join(model.name for model in models)
        raise invalid_argument(f"{path} is a root of many models ({names}), which cannot all be called {name!r}")
    return models


def _named(config: ModelConfig) -> ModelConfig:
    return replace(config, options=replace(config.options, allow_python=True))


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(child for child in path.iterdir() if child.is_dir())
    except OSError as error:
        raise file_error(error, path) from None


def _child(path: Path) -> ModelConfig | None:
    """Return the model in a folder of a root. One that cannot be served does not stop its neighbours."""
    try:
        return _from_directory(path, None)
    except ServingError as error:
        log.warning("%s is passed over: %s", path, error.message)
        return None


def _from_directory(path: Path, name: str | None) -> ModelConfig | None:
    """Return the model that a directory is, or ``None`` if it is none: a model directory, or one version."""
    if list_versions(path).versions:
        return ModelConfig(name or path.name, path)
    try:
        artifact_of_file(path)
    except ServingError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise
    number = parse_version(path.name)
    if number is None:
        return _fixed(name or path.name, 1, path)
    return _fixed(name or path.parent.name, number, path)


def _from_file(path: Path, name: str | None) -> ModelConfig:
    artifact = artifact_of_file(path)
    if artifact.path.is_dir():
        return resolve_path(artifact.path, name)[0]
    return _fixed(name or path.stem, 1, artifact.path)


def _fixed(name: str, version: int, path: Path) -> ModelConfig:
    return ModelConfig(name, path.parent, fixed_versions={version: path})
