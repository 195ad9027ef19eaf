"""What two models' answers tell about each other."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from servable.core.errors import ServingError, internal
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, INT64
from servable.forge.samples import Samples, accuracy, agreement, made_up
from servable.forge.verify import EXACT, INT8, Question, Tolerance, Verdict, answers, compare, questions

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
    assert one.distance.max_abs == pytest.approx(0.5)
    assert one.distance.relative == pytest.approx(0.125)
    assert one.distance.agreement == 1
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
    assert verdict.differences[0].distance.nan == nan
    assert verdict.ok == ok
    if ok:
        assert verdict.max_abs == 0


class Refuses:
    """A model that answers nothing."""

    signatures = {"serving_default": SIGNATURE}  # noqa: RUF012  # nobody changes it

    def run(self, *_: object) -> dict[str, np.ndarray]:
        raise internal("no paint left")


def test_who_refuses_is_heard_unless_it_was_a_probe() -> None:
    with pytest.raises(ServingError, match="no paint left"):
        answers(Refuses(), ASKED)  # type: ignore[arg-type]
    assert answers(Refuses(), [replace(ASKED[0], probe=True)]) == [{}]  # type: ignore[arg-type]


def test_nan_is_a_fault_at_any_tolerance() -> None:
    assert not verdict_of(np.full_like(RIGHT, np.nan), INT8).ok


def judged(
    sizes: list[int], wrong: list[int], tolerance: Tolerance, sharp: float = 1.0, size_wrong: int = 0
) -> Verdict:
    return compare(*answered(sizes, wrong, sharp, size_wrong), tolerance)


def answered(
    sizes: list[int], wrong: list[int], sharp: float = 1.0, size_wrong: int = 0
) -> tuple[list[Question], list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Return questions of these sizes with right answers of two scores, and answers whose rows ``wrong`` are swapped.

    ``size_wrong``: all rows of batches of that size are.
    """
    asked, right, found = [], [], []
    for number, size in enumerate(sizes):
        rows = np.arange(sum(sizes[:number]), sum(sizes[:number]) + size)
        scores = np.tile(np.array([[0.5 + sharp / 2, 0.5 - sharp / 2]], np.float32), (size, 1))
        other = scores.copy()
        swapped = np.isin(rows, wrong) | (size == size_wrong)
        other[swapped] = other[swapped, ::-1]
        asked.append(Question("s", size, {}))
        right.append({"y": scores})
        found.append({"y": other})
    return asked, right, found


def test_smaller_numbers_are_judged_by_all_rows_together() -> None:
    one_of_sixty = judged([1] * 8 + [2] * 10 + [32], [9], Tolerance(None, None, cosine=0.98))
    assert one_of_sixty.ok
    assert one_of_sixty.cosine == pytest.approx(59 / 60)
    of_two = {one.rows: one for one in one_of_sixty.differences}[2]
    assert of_two.asked == 20
    assert of_two.distance.cosine == pytest.approx(0.95)  # less than 0.98: by one row of 20
    two_of_sixty = judged([1] * 8 + [2] * 10 + [32], [9, 40], Tolerance(None, None, cosine=0.98))
    assert two_of_sixty.faults == ("s/y: cosine 0.96667; at least 0.98 is asked for",)
    shares = [judged([8] * 25, wrong, Tolerance(None, None, agreement=0.99)).ok for wrong in ([1, 9], [1, 9, 17])]
    assert shares == [True, False]


def test_smaller_numbers_go_wrong_at_one_batch_size_alone() -> None:
    batches = [1] * 8 + [2] * 4 + [32] * 30
    verdict = judged(batches, [], Tolerance(None, None, cosine=0.98), 0.5, size_wrong=2)
    assert verdict.cosine is not None
    assert verdict.cosine > 0.99  # over all rows it would do
    assert verdict.faults == ("s/y at batch 2: cosine 0.60000 at this size; at least 0.94 is asked for",)


def test_nan_and_exact_limits_are_judged_batch_by_batch() -> None:
    asked, right, found = answered([1] * 8 + [32] * 30, wrong=[])
    found[3]["y"][0, 0] += 2e-4
    assert "s/y at batch 1: differs by up to 0.0002" in compare(asked, right, found, EXACT).faults[0]
    found[3]["y"][0, 0] = np.nan
    assert "s/y at batch 1: NaN" in compare(asked, right, found, INT8).faults[0]


def test_what_one_batch_had_is_told_of_its_size() -> None:
    asked, right, found = answered([1] * 8, wrong=[])
    right[2] = {"y": np.array([[np.nan, 1]], np.float32)}
    found[2] = {"y": np.array([[np.nan, 1]], np.float32)}
    (of_one,) = compare(asked, right, found, EXACT).differences
    assert (of_one.distance.nan, of_one.fault) == ("same", "")
    numbers = [{"y": np.array([1, 2])}, {"y": np.array([3, 4])}]
    wrong = [{"y": np.array([1, 0])}, {"y": np.array([0, 4])}]
    (counted,) = compare(asked[:2], numbers, wrong, EXACT).differences
    assert (counted.distance.max_abs, counted.distance.relative) == (2, 0.5)


def test_the_largest_difference_is_over_the_largest_value_of_all_batches() -> None:
    asked = [Question("s", 1, {}), Question("s", 2, {})]
    right = [{"y": np.array([[0.1, 0.0]])}, {"y": np.array([[1.0, 0.0], [0.0, 1.0]])}]
    found = [{"y": np.array([[0.1, 0.02]])}, right[1]]
    assert compare(asked, right, found, Tolerance(None, None, relative=0.021)).ok
    faults = compare(asked, right, found, Tolerance(None, None, relative=0.019)).faults
    assert faults == ("s/y: differs by 0.02 of the largest value; allowed: 0.019",)


def test_infinity_is_far_at_any_tolerance_of_size_and_valid_json() -> None:
    verdict = verdict_of(np.full_like(RIGHT, np.inf), Tolerance(None, None, relative=0.5))
    assert "differs by inf of the largest value" in verdict.faults[0]
    assert json.loads(json.dumps(verdict.as_json(), allow_nan=False))["differences"][0]["max_abs"] is None


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
    asked = questions(SIGNATURE, made_up(SIGNATURE, 5), (1, 3, 8))
    assert [one.rows for one in asked if not one.probe] == [1] * 8 + [3] * 3 + [8]  # at least 8 rows at each size
    assert all(one.inputs["x"].shape == (one.rows, 3) for one in asked)
    assert [np.isnan(one.inputs["x"]).any() for one in asked] == [one.probe for one in asked]
    assert asked[-1].probe


def test_a_fixed_batch_is_asked_alone() -> None:
    fixed = Signature("s", {"x": TensorSpec("x", INT64, (4, 2))}, {})
    asked = questions(fixed, Samples({"x": np.arange(6).reshape(3, 2)}, "here"), (1, 8))
    assert [one.rows for one in asked] == [4] * 4  # as often as there are rows to ask
    assert asked[0].inputs["x"][3].tolist() == [0, 1]
    assert asked[1].inputs["x"][0].tolist() == [2, 3]


def test_many_batches_see_many_rows() -> None:
    asked = questions(SIGNATURE, made_up(SIGNATURE, 24), (2, 8), probe=False)
    assert len(seen(asked)) == 16


@pytest.mark.parametrize(("rows", "sizes"), [(5, [4, 4]), (8, [4, 4]), (9, [4, 4, 8]), (81, [4, 4, 32, 32, 9])])
def test_the_whole_data_is_asked(rows: int, sizes: list[int]) -> None:
    asked = questions(SIGNATURE, made_up(SIGNATURE, rows), (4,), whole=True, probe=False)
    assert [one.rows for one in asked] == sizes
    assert len(seen(asked)) == rows


def test_the_whole_data_is_asked_of_a_fixed_batch() -> None:
    fixed = Signature("s", {"x": TensorSpec("x", FLOAT32, (4, 3))}, {})
    asked = questions(fixed, Samples({"x": np.arange(120.0).reshape(40, 3)}, "here"), (1,), whole=True, probe=False)
    assert len(seen(asked)) == 40


def seen(asked: list[Question]) -> np.ndarray:
    return np.unique(np.concatenate([one.inputs["x"] for one in asked]), axis=0)


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
