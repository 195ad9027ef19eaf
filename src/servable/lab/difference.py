"""Two results of one scenario, step by step: what changed, whether by more than noise, and by more than allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from servable.core.errors import failed_precondition
from servable.lab.page import STEAL_SHARE
from servable.lab.result import Result, Step
from servable.lab.statistics import geometric_mean
from servable.lab.thresholds import METRICS, NO_NEW_WRONG_ANSWERS, SHOWN, Metric, Threshold


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one step, before and after. ``noise`` says whether the seconds of both runs overlap."""

    step: str
    metric: Metric
    old: float | None
    new: float | None
    noise: bool | None = None
    exceeded: tuple[Threshold, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Return new over old."""
        return self.new / self.old if self.old and self.new is not None else None


@dataclass(frozen=True, slots=True)
class Difference:
    """All changes, and what else differs: ``conflicts`` forbid a comparison, ``remarks`` are to be known."""

    changes: tuple[Change, ...]
    conflicts: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def exceeded(self) -> tuple[Change, ...]:
        """Return the changes beyond a threshold."""
        return tuple(change for change in self.changes if change.exceeded)


def compare(old: Result, new: Result, thresholds: Sequence[Threshold], *, allow_conflicts: bool = False) -> Difference:
    """Compare two results.

    FAILED_PRECONDITION if they are of different things and ``allow_conflicts`` is not set, if they share no step, or
    if a threshold cannot be judged because a result lacks the number.
    """
    conflicts = tuple(_conflicts(old, new))
    if conflicts and not allow_conflicts:
        raise failed_precondition("these results do not compare: " + "; ".join(conflicts))
    olds, news = ({step.label: step for step in result.steps} for result in (old, new))
    shared = [label for label in olds if label in news]
    if not shared:
        known = ", ".join(olds) or "none"
        raise failed_precondition(
            f"no step is in both: the old result has {known}; the new, {', '.join(news) or 'none'}"
        )
    changes = tuple(
        change
        for label in shared
        for change in _changes(label, olds[label], news[label], (NO_NEW_WRONG_ANSWERS, *thresholds))
    )
    return Difference(changes, conflicts, tuple(_remarks(old, new)))


def _changes(label: str, old: Step, new: Step, thresholds: Sequence[Threshold]) -> Iterator[Change]:
    asked = {threshold.metric.name for threshold in thresholds}
    for metric in METRICS.values():
        if metric.name not in asked and metric.name not in SHOWN:
            continue
        before, after = metric.read(old), metric.read(new)
        beyond = tuple(
            threshold
            for threshold in thresholds
            if threshold.metric is metric and _judge(threshold, label, before, after, new)
        )
        if before is not None or after is not None:
            yield Change(label, metric, before, after, _noise(metric, old, new), beyond)


def _judge(threshold: Threshold, label: str, old: float | None, new: float | None, step: Step) -> bool:
    if new is None and not step.ok:
        # No right answer at all is not a missing number, it is the worst one.
        return True
    if new is None or (old is None and threshold.change):
        which = "new" if new is None else "old"
        raise failed_precondition(
            f"{threshold.text} cannot be judged: the {which} result has no such number for {label}"
        )
    return threshold.exceeded(old or 0.0, new)


def _noise(metric: Metric, old: Step, new: Step) -> bool | None:
    """Say whether the intervals of the seconds' means overlap; ``None`` where seconds do not tell."""
    if metric.by_second is None:
        return None
    bounds = []
    for step in (old, new):
        # The last second is seldom a whole one.
        values = [value for second in step.seconds[:-1] if (value := metric.by_second(second))]
        if len(values) < 3:
            return None
        bounds.append(geometric_mean(values))
    before, after = bounds
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    return before.low <= after.high and after.low <= before.high


def _conflicts(old: Result, new: Result) -> Iterator[str]:
    """Yield what makes numbers of two runs incomparable."""
    for place, fields in (
        ("target", ("wire", "model", "signature")),
        ("scenario", ("name", "arrivals", "duration_s", "count", "processes", "connections", "samples", "data")),
        ("machine", ("cpu", "cores", "cpu_quota")),
    ):
        for field in fields:
            before, after = getattr(getattr(old, place), field), getattr(getattr(new, place), field)
            if before != after:
                yield f"{place}.{field} was {_told(before)}, is {_told(after)}"


def _remarks(old: Result, new: Result) -> Iterator[str]:
    for name in sorted(old.versions.keys() | new.versions.keys()):
        before, after = old.versions.get(name), new.versions.get(name)
        if before != after:
            yield f"{name} was {_told(before)}, is now {_told(after)}"
    if old.target.version != new.target.version:
        yield f"the model's version was {_told(old.target.version)}, is now {_told(new.target.version)}"
    for field in ("system", "host", "memory_bytes"):
        before, after = getattr(old.machine, field), getattr(new.machine, field)
        if before != after:
            yield f"machine.{field} was {_told(before)}, is now {_told(after)}"
    olds, news = [step.label for step in old.steps], [step.label for step in new.steps]
    for name, missing in (("old", [x for x in olds if x not in news]), ("new", [x for x in news if x not in olds])):
        if missing:
            yield f"only in the {name} result: {', '.join(missing)}"
    for name, result in (("old", old), ("new", new)):
        for step in result.steps:
            if step.client.bottleneck:
                yield f"{name} result, {step.label}: the client was the bottleneck"
            if step.cpu_steal_share is not None and step.cpu_steal_share > STEAL_SHARE:
                yield f"{name} result, {step.label}: {step.cpu_steal_share:.1%} CPU steal"


def _told(value: object) -> str:
    return "nothing" if value is None or value == "" else repr(value) if isinstance(value, str) else str(value)
