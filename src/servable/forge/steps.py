"""What a step is, and the table of all steps. A step makes one artifact of another; its function runs in a worker."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from servable.core.errors import failed_precondition
from servable.core.progress import Progress, unheard
from servable.engines.base import Artifact
from servable.forge.arrays import Tensors
from servable.forge.verify import EXACT, Tolerance

Facts: TypeAlias = dict[str, Any]
"""What a step tells, as JSON. Keys with a meaning for the workshop:

* ``signatures``: the reference's signatures by name -> the new artifact's, where a format keeps no names;
* ``notes``: lines for people about what the new artifact cannot do or does otherwise.
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What a step's function is given beside the source: inputs to calibrate with, options, and a line to people."""

    samples: Sequence[Tensors] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    report: Progress = field(default=unheard, compare=False)


StepFunction: TypeAlias = Callable[[Artifact, Path, Task], Facts]
"""``(source, target, task) -> facts``: writes the files of a version into the empty folder ``target``.

Raises ``ServingError`` that names file, operation and a way on; whatever else it raises is told with its last line.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One way to make an artifact of another.

    ``reads`` and ``writes`` are kinds of artifact; ``function`` is "module:function", imported by the worker alone;
    ``needs`` are packages to import, by name, with what to install for them; ``calibrated`` says that it wants samples.
    ``reference``, for a source that no engine loads, is "module:function" that computes what the source answers:
    ``(source, batches, options) -> list of outputs``, in the worker.
    """

    name: str
    summary: str
    reads: frozenset[str]
    writes: str
    function: str
    tolerance: Tolerance = EXACT
    needs: Mapping[str, str] = field(default_factory=dict)
    calibrated: bool = False
    reference: str = ""


TABLES: Final = (
    "servable.forge.conversion.steps",
    "servable.forge.conversion.freeze_steps",
    "servable.forge.quantization.steps",
    "servable.forge.compression.steps",
)
"""Modules with a ``STEPS`` of their own: a tuple of ``Step``. They import no framework."""


def steps() -> dict[str, Step]:
    """Return all steps by name."""
    return {step.name: step for module in TABLES for step in importlib.import_module(module).STEPS}


def step_named(name: str) -> Step:
    """Return a step; FAILED_PRECONDITION names those that exist."""
    found = steps()
    if name not in found:
        raise failed_precondition(f"no step is called {name!r}; there are {', '.join(sorted(found))}")
    return found[name]


def check_step(step: Step, source: Artifact) -> None:
    """Refuse a source of another kind, and a machine that lacks a package, in one line that says what would do."""
    if source.kind not in step.reads:
        able = ", ".join(sorted(step.reads))
        raise failed_precondition(f"{step.name} does not read {source.kind} ({source.path}); it reads {able}")
    for package, install in step.needs.items():
        if importlib.util.find_spec(package) is None:
            raise failed_precondition(f"{step.name} needs {package}: pip install '{install}'")
