"""Metrics of a step by name, and how far each may get worse: ``p99=+10%``, ``rate=-5%``, ``p99=50ms``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from servable.core.errors import invalid_argument
from servable.lab.result import Second, Step
from servable.report.units import BYTES, PER_SECOND, SECONDS, SHARE, Unit


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a step. ``read`` gives ``None`` where the step does not tell; ``worse`` is +1 if more is worse."""

    name: str
    unit: Unit
    worse: int
    read: Callable[[Step], float | None]
    by_second: Callable[[Second], float | None] | None = None


def _latency(name: str, field: str, share: float, by_second: str = "") -> Metric:
    def read(step: Step) -> float | None:
        # Fewer than one answer above a percentile: it is not known.
        known = step.latency.count * (1 - share) >= 1
        return float(getattr(step.latency, field)) / 1e3 if known else None

    each = (lambda second: getattr(second, by_second)) if by_second else None
    return Metric(name, SECONDS, 1, read, each)


def _of_all(step: Step, count: int) -> float | None:
    total = step.ok + step.errors + step.wrong
    return count / total if total else None


METRICS = {
    metric.name: metric
    for metric in (
        Metric("rate", PER_SECOND, -1, lambda step: step.throughput_per_s, lambda second: second.ok),
        _latency("mean", "mean_ms", 0.0),
        _latency("p50", "p50_ms", 0.5, "p50_ms"),
        _latency("p90", "p90_ms", 0.9),
        _latency("p95", "p95_ms", 0.95),
        _latency("p99", "p99_ms", 0.99, "p99_ms"),
        _latency("p99.9", "p999_ms", 0.999),
        _latency("max", "max_ms", 0.0),
        Metric("errors", SHARE, 1, lambda step: _of_all(step, step.errors)),
        Metric("wrong", SHARE, 1, lambda step: _of_all(step, step.wrong)),
        Metric("cpu", SECONDS, 1, lambda step: step.server.cpu_us_per_request / 1e6 if step.server else None),
        Metric("memory", BYTES, 1, lambda step: float(step.server.rss_bytes) if step.server else None),
    )
}
"""What can be compared. Errors and wrong answers are shares of all requests, cpu is the server's time a request."""

SHOWN = ("rate", "p50", "p99", "p99.9", "errors", "wrong", "cpu", "memory")

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
    elif metric.unit is not PER_SECOND and amount:
        raise invalid_argument(f"threshold {text!r}: the number needs a unit, such as {_example(metric)}")
    return Threshold(metric, text, amount, relative, bool(sign))


def _example(metric: Metric) -> str:
    return {SECONDS: "50ms", BYTES: "200MiB", SHARE: "1%"}.get(metric.unit, "100")


NO_NEW_WRONG_ANSWERS = parse_threshold("wrong=+0")
"""This one holds always: an answer that became wrong is no matter of degree."""
