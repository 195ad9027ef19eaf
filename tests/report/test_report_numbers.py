"""Numbers as people read them, and where they stand on an axis."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servable.report.plots import Axis, Scale
from servable.report.scales import fit, percentile
from servable.report.units import BYTES, NOTHING, PER_SECOND, PLAIN, RATIO, SECONDS, SHARE, TIMES, number, quantity

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, NOTHING),
        (math.nan, NOTHING),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (0.0, "0"),
        (1234567, "1,234,567"),
        (10**20, "1.00e+20"),
        (1234.56, "1,235"),
        (99.96, "100"),
        (9.996, "10.0"),
        (0.5, "0.500"),
        (-12.34, "-12.3"),
        (1.5e-9, "1.50e-09"),
        (2.5e18, "2.50e+18"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.000072, SECONDS, "72.0 µs"),
        (0.01234, SECONDS, "12.3 ms"),
        (3.0, SECONDS, "3.00 s"),
        (7200.0, SECONDS, "7,200 s"),
        (5e-12, SECONDS, "0.00500 ns"),
        (0.0, SECONDS, "0 s"),
        (math.nan, SECONDS, NOTHING),
        (146800640, BYTES, "140 MiB"),
        (1.2345, RATIO, f"1.23{TIMES}"),
        (0.5, SHARE, "50.0%"),
        (31250.0, PER_SECOND, "31,250/s"),
    ],
)
def test_quantities_take_the_unit_that_suits_them(value: float, unit, text: str) -> None:
    assert quantity(value, unit) == text


@given(st.lists(FINITE, max_size=8), st.sampled_from(Scale), st.sampled_from((PLAIN, SECONDS, BYTES, SHARE)))
def test_every_value_has_a_place_on_its_axis(values: list[float], scale: Scale, unit) -> None:
    fitted = fit(Axis("x", unit, scale), values, 6)
    places = [fitted.place(tick.value) for tick in fitted.ticks]
    assert all(0 <= place <= 1 for place in [fitted.place(value) for value in values] + places)
    assert sum(bool(tick.text) for tick in fitted.ticks) >= 2
    if scale is Scale.LINEAR and values:
        rounding = 1e-6 * (fitted.high - fitted.low)
        assert fitted.low - rounding <= min(values)
        assert fitted.high + rounding >= max(values)
        assert fitted.low <= 0 <= fitted.high


def test_linear_ticks_are_round_and_in_one_unit() -> None:
    fitted = fit(Axis("latency", SECONDS), [0.0012, 0.0071], 6)
    assert [tick.text for tick in fitted.ticks] == ["0", "2", "4", "6", "8"]
    assert fitted.step is not None
    assert fitted.step.symbol == "ms"


def test_a_log_axis_names_its_units_tick_by_tick() -> None:
    fitted = fit(Axis("latency", SECONDS, Scale.LOG), [0.0004, 0.03], 9)
    assert [tick.text for tick in fitted.ticks if tick.text] == [
        "200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms",
    ]  # fmt: skip


def test_a_log_axis_of_bytes_has_ticks_that_are_round_in_its_units() -> None:
    def texts(*values: float, most: int = 6) -> list[str]:
        return [tick.text for tick in fit(Axis("size", BYTES, Scale.LOG), values, most).ticks]

    assert texts(596_000, 2_137_844) == ["512 KiB", "1 MiB", "2 MiB", "4 MiB"]
    assert texts(1024.0) == ["1 KiB", "2 KiB"]
    assert texts(1.0, 2.0**20, most=6)[:5] == ["1 B", "", "", "", "16 B"]


def test_nines_stand_equally_far_apart() -> None:
    fitted = fit(Axis("requests", SHARE, Scale.NINES), [0.5, 0.9995], 6)
    nines = [fitted.place(share) for share in (0.9, 0.99, 0.999, 0.9999)]
    steps = [after - before for before, after in pairwise(nines)]
    assert max(steps) - min(steps) < 1e-9
    assert [tick.text for tick in fitted.ticks] == ["0%", "50%", "90%", "99%", "99.9%", "99.99%"]
    assert percentile(0.99999) == "99.999%"
