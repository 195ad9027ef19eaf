"""What ``inspect`` and ``predict`` work on: an artifact on disk, or a model on a running server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from servable.core.errors import failed_precondition, invalid_argument
from servable.engines.base import AUTO_PLAN, Artifact, EngineOptions, Model
from servable.engines.plan import Choice, artifact_of_file, choose, load
from servable.lifecycle.config import resolve_path
from servable.lifecycle.layout import list_versions

TARGET_HELP = (
    "PATH of an artifact or model directory, or URL of a served model: grpc(s)://HOST:PORT/MODEL, http(s)://..."
)


@dataclass(frozen=True, slots=True)
class Served:
    """A model on a server."""

    url: str
    model: str


def parse_target(text: str) -> Served | Path:
    """Tell a URL from a path."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    # A socket's path has slashes of its own.
    place, slash, model = rest.rpartition("/") if rest.startswith("unix:") else rest.partition("/")
    if not slash or not model:
        raise invalid_argument(f"{text!r} names no model: expected {scheme}://HOST:PORT/MODEL")
    return Served(f"{scheme}://{place}", model)


def find_version(path: Path, version: int | None) -> Artifact:
    """Return the artifact at a path: the version asked for, else the newest."""
    configs = resolve_path(path)
    if len(configs) > 1:
        raise failed_precondition(f"{path} holds several models: {', '.join(config.name for config in configs)}")
    (config,) = configs
    versions = config.fixed_versions or list_versions(config.base_path).versions
    chosen = max(versions) if version is None else version
    if chosen not in versions:
        raise invalid_argument(f"{path} has no version {chosen}; there are {', '.join(map(str, sorted(versions)))}")
    artifact = artifact_of_file(versions[chosen])
    if artifact.code is not None and not config.options.allow_python:
        raise failed_precondition(
            f"{artifact.code} {artifact.code_is}, which runs only from a path that is named: give its own"
        )
    return artifact


def load_here(artifact: Artifact, engine: str | None) -> tuple[Model, Choice]:
    """Load an artifact in this process, as the server would: by its plan, too, if the cache has one."""
    options = EngineOptions(allow_python=True, plan=AUTO_PLAN)
    choice = choose(artifact, engine, options=options)
    return load(choice, artifact, options), choice
