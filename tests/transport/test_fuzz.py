"""A little of what ``make fuzz`` does: frames and requests that no client sends, into live connection objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from bench.fuzz.sessions import h1_session, h2_session


def frames(random: Random, outcomes: Counter[str]) -> int:
    return h2_session(random, outcomes, 200)


@pytest.mark.parametrize(("session", "count"), [(frames, 10_000), (h1_session, 1_500)], ids=["HTTP/2", "HTTP/1.1"])
def test_nothing_is_raised_and_nothing_is_left(
    session: Callable[[Random, Counter[str]], int], count: int, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: Counter[str] = Counter()
    random = Random(7)
    taken = 0
    while taken < count:
        taken += session(random, outcomes)
    assert len(outcomes) >= 5, "the input is of one kind only"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
