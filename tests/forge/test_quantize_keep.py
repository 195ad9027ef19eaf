"""The search for layers to keep in float, who judges it, and how rows are put together: pure."""

from __future__ import annotations

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.forge.quantization.keep import Judge, Layers, chosen, distance, grouped, held, hold_drop
from servable.forge.quantization.rows import calibration_of, regrouped
from servable.forge.steps import Task

LAYERS = [f"layer{number}" for number in range(10)]


class Network:
    """Ten layers, each of which costs so much when it is quantized."""

    def __init__(self, cost: dict[str, float]) -> None:
        self.cost = cost
        self.calls = 0

    def score(self, kept: Layers) -> float:
        self.calls += 1
        return 0.95 - sum(self.cost.get(name, 0) for name in LAYERS if name not in kept)

    def error(self, group: Layers) -> float:
        self.calls += 1
        return sum(self.cost.get(name, 0) for name in group)


def test_nothing_is_kept_where_nothing_is_lost() -> None:
    network = Network({"layer3": 0.004})
    kept = hold_drop(LAYERS, 0.95, 0.01, network.score, network.error)
    assert (kept.layers, kept.evaluations, network.calls) == ((), 1, 1)
    assert kept.score == pytest.approx(0.946)


def test_one_row_of_a_hundred_is_a_drop_of_a_hundredth() -> None:
    assert held(1.0, 0.99, 0.01)  # though 1 - 0.99 is more than 0.01 for a computer
    assert held(0.95, 0.94, 0.01)
    assert held(0.9, 0.95, 0.0)
    assert not held(1.0, 0.9899, 0.01)
    network = Network({"layer3": 0.01})
    assert hold_drop(LAYERS, 0.95, 0.01, network.score, network.error).layers == ()


def test_the_layers_that_hurt_most_are_kept_and_no_more() -> None:
    network = Network({"layer2": 0.05, "layer5": 0.03, "layer7": 0.02, "layer8": 0.004})
    kept = hold_drop(LAYERS, 0.95, 0.03, network.score, network.error)
    assert kept.layers == ("layer2", "layer5")
    assert kept.score == pytest.approx(0.926)
    assert max(kept.errors, key=lambda group: kept.errors[group]) == ("layer2",)
    assert network.calls == kept.evaluations <= 32


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 6, 7])
def test_not_one_layer_too_many_is_kept(needed: int) -> None:
    network = Network(dict.fromkeys(LAYERS[:needed], 0.1))
    assert hold_drop(LAYERS, 0.95, 0.05, network.score, network.error).layers == tuple(LAYERS[:needed])


def test_neighbours_are_one_group_where_there_are_more_layers_than_evaluations() -> None:
    layers = [f"layer{number}" for number in range(100)]
    asked: list[Layers] = []

    def error(group: Layers) -> float:
        asked.append(group)
        return 1.0 if "layer42" in group else 0.0

    kept = hold_drop(layers, 1.0, 0.1, lambda kept: 1.0 if "layer42" in kept else 0.5, error, most=24)
    assert "layer42" in kept.layers
    assert len(kept.layers) < 20
    assert kept.evaluations <= 24
    assert sorted(layer for group in asked for layer in group) == sorted(layers)


def test_it_says_so_if_nothing_but_float_would_do() -> None:
    network = Network(dict.fromkeys(LAYERS, 0.05))
    with pytest.raises(
        ServingError, match=r"no quantized form holds the drop of 0\.01: the source scores 0\.95"
    ) as caught:
        hold_drop(LAYERS, 0.95, 0.01, network.score, network.error)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert "0.9000" in caught.value.message  # the best that was tried: one layer quantized
    with pytest.raises(ServingError, match="a drop is 0 or more"):
        hold_drop(LAYERS, 0.95, -0.1, network.score, network.error)


@pytest.mark.parametrize(("count", "most"), [(0, 4), (1, 4), (4, 4), (10, 4), (100, 7)])
def test_groups_are_even_and_complete(count: int, most: int) -> None:
    layers = [str(number) for number in range(count)]
    groups = grouped(layers, most)
    assert [layer for group in groups for layer in group] == layers
    assert len(groups) == min(count, most)
    assert not groups or max(map(len, groups)) - min(map(len, groups)) <= 1


def test_words_mean_nodes_and_types() -> None:
    nodes = {"conv1": "Conv", "conv2": "Conv", "head/Gemm": "Gemm"}
    assert chosen(["Conv"], nodes) == ["conv1", "conv2"]
    assert chosen(["head/Gemm", "conv2", "Gemm"], nodes) == ["head/Gemm", "conv2"]
    with pytest.raises(
        ServingError, match=r"--keep-float head: no node and no type.*did you mean head/Gemm\?"
    ) as caught:
        chosen(["head"], nodes)
    assert caught.value.code is Code.INVALID_ARGUMENT


def scores(*tops: int) -> dict[str, np.ndarray]:
    return {"ids": np.array(tops), "probs": np.eye(3, dtype=np.float32)[list(tops)]}


def test_without_labels_the_source_is_right() -> None:
    judge = Judge.of([scores(0, 1), scores(2)], None)
    assert judge.output == "probs"
    assert not judge.labelled
    assert judge.score([scores(0, 1, 2)]) == 1.0
    assert judge.score([scores(0), scores(2, 2)]) == pytest.approx(2 / 3)


def test_labels_are_right_where_there_are_some() -> None:
    judge = Judge.of([scores(0, 1, 2)], [0, 0, 2])
    assert judge.labelled
    assert judge.score([scores(0, 1, 2)]) == pytest.approx(2 / 3)
    one_column = Judge.of([{"score": np.array([[0.2], [0.9]], np.float32)}], [0, 1])
    assert one_column.score([{"score": np.array([[0.6], [0.9]], np.float32)}]) == 0.5


def test_a_judge_needs_scores_and_a_label_a_row() -> None:
    with pytest.raises(ServingError, match="there are 2 labels for 3 rows"):
        Judge.of([scores(0, 1, 2)], [0, 1])
    with pytest.raises(ServingError, match="there is no output 'prob'; there are ids, probs"):
        Judge.of([scores(0)], None, "prob")
    with pytest.raises(ServingError, match="no output is a table of scores"):
        Judge.of([{"y": np.zeros((2, 1, 1), np.int64)}], None)
    with pytest.raises(ServingError, match="no rows"):
        Judge.of([], None)


def test_distance_is_relative_to_each_output() -> None:
    right = [{"a": np.array([3.0, 4.0]), "ids": np.array([1, 2])}]
    assert distance(right, right) == 0
    assert distance(right, [{"a": np.array([0.0, 0.0]), "ids": np.array([9, 9])}]) == pytest.approx(1.0)


def test_rows_are_put_together() -> None:
    rows = [{"x": np.full((1, 2), number)} for number in range(10)]
    assert [len(batch["x"]) for batch in regrouped(rows, 4)] == [4, 4, 2]
    assert [len(batch["x"]) for batch in regrouped(rows, 4, whole=True)] == [4, 4]
    assert [len(batch["x"]) for batch in calibration_of(Task(rows, {"calibrate": 9}), None, 8)] == [8, 1]
    assert [len(batch["x"]) for batch in calibration_of(Task(rows), 5)] == [5, 5]
    assert [len(batch["x"]) for batch in calibration_of(Task(rows), 4)] == [4, 4]
    with pytest.raises(ServingError, match="3 rows are too few to calibrate with: at least 8"):
        calibration_of(Task(rows[:3]), None)
    with pytest.raises(ServingError, match="10 rows are too few to calibrate with: at least 16"):
        calibration_of(Task(rows), 16)
