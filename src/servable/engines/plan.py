"""Which engine runs an artifact, how many threads it gets, and why: pure decisions, and the one way to load."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from servable.core.errors import Code, ServingError, failed_precondition
from servable.engines.artifact import artifact_of_file, find_artifact
from servable.engines.base import CHILD, ENGINES, Artifact, EngineOptions, Model, engine_class

__all__ = ["Choice", "artifact_of_file", "choose", "complete", "cpu_threads", "find_artifact", "load"]

EXTRAS = {"tensorflow": "servable[tensorflow]"}
"""Engine -> what to install to have it. Those not named here come with the plain install."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine for one artifact. ``reason`` is for people; ``isolated`` means in a child process."""

    engine: str
    precision: str
    isolated: bool
    reason: str


def choose(artifact: Artifact, engine: str | None = None, precision: str = "f32") -> Choice:
    """Return the engine for an artifact: the one asked for, else the most exact one that is installed.

    FAILED_PRECONDITION if the one asked for does not exist, is not installed, or does not read such an artifact.
    """
    choice = _choose_engine(artifact, engine, precision)
    if artifact.transform is None:
        return choice
    reason = f"{choice.reason}; in a child process with {artifact.transform.name}"
    return dataclasses.replace(choice, isolated=True, reason=reason)


def complete(choice: Choice, artifact: Artifact) -> str | None:
    """Return what the artifact's files lack by their format's own word, or ``None`` if nothing."""
    lacking = engine_class(choice.engine).complete(artifact)
    if lacking is None and artifact.transform is not None:
        from servable.engines.python_code import incomplete

        return incomplete(artifact.transform)
    return lacking


def _choose_engine(artifact: Artifact, engine: str | None, precision: str) -> Choice:
    if engine is not None:
        return _asked_for(artifact, engine, precision)
    if artifact.kind == "saved_model":
        if engine_class("tensorflow").installed():
            return _choice("tensorflow", precision, "tensorflow is installed: exact semantics")
        reason = "tensorflow is not installed: openvino, where it can hold every signature exactly"
        return _choice("openvino", precision, reason)
    if artifact.kind == "onnx":
        return _choice("onnxruntime", precision, "the reference runtime for ONNX")
    if artifact.kind == "openvino":
        return _choice("openvino", precision, "an OpenVINO model runs in OpenVINO only")
    if artifact.kind == "python":
        return _choice("python", precision, "a Python model runs as it is written")
    raise failed_precondition(f"no engine reads {artifact.kind!r} ({artifact.path})")


def load(choice: Choice, artifact: Artifact, options: EngineOptions) -> Model:
    """Load the artifact with the engine that was chosen, at the precision that was chosen. Slow.

    PERMISSION_DENIED if that would run Python that the options do not allow.
    """
    if artifact.code is not None and not options.allow_python:
        raise ServingError(
            Code.PERMISSION_DENIED,
            f"{artifact.code} is Python, which runs only where the command line names the model's own path; "
            f"name it there, or allow all models of this server to run Python: --allow_python",
        )
    options = dataclasses.replace(options, precision=choice.precision)
    if choice.isolated:
        module_name, _, function_name = CHILD.partition(":")
        load_in_child = getattr(importlib.import_module(module_name), function_name)
        return cast("Model", load_in_child(choice.engine, artifact, options))
    return engine_class(choice.engine)().load(artifact, options)


def cpu_threads(memberships: Path = Path("/proc/self/cgroup"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many threads can compute at once here: CPUs this process may use, cut by its cgroups' CPU quota.

    A fraction of a CPU is left to the threads that feed the engine; there is always one.
    """
    cpus = len(os.sched_getaffinity(0))
    quota = _cpu_quota(memberships, cgroups)
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def _asked_for(artifact: Artifact, engine: str, precision: str) -> Choice:
    found = engine_class(engine)
    if artifact.kind not in found.kinds:
        able = " or ".join(name for name in ENGINES if artifact.kind in engine_class(name).kinds)
        raise failed_precondition(f"{engine} does not read {artifact.kind} artifacts ({artifact.path}); try {able}")
    if not found.installed():
        raise failed_precondition(
            f"the engine {engine} is not installed here: pip install '{EXTRAS.get(engine, 'servable')}'"
        )
    return _choice(engine, precision, "asked for by name")


def _choice(engine: str, precision: str, reason: str) -> Choice:
    return Choice(engine, precision, engine_class(engine).isolated, reason)


def _cpu_quota(memberships: Path, cgroups: Path) -> float | None:
    """Return the smallest quota, in CPUs, of this process's cgroup and those around it."""
    try:
        lines = memberships.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += _quotas_on_path(cgroups, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas_on_path(cgroups / "cpu", path, _quota_v1)
    return min(quotas, default=None)


def _quotas_on_path(root: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    # Inside a container the path may be the host's, which is not mounted here: then only the root's own files count.
    inside = PurePosixPath(path.lstrip("/"))
    groups = [root / parent for parent in (inside, *inside.parents)]
    found = [read(group) for group in groups if group.is_dir()]
    return [quota for quota in found if quota is not None]


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
