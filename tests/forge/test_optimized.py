"""Which row of a pipeline is the best: what it lost, what counts as a gain, who is on the front."""

from __future__ import annotations

import numpy as np
import pytest

from servable.engines.tuned_plan import Setting
from servable.forge.appraisal import Figures
from servable.forge.measure import BatchTimes, Measured
from servable.forge.pipeline.optimized import GIVEN, Goal, Optimized, Row, State
from servable.forge.pipeline.records import digest_of_samples
from servable.forge.reference import Judged
from servable.forge.samples import Samples


def row(
    name: str,
    seconds: float,
    size: int = 100,
    *,
    accuracy: float | None = None,
    agreement: float | None = 1.0,
    relative: float = 0.0,
    fault: str = "",
) -> Row:
    measured = Measured(
        Setting(), "onnx", "/m.onnx", disk_bytes=size,
        batches=(BatchTimes(1, (seconds,) * 3), BatchTimes(8, (8 * seconds,) * 3)),
    )  # fmt: skip
    judged = Judged(0.1, relative, 0.99, agreement, accuracy, 40, fault)
    state = State.GIVEN if name == GIVEN else State.MADE
    return Row(name, state=state, figures=Figures(name, measured, judged))


def pipeline(*rows: Row) -> Optimized:
    return Optimized("m", "out", rows, (1, 8), "a file", False, True, 40, GIVEN, {}, {}, 1.0)


def best(found: Optimized, goal: str = "latency", most: float = 0.01) -> str | None:
    row = found.best(Goal(goal, most))
    return None if row is None else row.name


@pytest.mark.parametrize("goal", ["latency", "throughput"])
def test_a_gain_that_may_be_chance_is_none(goal: str) -> None:
    assert best(pipeline(row(GIVEN, 1.0), row("fold", 0.96)), goal) == GIVEN
    assert best(pipeline(row(GIVEN, 1.0), row("fold", 0.97), row("fp16", 0.9)), goal) == "fp16"


def test_a_byte_less_is_less() -> None:
    assert best(pipeline(row(GIVEN, 1.0, 100), row("fold", 2.0, 99)), "size") == "fold"
    assert best(pipeline(row(GIVEN, 1.0, 100), row("fold", 0.1, 100)), "size") == GIVEN


def test_what_lost_more_accuracy_than_allowed_is_not_the_best() -> None:
    found = pipeline(row(GIVEN, 1.0, accuracy=0.9), row("int8", 0.2, accuracy=0.87), row("fp16", 0.5, accuracy=0.92))
    assert [found.drop(one) for one in found.rows] == pytest.approx([0.0, 0.03, -0.02])
    assert best(found) == "fp16"
    assert best(found, most=0.03) == "int8"


def test_without_labels_the_class_counts_and_without_classes_the_numbers() -> None:
    found = pipeline(row(GIVEN, 1.0), row("int8", 0.2, agreement=0.9), row("fp16", 0.5, agreement=0.995))
    assert best(found) == "fp16"
    numbers = pipeline(
        row(GIVEN, 1.0, agreement=None),
        row("int8", 0.2, agreement=None, relative=0.2),
        row("fp16", 0.5, agreement=None, relative=0.001),
    )
    assert best(numbers) == "fp16"


def test_what_answers_with_other_shapes_is_never_the_best() -> None:
    found = pipeline(row(GIVEN, 1.0), row("odd", 0.1, fault="another shape"))
    assert found.drop(found.rows[1]) is None
    assert best(found, most=0.99) == GIVEN


def test_data_is_known_by_its_rows_and_labels() -> None:
    rows = {"x": np.ones((2, 3), np.float32)}
    digests = {
        digest_of_samples(Samples(rows, "a file", labels=None if labels is None else np.array(labels)))
        for labels in (None, [0, 1], [1, 0])
    }
    assert len(digests | {digest_of_samples(Samples({"x": rows["x"] * 2}, "a file"))}) == 4
    assert digest_of_samples(Samples(dict(rows), "elsewhere")) in digests


def test_nothing_measured_is_no_best() -> None:
    assert best(pipeline(Row(GIVEN, state=State.GIVEN))) is None
    failed = Row("int8", state=State.FAILED, reason="no")
    assert best(pipeline(row(GIVEN, 1.0), failed)) == GIVEN
