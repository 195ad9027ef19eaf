"""Two measurements of one kind, load by load: what changed, whether by more than noise, and by more than allowed.

Results are compared step by step, comparisons row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from servable.core.errors import failed_precondition
from servable.lab.comparison import Comparison, Row
from servable.lab.page import STEAL_SHARE
from servable.lab.result import Result, Step
from servable.lab.statistics import Estimate, geometric_mean
from servable.lab.thresholds import METRICS, NO_NEW_WRONG_ANSWERS, SHOWN, Metric, Threshold

Measured: TypeAlias = Result | Comparison


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one load, before and after. ``noise`` says whether the intervals of both overlap."""

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


@dataclass(frozen=True, slots=True)
class _Load:
    """What is known of one load: right answers, a metric's value, and its interval if it has one."""

    ok: int
    value: Callable[[Metric], float | None]
    interval: Callable[[Metric], Estimate | None]


def compare(
    old: Measured, new: Measured, thresholds: Sequence[Threshold], *, allow_conflicts: bool = False
) -> Difference:
    """Compare two results, or two comparisons.

    FAILED_PRECONDITION if they are of different things and ``allow_conflicts`` is not set, if they share no load, or
    if a threshold cannot be judged because a file lacks the number.
    """
    if isinstance(old, Comparison) and isinstance(new, Comparison):
        olds, news = ({_name(row): _of_row(row) for row in one.rows if row.blocks} for one in (old, new))
        conflicts, remarks = tuple(_different(old, new, _SAME_COMPARED)), tuple(_compared_remarks(old, new))
    elif isinstance(old, Result) and isinstance(new, Result):
        olds, news = ({step.label: _of_step(step) for step in one.steps} for one in (old, new))
        conflicts, remarks = tuple(_different(old, new, _SAME)), tuple(_remarks(old, new))
    else:
        raise failed_precondition("one of these files is a result, the other a comparison of several servers")
    if conflicts and not allow_conflicts:
        raise failed_precondition("these results do not compare: " + "; ".join(conflicts))
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
    return Difference(changes, conflicts, (*remarks, *_missing(olds, news)))


def _of_step(step: Step) -> _Load:
    return _Load(step.ok, lambda metric: metric.read(step), lambda metric: _by_second(metric, step))


def _of_row(row: Row) -> _Load:
    def value(metric: Metric) -> float | None:
        found = metric.of_row(row)
        return None if found is None else found.value

    return _Load(sum(block.ok for block in row.blocks), value, lambda metric: metric.of_row(row))


def _name(row: Row) -> str:
    return f"{row.contestant}, {row.protocol}, {row.concurrency} in flight"


def _changes(label: str, old: _Load, new: _Load, thresholds: Sequence[Threshold]) -> Iterator[Change]:
    asked = {threshold.metric.name for threshold in thresholds}
    for metric in METRICS.values():
        if metric.name not in asked and metric.name not in SHOWN:
            continue
        before, after = old.value(metric), new.value(metric)
        beyond = tuple(
            threshold
            for threshold in thresholds
            if threshold.metric is metric and _judge(threshold, label, before, after, new)
        )
        if before is not None or after is not None:
            yield Change(label, metric, before, after, _noise(old.interval(metric), new.interval(metric)), beyond)


def _judge(threshold: Threshold, label: str, old: float | None, new: float | None, load: _Load) -> bool:
    if new is None and not load.ok:
        # No right answer at all is not a missing number, it is the worst one.
        return True
    if new is None or (old is None and threshold.change):
        which = "new" if new is None else "old"
        raise failed_precondition(
            f"{threshold.text} cannot be judged: the {which} result has no such number for {label}"
        )
    return threshold.exceeded(old or 0.0, new)


def _by_second(metric: Metric, step: Step) -> Estimate | None:
    """Return the mean of a metric's seconds with its interval; ``None`` where seconds do not tell."""
    if metric.by_second is None:
        return None
    # The last second is seldom a whole one.
    values = [value for second in step.seconds[:-1] if (value := metric.by_second(second))]
    return geometric_mean(values) if len(values) >= 3 else None


def _noise(before: Estimate | None, after: Estimate | None) -> bool | None:
    """Say whether two intervals overlap; ``None`` where there are none."""
    if before is None or after is None:
        return None
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    return before.low <= after.high and after.low <= before.high


_MACHINE = ("cpu", "cores", "cpu_quota")
_SAME: Mapping[str, Sequence[str]] = {
    "target": ("wire", "model", "signature"),
    "scenario": ("name", "arrivals", "duration_s", "count", "processes", "connections", "samples", "data"),
    "machine": _MACHINE,
}
_SAME_COMPARED: Mapping[str, Sequence[str]] = {
    "": ("model",),
    "conditions": ("block_s", "threads", "batch_rows", "batch_wait_ms", "samples", "fresh"),
    "machine": _MACHINE,
}
"""What must be alike, or numbers of two runs mean different things."""


def _different(old: Any, new: Any, same: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for place, fields in same.items():
        for field in fields:
            before, after = (getattr(getattr(one, place) if place else one, field) for one in (old, new))
            if before != after:
                yield f"{place}.{field} was {_told(before)}, is {_told(after)}".removeprefix(".")


def _remarks(old: Result, new: Result) -> Iterator[str]:
    yield from _versions(old.versions, new.versions)
    if old.target.version != new.target.version:
        yield f"the model's version was {_told(old.target.version)}, is now {_told(new.target.version)}"
    yield from _different(old, new, _REMARKED)
    for name, result in (("old", old), ("new", new)):
        for step in result.steps:
            if step.client.bottleneck:
                yield f"{name} result, {step.label}: the client was the bottleneck"
            if step.cpu_steal_share is not None and step.cpu_steal_share > STEAL_SHARE:
                yield f"{name} result, {step.label}: {step.cpu_steal_share:.1%} CPU steal"


def _compared_remarks(old: Comparison, new: Comparison) -> Iterator[str]:
    for who in sorted(old.versions.keys() & new.versions.keys()):
        for remark in _versions(old.versions[who], new.versions[who]):
            yield f"{who}: {remark}"
    yield from _different(old, new, _REMARKED)
    for name, comparison in (("old", old), ("new", new)):
        for row in comparison.rows:
            if any(block.client_bottleneck for block in row.blocks):
                yield f"{name} comparison, {_name(row)}: the client was the bottleneck"
            steal = max((block.cpu_steal_share or 0.0 for block in row.blocks), default=0.0)
            if steal > STEAL_SHARE:
                yield f"{name} comparison, {_name(row)}: up to {steal:.1%} CPU steal"


_REMARKED: Mapping[str, Sequence[str]] = {"machine": ("system", "host", "memory_bytes")}


def _versions(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name} was {_told(old.get(name))}, is now {_told(new.get(name))}"


def _missing(olds: Mapping[str, _Load], news: Mapping[str, _Load]) -> Iterator[str]:
    for name, missing in (("old", [x for x in olds if x not in news]), ("new", [x for x in news if x not in olds])):
        if missing:
            yield f"only in the {name} result: {', '.join(missing)}"


def _told(value: object) -> str:
    return "nothing" if value is None or value == "" else repr(value) if isinstance(value, str) else str(value)
