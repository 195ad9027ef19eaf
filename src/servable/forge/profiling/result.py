"""What a profile found: the parent's side of ``session``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.core.spans import Span
from servable.engines.base import Artifact
from servable.engines.plan import Choice
from servable.forge.profiling.operations import Profiled, is_operation, operations
from servable.forge.profiling.order import Order, Wanted
from servable.forge.profiling.resources import Gpu, Phase, Usage
from servable.forge.worker import run_apart


@dataclass(frozen=True, slots=True)
class Profile:
    """What was found. ``alone`` are the seconds of runs without a profiler, ``profiled`` with it.

    ``functions`` and ``lines`` are rows of Python's profilers; ``spans`` what the framework told, the calls among
    them. ``told`` is false if the framework cannot tell anything.
    """

    target: str
    how: str
    engine: str
    signature: str
    inputs: str
    rows: int
    shapes: Mapping[str, str]
    first_s: float
    alone: Sequence[float]
    profiled: Sequence[float]
    phases: Sequence[Phase]
    samples: Sequence[Usage]
    spans: Sequence[Span] = ()
    dropped: int = 0
    told: bool = False
    functions: Sequence[Mapping[str, Any]] = ()
    lines: Sequence[Mapping[str, Any]] = ()

    @property
    def operations(self) -> Profiled:
        """The operations by their time."""
        return operations(self.spans)

    @property
    def cost(self) -> float | None:
        """How many times longer a run takes with the profiler than without."""
        if not self.profiled or not self.alone:
            return None
        return statistics.median(self.profiled) / max(statistics.median(self.alone), 1e-9)

    @property
    def covered(self) -> float | None:
        """The share of the profiled runs' time that operations account for."""
        spent = sum(self.profiled)
        found = sum(span.seconds for span in self.spans if is_operation(span))
        return self.operations.seconds / spent if spent and found else None


def profile_model(
    target: str, artifact: Artifact, choice: Choice, wanted: Wanted, report: Progress = unheard
) -> Profile:
    """Profile an artifact in a process of its own; the engine's own profiler does not slow what serves."""
    with scratch() as folder:
        out = folder / "profile.json"
        order = Order(artifact, choice.engine, choice.precision, out, wanted)
        run_apart("servable.forge.profiling.session:profile", {"order": order.as_json()}, report)
        found = json.loads(out.read_text())
    return Profile(
        target=target,
        how=wanted.how,
        engine=f"{choice.engine} at {choice.precision}",
        signature=found["signature"],
        inputs=found["inputs"],
        rows=found["rows"],
        shapes=found["shapes"],
        first_s=found["first_s"],
        alone=[seconds for _, seconds in found["alone"]],
        profiled=[seconds for _, seconds in found["profiled"]],
        phases=[Phase(*one) for one in found["phases"]],
        samples=[
            Usage(at, cores, rss, threads, Gpu(*gpu) if gpu else None)
            for at, cores, rss, threads, gpu in found["samples"]
        ],
        spans=[Span(*one) for one in found.get("spans", ())],
        dropped=found.get("dropped", 0),
        told=found.get("begun", False),
        functions=found.get("functions", ()),
        lines=found.get("lines", ()),
    )
