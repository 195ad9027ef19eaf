from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.preprocess.labels import Labels

PETS = Labels(["cat", "dog", "Fisch", "鳥"])


def test_names_and_places_correspond() -> None:
    assert [PETS.index(name) for name in PETS.names] == [0, 1, 2, 3]
    assert len(PETS) == 4
    with pytest.raises(ServingError, match="no class is called 'Cat'; there are cat, dog"):
        PETS.index("Cat")


def test_names_become_targets_and_come_back() -> None:
    assert PETS.one_hot(["dog", "cat"]).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    several = [["cat", "鳥"], [], ["dog"]]
    encoded = PETS.multi_hot(several)
    assert encoded.dtype == np.float32
    assert PETS.names_above(encoded) == several


def test_the_best_classes_come_first() -> None:
    scores = np.array([[0.1, 0.6, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]], np.float32)
    names, values = PETS.top(scores, 3)
    assert names.tolist() == [[b"dog", b"Fisch", b"cat"], [b"cat", b"dog", b"Fisch"]]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.array([[0.6, 0.2, 0.1], [0.25, 0.25, 0.25]], np.float32))


def test_more_than_there_are_is_all_and_nan_is_last() -> None:
    names, values = PETS.top(np.array([[np.nan, -np.inf, 1, 2]]))
    assert names.tolist() == [["鳥".encode(), b"Fisch", b"dog", b"cat"]]
    assert np.isnan(values[0, -1])
    assert PETS.top(np.zeros((0, 4)))[0].shape == (0, 4)


def test_equal_scores_keep_their_order_among_many_classes() -> None:
    many = Labels([str(number) for number in range(300)])
    scores = np.tile(np.array([0.0, 1.0, 0.5], np.float32), 100)[np.newaxis]
    names, _ = many.top(scores, 100)
    assert [int(name) for name in names[0]] == list(range(1, 300, 3))


def test_unsigned_scores_are_ordered_too() -> None:
    assert PETS.top(np.array([[0, 200, 3, 255]], np.uint8), 2)[1].tolist() == [[255, 200]]


@pytest.mark.parametrize("scores", [np.zeros(4), np.zeros((1, 3)), np.zeros((1, 4, 1))])
def test_scores_of_another_shape_are_refused(scores: Array) -> None:
    with pytest.raises(ServingError, match=r"scores of shape \[n, 4\]"):
        PETS.top(scores)


def test_no_class_at_all_cannot_be_asked_for() -> None:
    with pytest.raises(ServingError, match="not 0"):
        PETS.top(np.zeros((1, 4)), 0)


@pytest.mark.parametrize(
    ("names", "part"), [([], "no labels"), (["a", "a"], "0 and 1 have the same name 'a'"), (["a", ""], "label 1 is ''")]
)
def test_names_must_tell_classes_apart(names: list[str], part: str) -> None:
    with pytest.raises(ServingError, match=part):
        Labels(names)


def test_a_file_brings_back_the_same(tmp_path: Path) -> None:
    PETS.save(tmp_path / "labels.txt")
    assert Labels.load(tmp_path / "labels.txt").names == PETS.names
    (tmp_path / "without_end.txt").write_text("a\nb c")
    assert Labels.load(tmp_path / "without_end.txt").names == ("a", "b c")


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"labels\.txt") as caught:
        Labels.load(tmp_path / "labels.txt")
    assert caught.value.code is Code.NOT_FOUND
    (tmp_path / "labels.txt").write_bytes(b"\xff")
    with pytest.raises(ServingError, match="not UTF-8") as caught:
        Labels.load(tmp_path / "labels.txt")
    assert caught.value.code is Code.INVALID_ARGUMENT
