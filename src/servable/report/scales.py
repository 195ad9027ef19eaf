"""From values to places on an axis, and which values get a tick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from servable.report.plots import Axis, Scale
from servable.report.units import BYTES, Step, Unit, number, quantity, scaled, with_symbol

NINES_AT_MOST = 9


@dataclass(frozen=True, slots=True)
class Tick:
    """A value with its text; minor ones have none."""

    value: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fitted:
    """An axis fitted to its values: ``place`` is 0 at its start and 1 at its end."""

    scale: Scale
    low: float
    high: float
    ticks: tuple[Tick, ...]
    step: Step | None = None
    """The unit that all tick texts are in, to be named beside the axis; ``None`` where each names its own."""

    def place(self, value: float) -> float:
        """Return where a value is; what lies outside is put on the edge."""
        low, high = _bend(self.low, self.scale), _bend(self.high, self.scale)
        clamped = min(max(value, self.low), self.high)
        return (_bend(clamped, self.scale) - low) / (high - low)


def fit(axis: Axis, values: Sequence[float], ticks_at_most: int) -> Fitted:
    """Fit an axis to what it has to show. Without values, or with one only, it still has an extent."""
    finite = [value for value in values if math.isfinite(value)]
    if axis.scale is Scale.NINES:
        return _fit_nines(finite)
    if axis.scale is Scale.LOG and (positive := [value for value in finite if value > 0]):
        return _fit_log(positive, axis.unit, ticks_at_most)
    return _fit_linear(finite, axis, ticks_at_most)


def _bend(value: float, scale: Scale) -> float:
    if scale is Scale.LOG:
        return math.log10(value)
    if scale is Scale.NINES:
        return -math.log10(max(1.0 - value, 10.0**-NINES_AT_MOST))
    return value


def _fit_linear(values: Sequence[float], axis: Axis, ticks_at_most: int) -> Fitted:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if axis.from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = (low, low + 1.0) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    step = axis.unit.step_for([max(abs(low), abs(high))])
    distance = _nice((high - low) / step.factor / max(1, ticks_at_most - 1))
    first = math.floor(low / step.factor / distance + 1e-9)
    last = math.ceil(high / step.factor / distance - 1e-9)
    digits = max(0, -math.floor(math.log10(distance) + 1e-9)) if distance < 1 else 0
    numbers = [index * distance for index in range(first, last + 1)]
    ticks = tuple(Tick(value * step.factor, _tick_text(value, digits)) for value in numbers)
    return Fitted(Scale.LINEAR, ticks[0].value, ticks[-1].value, ticks, step)


def _tick_text(value: float, digits: int) -> str:
    # Beyond these, digits and zeros would be as long as the plot is wide.
    if value and (abs(value) >= 1e12 or digits > 6):
        return number(float(value), 2)
    return f"{value:,.{digits}f}".replace("-0", "0") if value == 0 else f"{value:,.{digits}f}"


def _nice(distance: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50 ... that is not below."""
    power = 10.0 ** math.floor(math.log10(distance))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= distance * (1 - 1e-9)), 10 * power)


def _fit_log(values: Sequence[float], unit: Unit, ticks_at_most: int) -> Fitted:
    if unit is BYTES:
        return _fit_powers_of_two(values, unit, ticks_at_most)
    low, high = _edge_below(min(values)), _edge_above(max(values))
    if low == high:
        high = _edge_above(high * 1.5)
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    inside = [value for decade in decades for value in (decade, 2 * decade, 5 * decade)]
    inside = [value for value in inside if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    labelled = inside
    if len(inside) > ticks_at_most:
        labelled = [value for value in decades if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        labelled = labelled[:: math.ceil(len(labelled) / ticks_at_most)]
    minor = [factor * decade for decade in decades for factor in range(1, 10)]
    ticks = [Tick(value, quantity(value, unit, 1)) for value in labelled]
    if len(decades) < 8:
        known = {round(math.log10(tick.value), 6) for tick in ticks}
        ticks += [Tick(v) for v in minor if low <= v <= high and round(math.log10(v), 6) not in known]
    return Fitted(Scale.LOG, low, high, tuple(ticks))


def _fit_powers_of_two(values: Sequence[float], unit: Unit, ticks_at_most: int) -> Fitted:
    """Fit an axis of bytes: 512 KiB, 1 MiB, 2 MiB, since a round number of bytes is none of KiB."""
    first, last = math.floor(math.log2(min(values)) + 1e-9), math.ceil(math.log2(max(values)) - 1e-9)
    last = max(last, first + 1)
    every = math.ceil((last - first + 1) / ticks_at_most)
    ticks = tuple(
        Tick(2.0**power, _binary(2.0**power, unit) if (power - first) % every == 0 else "")
        for power in range(first, last + 1)
    )
    return Fitted(Scale.LOG, 2.0**first, 2.0**last, ticks)


def _binary(value: float, unit: Unit) -> str:
    step = unit.step_for([value])
    return with_symbol(f"{value / step.factor:,g}", step)


def _edge_below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * (1 + 1e-9))


def _edge_above(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


def _fit_nines(values: Sequence[float]) -> Fitted:
    highest = max((value for value in values if value < 1.0), default=0.9)
    nines = min(max(1, math.ceil(_bend(highest, Scale.NINES) - 1e-6)), NINES_AT_MOST)
    shares = [0.0, 0.5, *(1 - 10.0**-power for power in range(1, nines + 1))]
    ticks = tuple(Tick(share, percentile(share)) for share in shares)
    return Fitted(Scale.NINES, 0.0, shares[-1], ticks)


def percentile(share: float) -> str:
    """Write a share as a percentile: 0.999 is ``99.9 %``, with as many nines as it has."""
    return f"{round(share * 100, 7):g}%" if share < 0.9999999 else f"{share * 100:.9g}%"


def axis_title(axis: Axis, fitted: Fitted) -> str:
    """Return the axis' name, with the unit of its ticks where they do not name it themselves."""
    symbol = fitted.step.symbol if fitted.step else ""
    # "requests /s" reads as the label itself says it.
    return f"{axis.label} ({symbol.lstrip('/') if symbol != '/s' else '1/s'})" if symbol else axis.label


def tip(value: float, unit: Unit, scale: Scale = Scale.LINEAR) -> str:
    """Write a value for a tooltip or a cell."""
    if scale is Scale.NINES:
        return percentile(value)
    step = unit.step_for([value])
    return with_symbol(scaled(value, step), step)
