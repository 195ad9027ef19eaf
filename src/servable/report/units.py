"""Units, and numbers as people read them: three significant digits, one unit for a whole column or axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

TIMES = "\N{MULTIPLICATION SIGN}"
NOTHING = "\N{EN DASH}"
"""What stands where there is no number: not measured, not finite, or divided by zero."""


@dataclass(frozen=True, slots=True)
class Step:
    """One way to write a unit: ``ms`` is ``factor`` 0.001 of the unit that values are stored in."""

    factor: float
    symbol: str


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts. Values are stored in the base unit (seconds, bytes, shares of 1), never scaled."""

    steps: tuple[Step, ...] = (Step(1.0, ""),)
    """From the smallest up."""

    def step_for(self, values: Iterable[float]) -> Step:
        """Return the step in which most of these values have one to three digits before the point."""
        sizes = sorted(abs(value) for value in values if math.isfinite(value) and value)
        if not sizes:
            return next((step for step in self.steps if step.factor == 1.0), self.steps[0])
        typical = sizes[len(sizes) // 2]
        fitting = [step for step in self.steps if step.factor <= typical * (1 + 1e-9)]
        return fitting[-1] if fitting else self.steps[0]


PLAIN = Unit()
SECONDS = Unit((Step(1e-9, "ns"), Step(1e-6, "µs"), Step(1e-3, "ms"), Step(1.0, "s")))
BYTES = Unit((Step(1.0, "B"), Step(2.0**10, "KiB"), Step(2.0**20, "MiB"), Step(2.0**30, "GiB"), Step(2.0**40, "TiB")))
PER_SECOND = Unit((Step(1.0, "/s"),))
SHARE = Unit((Step(0.01, "%"),))
RATIO = Unit((Step(1.0, TIMES),))
CORES = Unit((Step(1.0, "cores"),))


def number(value: float | None, digits: int = 3) -> str:
    """Write a number: an integer whole, any other with ``digits`` significant ones, thousands apart."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.{digits - 1}e}"
    if value == 0:
        return "0"
    # The exponent after rounding: 99.96 has three digits before the point, not two.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if not -4 <= exponent < 12:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def scaled(value: float | None, step: Step, digits: int = 3) -> str:
    """Write a number in a step of its unit, without the symbol."""
    if value is None or (isinstance(value, int) and step.factor == 1.0):
        return number(value, digits)
    return number(value / step.factor, digits)


def quantity(value: float | None, unit: Unit, digits: int = 3) -> str:
    """Write one number that stands alone, with the symbol that suits it."""
    if value is None or not math.isfinite(value):
        return number(value, digits)
    step = unit.step_for([value])
    return with_symbol(scaled(value, step, digits), step)


def with_symbol(text: str, step: Step) -> str:
    """Put a symbol behind a number: a space before letters, none before signs and ``/s``."""
    if not step.symbol or text == NOTHING:
        return text
    return text + step.symbol if step.symbol[0] in ("%", TIMES, "/") else f"{text} {step.symbol}"
