from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import FakeModel

from servable.core.errors import Code, ServingError
from servable.core.tensors import ALL_DTYPES, FLOAT32, STRING, Array, DType
from servable.serving.execution import join_rows, run_batch


@dataclass
class Item:
    inputs: Mapping[str, Array]
    rows: int
    signature: str = "serving_default"
    outputs: tuple[str, ...] = field(default=("y",))


def item(*values: float) -> Item:
    return Item({"x": np.array(values, np.float32)}, len(values))


@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=5), min_size=1, max_size=8))
def test_each_item_gets_its_own_rows(requests: list[list[float]]) -> None:
    model = FakeModel()
    outcomes = run_batch(model, [item(*values) for values in requests])
    assert len(model.batches) == 1
    for values, outcome in zip(requests, outcomes, strict=True):
        assert isinstance(outcome, dict)
        np.testing.assert_allclose(outcome["y"], np.array(values, np.float32) * 0.5 + 2, rtol=1e-6)


def test_one_bad_row_fails_alone() -> None:
    model = FakeModel(refuse_above=100)
    outcomes = run_batch(model, [item(1), item(1000), item(3)])
    assert isinstance(outcomes[1], ServingError)
    assert outcomes[1].code is Code.INVALID_ARGUMENT
    assert [outcome["y"].tolist() for outcome in outcomes if isinstance(outcome, dict)] == [[2.5], [3.5]]


def test_an_exception_of_the_engine_is_internal_and_says_no_more() -> None:
    def explode(_: Mapping[str, Array]) -> dict[str, Array]:
        raise RuntimeError("secret path")

    outcomes = run_batch(FakeModel(explode), [item(1), item(2)])
    for outcome in outcomes:
        assert isinstance(outcome, ServingError)
        assert outcome.code is Code.INTERNAL
        assert "secret" not in outcome.message


@pytest.mark.rule("batch-15")
def test_outputs_without_a_row_for_each_input_are_computed_alone() -> None:
    model = FakeModel(lambda inputs: {"y": inputs["x"].sum(keepdims=True)})
    outcomes = run_batch(model, [item(1, 2), item(3)])
    assert [outcome["y"].tolist() for outcome in outcomes if isinstance(outcome, dict)] == [[3.0], [3.0]]


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_join_rows_keeps_every_dtype(dtype: DType) -> None:
    arrays: list[Any]
    if dtype is STRING:
        arrays = [np.array([[b"a", b""]], object), np.array([[b"\xff", b"d"], [b"e", b"f"]], object)]
    else:
        arrays = [np.array([[1, 0]]).astype(dtype.numpy), np.array([[1, 1], [0, 1]]).astype(dtype.numpy)]
    joined = join_rows(arrays)
    assert joined.dtype == dtype.numpy
    assert joined.shape == (3, 2)
    np.testing.assert_array_equal(joined, np.concatenate(arrays))


def test_join_rows_takes_views_that_are_not_contiguous() -> None:
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(
        join_rows([base[:, ::2], base[:, 1::2]]), np.concatenate([base[:, ::2], base[:, 1::2]])
    )
    assert join_rows([np.ones((1, 2), ml_dtypes.bfloat16)] * 2).shape == (2, 2)
    assert FLOAT32.itemsize == 4
