"""Rows to compare, calibrate and measure with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from servable.core.errors import ServingError, invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, INT32
from servable.forge import arrays
from servable.forge.samples import Ranges, fitting, from_file, made_up, smallest, told_limits

SIGNATURE = Signature(
    "serving_default",
    {"ids": TensorSpec("ids", INT32, (None, None)), "x": TensorSpec("x", FLOAT32, (None, 2))},
    {"y": TensorSpec("y", FLOAT32, (None, 2))},
)
ROWS = {"ids": np.arange(12, dtype=np.int32).reshape(4, 3), "x": np.ones((4, 2), np.float32)}


def test_made_up_rows_are_seeded_and_fit_the_signature() -> None:
    one, same, other = (made_up(SIGNATURE, 5, seed=seed) for seed in (1, 1, 2))
    assert len(one) == 5
    assert one.made_up
    assert one.rows["ids"].dtype == np.int32
    assert one.rows["ids"].shape == (5, 8)
    assert np.array_equal(one.rows["x"], same.rows["x"])
    assert not np.array_equal(one.rows["x"], other.rows["x"])
    assert made_up(SIGNATURE, 2, shapes={"ids": (4,)}).rows["ids"].shape == (2, 4)


@pytest.mark.parametrize(
    ("tables", "ranges"),
    [
        ({"ids": 100, "codes": 100}, {}),
        ({"ids": 50, "codes": 100}, {"ids": (0, 10), "codes": (0.0, 100.0)}),
        ({"ids": 5, "codes": 100}, {"ids": (0, 2), "codes": (0.0, 100.0)}),
        ({"ids": 5, "codes": 2}, {"ids": (0, 2), "codes": (0, 2)}),
        ({"ids": 0, "codes": 100}, {}),  # nothing helps
    ],
)
def test_integers_are_as_large_as_the_model_takes(tables: dict[str, int], ranges: Ranges) -> None:
    signature = Signature("s", {name: TensorSpec(name, INT32, (None,)) for name in tables}, {})

    def refusal(made: Ranges) -> ServingError | None:
        beyond = [name for name, size in tables.items() if made.get(name, (0, 100))[1] > size]
        return invalid_argument(f"{beyond} beyond their tables") if beyond else None

    assert fitting(signature, lambda made: made, refusal) == ranges


def test_a_model_without_integers_is_not_asked() -> None:
    signature = Signature("s", {"x": SIGNATURE.inputs["x"]}, {})

    def asked(made: Ranges) -> ServingError | None:
        pytest.fail(f"asked about {made}")

    assert fitting(signature, lambda made: made, asked) == {}


def test_small_integers_are_told() -> None:
    assert told_limits({"ids": (0, 2), "codes": (0, 100)}) == " (ids below 2: the model refuses more)"
    assert told_limits({}) == ""
    small = smallest(SIGNATURE, 30)
    assert set(small.rows["ids"].reshape(-1)) == {0, 1}
    assert small.origin == "made up from the signature (ids below 2: the model refuses more)"


def test_rows_of_a_file_with_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", labels=np.array([0, 1, 1, 0]), **ROWS)  # type: ignore[arg-type]
    found = from_file(tmp_path / "data.npz", SIGNATURE, 3)
    assert len(found) == 3
    assert not found.made_up
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 1]
    assert [len(batch["x"]) for batch in found.batches(2)] == [2, 1]
    assert found.batch(5)["ids"][:, 0].tolist() == [0, 3, 6, 0, 3]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"ids": ROWS["ids"]}, "lacks the input 'x'"),
        ({**ROWS, "z": np.ones(4)}, "'z', which is no input"),
        ({**ROWS, "x": ROWS["x"][:2]}, "the same number of rows"),
        ({**ROWS, "labels": np.ones(3)}, "3 labels"),
        ({**ROWS, "labels": np.ones((4, 2))}, "one number a row"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, content: dict[str, np.ndarray], text: str) -> None:
    np.savez(tmp_path / "data.npz", **content)  # type: ignore[arg-type]
    with pytest.raises(ServingError, match=text):
        from_file(tmp_path / "data.npz", SIGNATURE)


def test_an_input_with_a_default_need_not_be_given(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", ids=ROWS["ids"])
    found = from_file(tmp_path / "data.npz", replace(SIGNATURE, defaults={"x": np.ones(2, np.float32)}))
    assert found.rows.keys() == {"ids"}


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"nothing\.npz"):
        from_file(tmp_path / "nothing.npz", SIGNATURE)


def test_arrays_survive_a_file(tmp_path: Path) -> None:
    words = np.array([[b"a\0", b""], ["é".encode(), b"long " * 99]], object)
    batches = [
        {"x": ROWS["x"][::2], "words": words, "half": np.ones(3, ml_dtypes.bfloat16), "scalar": np.array(3)},
        {"none": np.zeros((0, 4), np.int8), "no words": np.empty((0,), object), "a|b/c": np.array([True])},
    ]
    arrays.save(tmp_path / "all.npz", batches)
    loaded = arrays.load(tmp_path / "all.npz")
    assert len(loaded) == 2
    for before, after in zip(batches, loaded, strict=True):
        assert set(before) == set(after)
        for name, array in before.items():
            assert after[name].dtype == array.dtype
            assert after[name].shape == array.shape
            assert np.array_equal(after[name], array)
