"""Who takes part in the finals of a tuning, and what a plan may rest on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from servable.core.signatures import Signature
from servable.engines.base import Artifact
from servable.engines.fingerprint import fingerprint
from servable.engines.tuned_plan import Setting
from servable.forge.measure import BatchTimes, Measured
from servable.forge.samples import Samples
from servable.forge.tuning.choice import Objective
from servable.forge.tuning.finals import LEAST_ROUNDS, decisive, finalists, in_time, winners
from servable.forge.tuning.plan import plan_of
from servable.forge.tuning.trials import Form, Trial
from servable.forge.tuning.tuned import Result, Tuned, TuneOptions
from servable.lab.statistics import Estimate

DEFAULT = Trial(0, Setting("onnxruntime"))
OTHER = Trial(0, Setting("openvino"))
THIRD = Trial(0, Setting("onnxruntime", streams=2))
SIZES = (1, 8)


def found(trial: Trial, one: float, eight: float, gains: dict[int, Estimate] | None = None) -> Result:
    """Return a result whose batches took these times in each of five rounds."""
    batches = tuple(BatchTimes(rows, (s,) * 5, (s,) * 5) for rows, s in zip(SIZES, (one, eight), strict=True))
    return Result(
        trial,
        Measured(trial.setting, "onnx", "/m.onnx", load_s=1.0, first_run_s=0.0, batches=batches),
        gains=gains or {},
    )


def by_trial(*results: Result) -> dict[Trial, Result]:
    return {one.trial: one for one in results}


def test_the_fastest_of_the_size_that_matters_comes_first() -> None:
    results = by_trial(found(DEFAULT, 3.0, 9.0), found(OTHER, 1.0, 8.0), found(THIRD, 2.0, 4.0))
    assert finalists(results, DEFAULT, SIZES, Objective()) == [DEFAULT, THIRD, OTHER]
    assert finalists(results, DEFAULT, SIZES, Objective("latency")) == [DEFAULT, OTHER, THIRD]
    assert finalists(by_trial(found(DEFAULT, 1, 1), replace(found(OTHER, 0.5, 0.5), reason="wrong")), DEFAULT, SIZES,
                     Objective()) == [DEFAULT]  # fmt: skip


def test_there_are_as_many_finalists_as_there_is_time_for_and_the_best_stays() -> None:
    results = by_trial(found(DEFAULT, 3.0, 9.0), found(OTHER, 1.0, 8.0), found(THIRD, 2.0, 4.0))
    ordered = [DEFAULT, THIRD, OTHER]
    rounds_s = LEAST_ROUNDS * (12.0 + 9.0 + 6.0)
    assert in_time(ordered, results, SIZES, rounds_s + 3.0) == ordered  # 3: their loads
    assert in_time(ordered, results, SIZES, rounds_s) == [DEFAULT, THIRD]
    assert in_time(ordered, results, SIZES, 0.0) == [DEFAULT, THIRD]


def test_who_won_is_decided_as_a_plan_is() -> None:
    sure, chance = Estimate(2.0, 1.9, 2.1), Estimate(1.3, 0.98, 1.6)
    results = by_trial(
        found(DEFAULT, 2.0, 8.0), found(OTHER, 1.0, 8.1, {1: sure, 8: Estimate(0.99, 0.96, 1.02)}),
        found(THIRD, 1.5, 6.0, {1: chance, 8: chance}),
    )  # fmt: skip
    assert winners(results, DEFAULT, SIZES, Objective()) == [OTHER]
    assert winners(by_trial(found(DEFAULT, 1.0, 1.0)), DEFAULT, SIZES, Objective()) == [DEFAULT]
    assert winners({}, DEFAULT, SIZES, Objective()) == []


def test_a_candidate_without_all_sizes_decides_nothing() -> None:
    half = found(OTHER, 1.0, 1.0)
    half = replace(half, measured=replace(half.measured, batches=half.measured.batches[:1]))
    assert decisive(half, found(DEFAULT, 1.0, 1.0), SIZES, Objective()) == {}
    assert decisive(found(DEFAULT, 1.0, 2.0), found(DEFAULT, 1.0, 2.0), SIZES, Objective()) == {1: 1.0, 8: 2.0}


def tuned(tmp_path: Path, *results: Result) -> Tuned:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"any")
    artifact = Artifact("onnx", path)
    return Tuned(
        artifact, TuneOptions(batches=SIZES), Signature("serving_default", {}, {}),
        Samples({"x": np.ones((1, 1))}, "a file"), (Form(artifact, fingerprint=fingerprint(artifact)),), results, 1.0,
        ("serving_default",),
    )  # fmt: skip


def test_a_plan_rests_on_what_won_twice(tmp_path: Path) -> None:
    sure = {1: Estimate(2.0, 1.9, 2.1), 8: Estimate(2.0, 1.9, 2.1)}
    first = found(OTHER, 1.0, 4.0, sure)
    once = plan_of(tuned(tmp_path, found(DEFAULT, 2.0, 8.0), first))
    assert [part.setting for part in once.ranges] == [DEFAULT.setting]
    twice = plan_of(tuned(tmp_path, found(DEFAULT, 2.0, 8.0), replace(first, confirmed=True)))
    assert [part.setting for part in twice.ranges] == [OTHER.setting]
    lost = replace(first, confirmed=True, gains={1: sure[1], 8: Estimate(1.1, 0.9, 1.3)})
    part = plan_of(tuned(tmp_path, found(DEFAULT, 2.0, 8.0), lost))
    assert [(one.rows, one.setting) for one in part.ranges] == [(7, OTHER.setting), (None, DEFAULT.setting)]
