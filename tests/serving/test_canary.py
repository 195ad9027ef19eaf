from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servable.core.errors import ServingError
from servable.serving.canary import Canary, CanaryOptions, Outcome, Window

BOTH = (1, 2)


def canary(**options: object) -> Canary:
    return Canary(CanaryOptions(**{"percent": 10.0, "min_requests": 10, **options}))  # type: ignore[arg-type]


def test_a_share_goes_to_the_newest_and_the_rest_to_the_one_before() -> None:
    trial = canary(percent=25.0)
    chosen = [trial.choose((1, 2, 3), lot / 100) for lot in range(100)]
    assert chosen == [3] * 25 + [2] * 75
    assert canary(version=1, percent=100.0).choose(BOTH, 0.99) == 1
    assert canary(percent=0.0, shadow_percent=1.0).choose(BOTH, 0.0) == 1


@pytest.mark.parametrize("available", [(), (2,), (7,)])
def test_without_two_versions_nothing_is_chosen(available: tuple[int, ...]) -> None:
    assert canary().choose(available, 0.0) is None
    assert canary().shadows(2, available, 0.0) is None
    assert canary(version=5).choose(BOTH, 0.0) is None, "the version to try is not there"


def test_shadows_follow_answers_of_the_other_version_alone() -> None:
    trial = canary(percent=0.0, shadow_percent=50.0)
    assert trial.shadows(1, BOTH, 0.49) == 2
    assert trial.shadows(1, BOTH, 0.5) is None
    assert trial.shadows(2, BOTH, 0.0) is None


def fill(trial: Canary, version: int, ok: int, failed: int, now: float = 0.0) -> list[str]:
    trial.versions(BOTH)
    outcomes = [Outcome.OK] * ok + [Outcome.FAILED] * failed
    return [reason for outcome in outcomes if (reason := trial.note(version, outcome, now)) is not None]


def test_a_version_that_fails_is_rolled_back_for_good() -> None:
    trial = canary(max_error_rate=0.2)
    assert fill(trial, 1, 100, 0) == []
    (reason,) = fill(trial, 2, 8, 3)
    assert reason == "27.3% of its requests failed, against 0.0% of the other version's"
    assert trial.ended == {2: reason}
    assert trial.choose(BOTH, 0.0) == 1
    assert trial.shadows(1, BOTH, 0.0) is None
    assert fill(trial, 2, 0, 50) == []
    assert trial.choose((1, 2, 3), 0.0) == 3, "a newer version has its own trial"
    assert trial.choose((1, 2, 3), 0.99) == 2


def test_failures_that_the_other_version_has_too_are_not_the_versions_own() -> None:
    trial = canary(max_error_rate=0.05)
    assert fill(trial, 1, 50, 50) == []
    assert fill(trial, 2, 50, 50) == []
    assert trial.ended == {}


def test_a_few_requests_prove_nothing() -> None:
    trial = canary(min_requests=10)
    assert fill(trial, 2, 0, 9) == []
    assert len(fill(trial, 2, 0, 1)) == 1


def test_what_is_long_ago_does_not_count() -> None:
    trial = canary(min_requests=10, window_s=60.0)
    assert fill(trial, 2, 0, 9, now=0.0) == []
    assert fill(trial, 2, 5, 0, now=100.0) == []
    assert trial.ended == {}


def test_answers_that_differ_end_a_trial_if_that_is_wished() -> None:
    trial = canary(max_difference_rate=0.1)
    lenient = canary()
    for each in (trial, lenient):
        each.versions(BOTH)
        for _ in range(9):
            assert each.note(2, Outcome.SAME, 0.0) is None
    assert trial.note(2, Outcome.DIFFERENT, 0.0) is None
    assert trial.note(2, Outcome.DIFFERENT, 0.0) == "18.2% of its answers differ from the other version's"
    assert all(lenient.note(2, Outcome.DIFFERENT, 0.0) is None for _ in range(100))


@given(steps=st.lists(st.tuples(st.sampled_from(list(Outcome)), st.floats(0.0, 30.0)), max_size=60))
def test_a_window_counts_what_happened_lately(steps: list[tuple[Outcome, float]]) -> None:
    window, now, seen = Window(60.0), 0.0, []
    for outcome, wait in steps:
        now += wait
        window.add(outcome, now)
        seen.append((now, outcome))
        for kind in Outcome:
            count = window.count(kind)
            assert count >= sum(1 for at, its in seen if its is kind and at >= now - 50.0 + 1e-6)
            assert count <= sum(1 for at, its in seen if its is kind and at >= now - 60.0 - 1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"percent": 101.0}, "percent is from 0 to 100"),
        ({"percent": 0.0}, "both 0"),
        ({"max_error_rate": 5.0}, "max_error_rate is a share"),
        ({"max_difference_rate": -1.0}, "max_difference_rate is a share"),
        ({"min_requests": 0}, "must be positive"),
        ({"window_s": 0.0}, "must be positive"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ServingError, match=words):
        CanaryOptions(**{"percent": 5.0, **options})  # type: ignore[arg-type]
