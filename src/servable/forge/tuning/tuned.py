"""What a tuning is asked, and what it found. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from servable.core.signatures import Signature
from servable.engines.base import Artifact
from servable.forge.measure import BATCHES, Measured
from servable.forge.samples import Samples
from servable.forge.tuning.choice import Objective
from servable.forge.tuning.trials import Form, Trial
from servable.forge.verify import Verdict
from servable.lab.statistics import Estimate


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What to tune for, and what may be tried. No ``engines``: all. ``budget_s`` does not count what makes forms.

    ``max_difference`` bounds what reduced precision may cost, over the largest value of the reference.
    """

    objective: Objective = field(default_factory=Objective)
    precisions: tuple[str, ...] = ("f32",)
    batches: tuple[int, ...] = BATCHES
    budget_s: float = 120.0
    engines: tuple[str, ...] = ()
    max_difference: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one trial. ``reason`` says why it is out; ``gains`` are over the default, by rows, of finalists.

    ``confirmed``: it won, and these are the times of a second measurement in processes of its own.
    """

    trial: Trial
    measured: Measured
    verdict: Verdict | None = None
    gains: dict[int, Estimate] = field(default_factory=dict)
    reason: str = ""
    confirmed: bool = False

    @property
    def ok(self) -> bool:
        """Return whether it may be used."""
        return not self.reason

    def seconds(self, rows: int, objective: Objective) -> float:
        """Return what a batch of so many rows takes: typically, or at the 99th percentile if that is the objective."""
        found = self.measured.at(rows)
        if found is None:
            return math.inf
        if objective.limit_s is not None:
            return found.quantile_s(0.99)
        estimate = found.estimate_s()
        return estimate.value if estimate is not None else found.median_s


@dataclass(frozen=True, slots=True)
class Tuned:
    """All that was found. ``results[0]`` is the default; ``covered`` are the signatures whose answers were compared.

    ``occupied`` is the share of the processors that others used when it began; ``None`` is unknown.
    """

    artifact: Artifact
    options: TuneOptions
    signature: Signature
    samples: Samples
    forms: tuple[Form, ...]
    results: tuple[Result, ...]
    seconds: float
    covered: tuple[str, ...]
    notes: tuple[str, ...] = ()
    occupied: float | None = None
