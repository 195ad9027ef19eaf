"""Metrics of a load by name, and how far each may get worse: ``p99=+10%``, ``rate=-5%``, ``p99=50ms``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from servable.core.errors import invalid_argument
from servable.lab.comparison import Block, Row
from servable.lab.result import Second, Step
from servable.lab.statistics import Estimate
from servable.report.units import BYTES, PER_SECOND, RATIO, SECONDS, SHARE, Unit


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a step of a result, or of a row of a comparison; ``worse`` is +1 if more is worse.

    ``read`` and ``of_row`` give ``None`` where nobody tells it. What comes with an interval, or by the second, can be
    told from noise.
    """

    name: str
    unit: Unit
    worse: int
    read: Callable[[Step], float | None]
    by_second: Callable[[Second], float | None] | None = None
    of_row: Callable[[Row], Estimate | None] = lambda _row: None


def _latency(name: str, field: str, share: float, *, told: bool = False) -> Metric:
    """Return the metric of a latency; ``told`` is one that seconds and rows of comparisons have, too."""

    def read(step: Step) -> float | None:
        # Fewer than one answer above a percentile: it is not known.
        known = step.latency.count * (1 - share) >= 1
        return float(getattr(step.latency, field)) / 1e3 if known else None

    if not told:
        return Metric(name, SECONDS, 1, read)
    return Metric(
        name, SECONDS, 1, read, lambda second: getattr(second, field), lambda row: _scaled(getattr(row, field), 1e-3)
    )


def _share(name: str) -> Metric:
    """Return the metric of a count that every step and every block has, over all that ended."""

    def of(counted: Sequence[Step | Block]) -> float | None:
        total = sum(one.ok + one.errors + one.wrong for one in counted)
        return sum(getattr(one, name) for one in counted) / total if total else None

    return Metric(name, SHARE, 1, lambda step: of([step]), of_row=lambda row: _exact(of(row.blocks)))


def _rate(step: Step) -> float:
    return step.throughput_per_s


def _cpu_s(step: Step) -> float | None:
    return None if step.server is None else step.server.cpu_us_per_request / 1e6


def _memory(step: Step) -> float | None:
    return None if step.server is None else float(step.server.rss_bytes)


def _ratio(row: Row) -> Estimate | None:
    """Return how many times the first contestant's rate a row's is; its own is one."""
    return row.throughput_ratio or (Estimate(1.0) if row.throughput_per_s and not row.reference else None)


def _exact(value: float | None) -> Estimate | None:
    return None if value is None else Estimate(value)


def _scaled(found: Estimate | None, factor: float) -> Estimate | None:
    if found is None:
        return None
    low, high = (None if bound is None else bound * factor for bound in (found.low, found.high))
    return Estimate(found.value * factor, low, high)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("rate", PER_SECOND, -1, _rate, lambda second: second.ok, lambda row: row.throughput_per_s),
        Metric("ratio", RATIO, -1, lambda _step: None, of_row=_ratio),
        _latency("mean", "mean_ms", 0.0),
        _latency("p50", "p50_ms", 0.5, told=True),
        _latency("p90", "p90_ms", 0.9),
        _latency("p95", "p95_ms", 0.95),
        _latency("p99", "p99_ms", 0.99, told=True),
        _latency("p99.9", "p999_ms", 0.999),
        _latency("max", "max_ms", 0.0),
        _share("errors"),
        _share("wrong"),
        Metric("cpu", SECONDS, 1, _cpu_s, of_row=lambda row: _scaled(row.cpu_us_per_request, 1e-6)),
        Metric("memory", BYTES, 1, _memory, of_row=lambda row: _exact(row.rss_bytes)),
    )
}
"""What can be compared. Errors and wrong answers are shares of all requests, cpu is the server's time a request, ratio
is a contestant's rate over that of the first one in its comparison."""

SHOWN = ("rate", "ratio", "p50", "p99", "p99.9", "errors", "wrong", "cpu", "memory")

_BOUND = re.compile(r"(?P<sign>[+-]?)(?P<number>\d+(?:\.\d+)?|\.\d+)(?P<unit>%|us|µs|ms|s|/s|B|KiB|MiB|GiB)?")
_FACTORS = {
    "us": (1e-6, SECONDS), "µs": (1e-6, SECONDS), "ms": (1e-3, SECONDS), "s": (1.0, SECONDS), "/s": (1.0, PER_SECOND),
    "B": (1.0, BYTES), "KiB": (2.0**10, BYTES), "MiB": (2.0**20, BYTES), "GiB": (2.0**30, BYTES),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Threshold:
    """How far a metric may go: by a share of the old value, by an amount, or up (for a rate: down) to a bound."""

    metric: Metric
    text: str
    amount: float
    relative: bool
    change: bool

    def bound(self, old: float) -> float:
        """Return the last value that is still allowed."""
        if not self.change:
            return self.amount
        return old * (1 + self.amount) if self.relative else old + self.amount

    def exceeded(self, old: float, new: float) -> bool:
        """Return whether the new value is beyond it; exactly at the bound is not."""
        bound = self.bound(old)
        return (new - bound) * self.metric.worse > 1e-12 * abs(bound)


def parse_threshold(text: str) -> Threshold:
    """Read ``p99=+10%``, ``rate=-5%``, ``p50=+2ms`` or ``p99=50ms``; INVALID_ARGUMENT says what would be right."""
    name, _, wanted = text.partition("=")
    metric = METRICS.get(name)
    if metric is None:
        raise invalid_argument(f"threshold {text!r}: no metric {name!r}; there are {', '.join(METRICS)}")
    found = _BOUND.fullmatch(wanted)
    if found is None:
        raise invalid_argument(f"threshold {text!r}: expected such as {name}=+10% (by a share) or {name}=50 (a bound)")
    sign, unit = found["sign"], found["unit"] or ""
    amount = float(found["number"]) * (-1 if sign == "-" else 1)
    if sign and amount * metric.worse < 0:
        right = "-" if metric.worse < 0 else "+"
        raise invalid_argument(f"threshold {text!r}: worse is {right} for {name}, and only that can be limited")
    relative = unit == "%" and metric.unit is not SHARE
    if relative and not sign:
        raise invalid_argument(f"threshold {text!r}: a share of the old value needs a sign, such as {name}=+10%")
    if unit == "%":
        amount /= 100
    elif unit:
        factor, of = _FACTORS[unit]
        if of != metric.unit:
            raise invalid_argument(f"threshold {text!r}: {name} is not measured in {unit}")
        amount *= factor
    elif metric.unit not in (PER_SECOND, RATIO) and amount:
        raise invalid_argument(f"threshold {text!r}: the number needs a unit, such as {_example(metric)}")
    return Threshold(metric, text, amount, relative, bool(sign))


def _example(metric: Metric) -> str:
    return {SECONDS: "50ms", BYTES: "200MiB", SHARE: "1%"}.get(metric.unit, "100")


NO_NEW_WRONG_ANSWERS = parse_threshold("wrong=+0")
"""This one holds always: an answer that became wrong is no matter of degree."""
