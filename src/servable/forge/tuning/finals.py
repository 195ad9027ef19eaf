"""The finals of a tuning: who takes part, the measurement in turn, and who won."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from servable.core.progress import Progress
from servable.engines.base import Artifact
from servable.forge.measure import Measured, begin, compared, end, in_turn
from servable.forge.probe import Probe
from servable.forge.samples import Samples
from servable.forge.tuning.choice import Objective, choose_members, proven
from servable.forge.tuning.trials import Trial
from servable.forge.tuning.tuned import Result

MOST: Final = 5
LEAST_ROUNDS, WANTED_ROUNDS, MOST_ROUNDS = 5, 12, 24
"""With three rounds an interval would be more than twice as wide as what five of them scatter."""
_BLOCK_S: Final = 0.25
_LEAST_BLOCK_S: Final = 0.02


def finalists(
    results: Mapping[Trial, Result], default: Trial, batches: Sequence[int], objective: Objective
) -> list[Trial]:
    """Return the default and the fastest of each size of batch, those of the size that matters most first."""
    able = [result for result in results.values() if result.ok]
    looked = objective.rows(batches)
    sizes = sorted(batches, key=lambda rows: rows != looked)
    chosen = [default]
    for place in range(len(able)):
        for rows in sizes:
            trial = sorted(able, key=lambda one: one.seconds(rows, objective))[place].trial
            if trial not in chosen and len(chosen) < MOST:
                chosen.append(trial)
    return chosen


def in_time(
    trials: Sequence[Trial], results: Mapping[Trial, Result], batches: Sequence[int], left_s: float
) -> list[Trial]:
    """Return as many of the first as the shortest finals have time for, loading them included; two in any case."""
    chosen = list(trials)
    while len(chosen) > 2 and _least_s([results[trial] for trial in chosen], batches) > left_s:
        chosen.pop()
    return chosen


def race(
    contestants: Sequence[tuple[Result, Artifact, str]],
    samples: Samples,
    batches: Sequence[int],
    left_s: Callable[[], float],
    report: Progress,
) -> dict[Trial, Result]:
    """Measure (what was found before, artifact, signature) in turn, each in a fresh process; the first is the default.

    ``left_s`` tells how much time there is; ``LEAST_ROUNDS`` are run in any case.
    """
    before = [result for result, _, _ in contestants]
    with contextlib.ExitStack() as stack:
        probes = [
            stack.enter_context(Probe(artifact, result.trial.setting, as_served=True))
            for result, artifact, _ in contestants
        ]
        found = [begin(probe, samples, name, batches) for probe, (_, _, name) in zip(probes, contestants, strict=True)]
        block_s, round_s = _round(before, batches, left_s())
        rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(left_s() / round_s)))
        found = in_turn(probes, found, batches, rounds, block_s, report)
        found = [end(probe, one) for probe, one in zip(probes, found, strict=True)]
    return {
        result.trial: _finished(result, measured, found[0], batches)
        for result, measured in zip(before, found, strict=True)
    }


def winners(
    results: Mapping[Trial, Result], default: Trial, batches: Sequence[int], objective: Objective
) -> list[Trial]:
    """Return the trials that a plan of these results would run, in the order of the sizes of batch."""
    trials = list(results)
    times = {
        number: decisive(results[trial], results[default], batches, objective) for number, trial in enumerate(trials)
    }
    times = {number: found for number, found in times.items() if found}
    if not times or trials.index(default) not in times:
        return []
    return list(
        dict.fromkeys(trials[number] for number in choose_members(times, trials.index(default), objective).values())
    )


def decisive(one: Result, default: Result, batches: Sequence[int], objective: Objective) -> dict[int, float]:
    """Return the times to decide by, by rows; nothing if it is out, or a size of batch has no time."""
    if not one.ok or any(one.measured.at(rows) is None for rows in batches):
        return {}
    found = {rows: one.seconds(rows, objective) for rows in batches}
    if one.trial == default.trial:
        return found
    return {
        rows: proven(seconds, one.gains.get(rows), default.seconds(rows, objective)) for rows, seconds in found.items()
    }


def _finished(before: Result, measured: Measured, default: Measured, batches: Sequence[int]) -> Result:
    gains = {rows: gain for rows in batches if (gain := compared(measured, default, rows)) is not None}
    kept = replace(measured, load_s=before.measured.load_s, first_run_s=before.measured.first_run_s)
    return replace(before, measured=kept, gains=gains, reason=measured.reason)


def _least_s(results: Sequence[Result], batches: Sequence[int]) -> float:
    """Return how long the shortest finals of these take, loading them included."""
    loads = math.fsum(one.measured.load_s + one.measured.first_run_s for one in results)
    return LEAST_ROUNDS * _round(results, batches, 0.0)[1] + loads


def _round(results: Sequence[Result], batches: Sequence[int], left_s: float) -> tuple[float, float]:
    """Return how long a block of one size of batch may be, and how long a round of all then takes.

    Many short blocks rather than a few long ones: it is rounds that tell a difference from noise.
    """
    block_s = min(_BLOCK_S, max(_LEAST_BLOCK_S, left_s / (len(results) * len(batches)) / WANTED_ROUNDS))
    medians = [one.seconds(rows, Objective()) for one in results for rows in batches]
    return block_s, math.fsum(block_s + 2 * one if one < block_s else one for one in medians)
