"""Decisions about children that ended: pure, no processes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from servable.core.tensors import Array
from servable.engines.child_restart import Backoff, Suspicion, Verdict, rows_of

A, B, C = b"a", b"b", b"c"


def rows(*names: bytes) -> frozenset[bytes]:
    return frozenset(names)


def test_pauses_double_to_ten_seconds() -> None:
    backoff = Backoff()
    assert [round(backoff.delay_s(1.0), 3) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_healthy_minute_is_a_new_beginning() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(59.0)
    assert backoff.delay_s(60.0) == 0.1
    assert backoff.delay_s(1.0) == 0.2


def test_nothing_is_suspected_at_first() -> None:
    suspicion = Suspicion()
    assert not suspicion.active
    assert suspicion.judge(rows(A, B)) is Verdict.RUN


def test_a_row_that_killed_alone_twice_is_guilty_alone_and_in_company() -> None:
    suspicion = Suspicion()
    suspicion.killed(rows(A))
    assert suspicion.active
    assert suspicion.judge(rows(A)) is Verdict.RUN
    suspicion.killed(rows(A))
    assert suspicion.judge(rows(A)) is Verdict.REFUSE
    assert suspicion.judge(rows(A, B)) is Verdict.REFUSE
    assert suspicion.judge(rows(B)) is Verdict.RUN


def test_company_of_a_killer_is_cleared_by_surviving() -> None:
    suspicion = Suspicion()
    suspicion.killed(rows(A, B))
    assert suspicion.judge(rows(A, C)) is Verdict.APART
    assert suspicion.judge(rows(B, C)) is Verdict.APART
    suspicion.survived(rows(B))
    assert suspicion.judge(rows(B, C, b"d")) is Verdict.RUN
    suspicion.killed(rows(A))
    assert suspicion.judge(rows(A)) is Verdict.REFUSE
    assert suspicion.judge(rows(B, C)) is Verdict.RUN


def test_a_request_of_several_rows_is_sent_back_once_and_refused_when_it_killed_twice() -> None:
    suspicion = Suspicion()
    suspicion.killed(rows(A, B))
    assert suspicion.judge(rows(A, B)) is Verdict.APART
    assert suspicion.judge(rows(A, B)) is Verdict.RUN
    suspicion.killed(rows(A, B))
    assert suspicion.judge(rows(A, B)) is Verdict.REFUSE


def test_all_cleared_is_all_forgotten() -> None:
    suspicion = Suspicion()
    suspicion.killed(rows(A, B))
    suspicion.survived(rows(A, B))
    assert not suspicion.active


def test_memory_is_bounded() -> None:
    suspicion = Suspicion()
    for number in range(10_000):
        suspicion.killed(rows(b"%d" % number))
    assert suspicion.judge(rows(b"9999", A)) is Verdict.APART
    assert suspicion.judge(rows(b"0", A)) is Verdict.RUN


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int32).reshape(3, 4),
        np.arange(3).astype(ml_dtypes.bfloat16),
        np.array([[b"a", b""], [b"", b"a"], [b"\xff", b"x"]], dtype=object),
    ],
)
def test_a_row_is_known_again_alone(array: Array) -> None:
    other = np.arange(3)
    together = rows_of("s", {"x": array, "y": other})
    alone = [rows_of("s", {"y": other[i : i + 1], "x": array[i : i + 1]}) for i in range(3)]
    assert len(together) == 3
    assert frozenset().union(*alone) == together
    assert rows_of("t", {"x": array, "y": other}).isdisjoint(together)


def test_inputs_without_common_rows_are_one_piece() -> None:
    matrix = np.zeros((3, 2))
    for inputs in ({"x": matrix, "y": np.zeros(2)}, {"x": np.array(1)}, {}, {"x": np.zeros((0, 2))}):
        assert len(rows_of("s", inputs)) == 1
