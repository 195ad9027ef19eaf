"""The plan that ``servable tune`` writes: by size of batch, which engine runs a model how, and for what it holds.

A file of JSON. Its key says for which contents, processor and libraries it was measured; where one of these is another,
the figures mean nothing and the plan is refused.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import tempfile
from pathlib import Path

import msgspec

from servable.core.errors import Code, ServingError, failed_precondition, not_found
from servable.engines.base import ENGINES
from servable.engines.machine import cpu_model, cpus
from servable.engines.plan_cache import plan_files

log = logging.getLogger("servable.engines")

SCHEMA = "servable.plan/1"
"""The number changes when a field changes its meaning."""
DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "litert": ("ai-edge-litert",),
    "torch": ("torch",),
}
"""Engine -> the distributions that may bring its framework."""
KINDS = frozenset({"saved_model", "onnx", "openvino", "tflite", "torchscript", "graph_def"})
"""What a form may be: nothing that brings code."""


class Form(msgspec.Struct, frozen=True, omit_defaults=True):
    """An artifact that a plan runs. Without a ``path`` it is the model's own; ``made`` says how it came to be."""

    kind: str
    path: str = ""
    fingerprint: str = ""
    made: str = ""


class Setting(msgspec.Struct, frozen=True):
    """How an artifact is run. No engine: the one that would serve it. Threads and streams: 0 is the engine's choice."""

    engine: str = ""
    precision: str = "f32"
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    streams: int = 0

    def __str__(self) -> str:
        """Return it for people, without what is left to the engine."""
        words = [self.engine or "default engine", self.precision]
        if self.intra_op_threads:
            words.append(_counted(self.intra_op_threads, "thread"))
        if self.inter_op_threads:
            words.append(f"{_counted(self.inter_op_threads, 'operation')} at once")
        if self.streams:
            words.append(_counted(self.streams, "stream"))
        return ", ".join(words)


class Figure(msgspec.Struct, frozen=True):
    """What was measured at one size of batch. ``gain`` is how many times as fast as the default; with its interval."""

    rows: int
    seconds: float
    rows_per_s: float
    gain: float
    low: float | None = None
    high: float | None = None


class Range(msgspec.Struct, frozen=True):
    """Batches up to ``rows`` rows (``None``: all larger ones) run so. ``form`` counts in ``Plan.forms``.

    ``precision`` is that of the form, if it is not f32, else that of the setting. ``difference`` is the
    largest from the reference, over its largest value.
    """

    rows: int | None
    form: int
    precision: str
    setting: Setting
    figures: tuple[Figure, ...]
    difference: float
    tolerance: str

    def describe(self) -> str:
        """Return the setting for people, with the precision of what is computed."""
        return str(msgspec.structs.replace(self.setting, precision=self.precision))


class Key(msgspec.Struct, frozen=True):
    """For what a plan holds. ``files`` are names and lengths, by which most others are told apart without reading."""

    fingerprint: str
    files: tuple[tuple[str, int], ...]
    cpu: str
    cpus: int
    quota: float | None
    libraries: dict[str, str]


class Plan(msgspec.Struct, frozen=True):
    """A whole plan. ``model`` is where it was tuned; ``default`` what would run without it.

    It is for those ``signatures`` whose answers were compared; the default engine answers any other.
    """

    schema: str
    model: str
    tuned: str
    objective: str
    precisions: tuple[str, ...]
    signatures: tuple[str, ...]
    key: Key
    forms: tuple[Form, ...]
    default: Setting
    ranges: tuple[Range, ...]

    def reason(self) -> str:
        """Say for people what it gains, where, and when that was measured."""
        if all(not self.forms[part.form].path and part.setting == self.default for part in self.ranges):
            return f"plan: nothing is faster than the default, measured on {self.tuned}"
        best = max((figure for part in self.ranges for figure in part.figures), key=lambda figure: figure.gain)
        said = f"plan: {best.gain:.2g}x the default ({self.default.engine}) at batch {best.rows}"
        lower = sorted({part.precision for part in self.ranges} - {"f32"})
        loud = ""
        if lower:
            worst = max(part.difference for part in self.ranges if part.precision in lower)
            loud = f"; REDUCED PRECISION {', '.join(lower)}, as allowed: up to {worst:.2g} off"
        return f"{said}, measured on {self.tuned}{loud}"


def read_plan(path: Path) -> Plan:
    """Return the plan in a file; NOT_FOUND, or FAILED_PRECONDITION that says what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise not_found(f"cannot read the plan {path}: {error.strerror}") from None
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise failed_precondition(f"{path} is no plan of servable tune: {error}") from None
    if (wrong := _nonsense(plan)) is not None:
        raise failed_precondition(f"{path}: {wrong}")
    return plan


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan; it appears whole or not at all."""
    data = msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ServingError(Code.FAILED_PRECONDITION, f"cannot write the plan {path}: {error.strerror}") from None


def present_plans() -> list[tuple[Path, Plan]]:
    """Return the plans of the cache, the newest first; files that are none are passed over."""
    found = []
    for path in plan_files():
        try:
            found.append((path, read_plan(path)))
        except ServingError as error:
            log.warning("a plan is passed over: %s", error.message)
    return sorted(found, key=lambda pair: pair[1].tuned, reverse=True)


def machine_key(fingerprint: str, files: tuple[tuple[str, int], ...], engines: set[str]) -> Key:
    """Return the key of this machine, with the versions of what these engines run on."""
    found = cpus()
    versions = {name: version for name in sorted(engines) if (version := framework_version(name))}
    return Key(fingerprint, files, cpu_model(), len(found.usable), found.quota, versions)


def misfit(wanted: Key, here: Key) -> str | None:
    """Return why a plan with the one key does not hold where the other is true, or ``None`` if it does."""
    if wanted.fingerprint != here.fingerprint:
        return "it was tuned for other contents of the artifact"
    if wanted.cpu != here.cpu:
        return f"it was tuned on {wanted.cpu}, and this is {here.cpu}"
    if (wanted.cpus, wanted.quota) != (here.cpus, here.quota):
        return f"it was tuned with {_share(wanted)}, and there are {_share(here)} here"
    for name, version in wanted.libraries.items():
        found = here.libraries.get(name)
        if found != version:
            return f"it was tuned with {name} {version}, and {found or 'none'} is installed"
    return None


def framework_version(engine: str) -> str | None:
    """Return the version of what an engine runs on, without importing it; ``None`` if it is not installed."""
    for name in DISTRIBUTIONS.get(engine, ()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _share(key: Key) -> str:
    quota = "" if key.quota is None else f" and a quota of {key.quota:g}"
    return _counted(key.cpus, "CPU") + quota


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _nonsense(plan: Plan) -> str | None:
    """Return what in a plan cannot be followed."""
    if plan.schema != SCHEMA:
        return f"it is a {plan.schema!r}; this version reads {SCHEMA}"
    if not plan.ranges or plan.ranges[-1].rows is not None or not plan.forms:
        return "its ranges do not reach to all sizes of batch"
    ends = [part.rows for part in plan.ranges[:-1]]
    if any(end is None or end < 1 for end in ends) or ends != sorted(set(ends), key=lambda end: end or 0):
        return "its ranges do not follow each other"
    for part in plan.ranges:
        setting = part.setting
        if not 0 <= part.form < len(plan.forms):
            return f"it names form {part.form} of {len(plan.forms)}"
        if plan.forms[part.form].kind not in KINDS:
            return f"a form cannot be of kind {plan.forms[part.form].kind!r}"
        if setting.engine not in ENGINES:
            return f"there is no engine {setting.engine!r}"
        if part.precision not in plan.precisions or setting.precision not in {"f32", part.precision}:
            return f"it uses {part.precision} and {setting.precision}, and was tuned for {', '.join(plan.precisions)}"
        if not part.figures:
            return "a range has no figures"
        if min(setting.intra_op_threads, setting.inter_op_threads, setting.streams) < 0:
            return "a number of threads is negative"
    return None
