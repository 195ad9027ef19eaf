"""What two models' answers tell about each other."""

from __future__ import annotations

import numpy as np
import pytest

from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, INT64
from servable.forge.samples import Samples, accuracy, agreement, made_up
from servable.forge.verify import EXACT, INT8, Question, Tolerance, compare, questions

SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec("x", FLOAT32, (None, 3))},
    {"y": TensorSpec("y", FLOAT32, (None, 2))},
)
ASKED = [Question("serving_default", 2, {"x": np.zeros((2, 3), np.float32)})]
RIGHT = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)


def verdict_of(answer: np.ndarray, tolerance: Tolerance = EXACT, right: np.ndarray = RIGHT):
    return compare(ASKED, [{"y": right}], [{"y": answer}], tolerance)


def test_the_same_is_within_every_tolerance() -> None:
    verdict = verdict_of(RIGHT.copy(), Tolerance(1e-9, 0, 0, 1 - 1e-12, 1))
    assert verdict.ok
    assert (verdict.max_abs, verdict.relative, verdict.agreement) == (0, 0, 1)
    assert verdict.cosine == pytest.approx(1)


def test_a_difference_is_measured() -> None:
    (one,) = verdict_of(RIGHT + np.array([[0, 0.5], [0, 0]], np.float32)).differences
    assert one.max_abs == pytest.approx(0.5)
    assert one.relative == pytest.approx(0.125)
    assert one.agreement == 1
    assert "differs by up to 0.5" in one.fault


def test_each_tolerance_finds_its_own_fault() -> None:
    swapped = RIGHT[:, ::-1]
    assert verdict_of(swapped, Tolerance(None, None)).ok
    assert "of the largest value" in verdict_of(swapped, Tolerance(None, None, relative=0.1)).faults[0]
    assert "cosine" in verdict_of(swapped, Tolerance(None, None, cosine=0.999)).faults[0]
    assert "for 0 % of rows, not 90 %" in verdict_of(swapped, Tolerance(None, None, agreement=0.9)).faults[0]


@pytest.mark.parametrize(
    ("right", "answer", "nan", "ok"),
    [
        ([np.nan, 1], [np.nan, 1], "same", True),
        ([np.nan, 1], [1, np.nan], "differs", False),
        ([0, 1], [np.nan, 1], "differs", False),
        ([np.inf, 1], [np.inf, 1], "none", True),
        ([np.inf, 1], [-np.inf, 1], "none", False),
    ],
)
def test_what_is_no_number(right: list[float], answer: list[float], nan: str, ok: bool) -> None:
    verdict = verdict_of(np.array([answer], np.float32), right=np.array([right], np.float32))
    assert verdict.differences[0].nan == nan
    assert verdict.ok == ok


def test_nan_is_a_fault_at_any_tolerance() -> None:
    assert not verdict_of(np.full_like(RIGHT, np.nan), INT8).ok


def test_shapes_and_names_and_types() -> None:
    assert "shape [2, 1], expected [2, 2]" in verdict_of(RIGHT[:, :1]).faults[0]
    missing = compare(ASKED, [{"y": RIGHT}], [{"z": RIGHT}], EXACT)
    assert "the output is not there; there are z" in missing.faults[0]
    wide = verdict_of(RIGHT.astype(np.float64))
    assert wide.ok
    assert wide.notes == ("output y is float64, was float32",)


def test_integers_and_strings_are_the_same_or_not() -> None:
    right, wrong = np.array([1, 2]), np.array([1, 3])
    assert verdict_of(right, right=right).ok
    assert "1 of 2 elements are not the same" in verdict_of(wrong, right=right).faults[0]
    words = np.array([b"a", b"b"], object)
    assert verdict_of(words.copy(), right=words).ok
    assert not verdict_of(np.array([b"a", b"c"], object), right=words).ok


def test_questions_are_asked_at_several_sizes_and_with_nan() -> None:
    asked = questions(SIGNATURE, made_up(SIGNATURE, 5), (1, 8))
    assert [(one.rows, one.probe, one.inputs["x"].shape) for one in asked] == [
        (1, False, (1, 3)), (8, False, (8, 3)), (1, True, (1, 3)),
    ]  # fmt: skip
    assert np.isnan(asked[2].inputs["x"]).any()
    assert not np.isnan(asked[0].inputs["x"]).any()


def test_a_fixed_batch_is_asked_alone() -> None:
    fixed = Signature("s", {"x": TensorSpec("x", INT64, (4, 2))}, {})
    asked = questions(fixed, Samples({"x": np.arange(6).reshape(3, 2)}, "here"), (1, 8))
    assert [one.rows for one in asked] == [4, 4]  # as often as there are rows to ask
    assert asked[0].inputs["x"][3].tolist() == [0, 1]
    assert asked[1].inputs["x"][0].tolist() == [2, 3]


def test_many_batches_see_many_rows() -> None:
    asked = questions(SIGNATURE, made_up(SIGNATURE, 12), (1, 2, 4, 4), probe=False)
    seen = np.concatenate([one.inputs["x"] for one in asked])
    assert len(np.unique(seen, axis=0)) == 11


def test_a_probe_is_noted_not_judged() -> None:
    probe = [Question("s", 1, {"x": np.array([[np.nan]], np.float32)}, probe=True)]
    hole, number = np.array([[np.nan]], np.float32), np.array([[0.0]], np.float32)
    assert compare(probe, [{"y": hole}], [{"y": hole}], EXACT).notes == ()
    differing = compare(probe, [{"y": hole}], [{"y": number}], EXACT)
    assert differing.ok
    assert "NaN at other places" in differing.notes[0]
    assert "refused now, answered before" in compare(probe, [{"y": hole}], [{}], EXACT).notes[0]


def test_agreement_and_accuracy() -> None:
    assert agreement(RIGHT, RIGHT[:, ::-1]) == 0
    assert agreement(RIGHT[:, 0], RIGHT[:, 0]) is None
    assert accuracy([RIGHT], np.array([1, 0])) == 1
    assert accuracy([RIGHT[:1], RIGHT[1:]], np.array([1, 1])) == 0.5
    assert accuracy([np.array([[0.2], [0.7]], np.float32)], np.array([0, 1])) == 1
    assert accuracy([RIGHT], np.array([1])) is None
