"""What follows from measured times: quantiles, ratios, whose turn it is, and whether the machine was quiet."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from servable.engines.tuned_plan import Setting
from servable.forge.measure import BatchTimes, Measured, compared, in_turn
from servable.forge.surroundings import disturbance


def test_a_quantile_is_a_time_that_was_measured() -> None:
    times = BatchTimes(1, tuple(float(second) for second in range(100, 0, -1)))
    assert [times.quantile_s(share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert BatchTimes(1, (3.0,)).quantile_s(0.99) == 3
    assert math.isnan(BatchTimes(1).quantile_s(0.5))


def measured(*rounds: float) -> Measured:
    return Measured(Setting(), "onnx", "here", batches=(BatchTimes(2, rounds, rounds),))


def test_who_takes_half_the_time_is_twice_as_fast() -> None:
    found = compared(measured(1.0, 1.1, 0.9), measured(2.0, 2.2, 1.8), 2)
    assert found is not None
    assert found.value == pytest.approx(2)
    unpaired = compared(measured(1.0, 1.0), measured(2.0, 2.0, 2.0), 2)
    assert unpaired is not None
    assert unpaired.value == pytest.approx(2)


class Fake:
    """A probe that remembers when it was asked."""

    def __init__(self, name: str, turns: list[str]) -> None:
        self.artifact, self._name, self._turns = Path(name), name, turns

    def time(self, rows: int, budget_s: float, *, most: int) -> list[float]:
        self._turns.append(f"{self._name}{rows}")
        return [0.5]


def test_every_other_round_goes_backwards() -> None:
    turns: list[str] = []
    probes = [Fake("a", turns), Fake("b", turns)]
    found = in_turn(probes, [measured(), measured()], (1, 4), 2, 0.1)  # type: ignore[arg-type]
    assert turns == ["a1", "b1", "a4", "b4", "b1", "a1", "b4", "a4"]
    assert [one.rounds for one in found[0].batches] == [(0.5, 0.5), (0.5, 0.5)]


def test_a_busy_machine_is_told() -> None:
    assert disturbance({"load_average": 2.0, "cores": 2}) == ""
    assert disturbance({"cores": 2}) == ""
    assert "load average 2.5 on 2 cores" in disturbance({"load_average": 2.5, "cores": 2})
