from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from tests.fakes import FakeModel, signature_of

from servable.core.errors import invalid_argument
from servable.core.tensors import BOOL, FLOAT32, INT64, STRING, Array
from servable.lifecycle.warmup import SignatureProfile, WarmupOptions, invent_inputs, warm_up

OPTIONS = WarmupOptions(batch_rows=8)


def profile(model: FakeModel) -> SignatureProfile:
    return warm_up(model, OPTIONS)["serving_default"]


@pytest.mark.rule("warmup-5")
def test_a_rowwise_model_is_proven_and_measured() -> None:
    found = profile(FakeModel())
    assert found.rowwise
    assert [rows for rows, _ in found.costs] == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (lambda x: {"y": x - x.mean()}, "depends on"),
        (lambda x: {"y": np.cumsum(x).astype(np.float32)}, "depends on the order"),
        (lambda x: {"y": np.full_like(x, x.max())}, "depends on"),
        (lambda x: {"y": x[:1]}, "no row for each"),
        (lambda x: {"y": np.zeros_like(x)}, "proves nothing"),
        (lambda x: {"y": np.tile(x[:, None], len(x))}, "shape of output"),
    ],
)
def test_rows_that_are_not_shown_to_be_independent_are_never_merged(compute: object, words: str) -> None:
    assert callable(compute)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        found: dict[str, Array] = compute(inputs["x"])
        return found

    found = profile(FakeModel(run))
    assert not found.rowwise
    assert words in found.reason
    assert found.costs == ()


TEXT = signature_of(inputs={"x": (STRING, (None,))}, outputs={"y": (FLOAT32, (None,))})


def lengths(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": np.array([len(text) for text in inputs["x"]], np.float32)}


def test_a_model_that_tells_texts_apart_is_proven_with_words() -> None:
    found = profile(FakeModel(lengths, [TEXT]))
    assert found.rowwise
    assert [rows for rows, _ in found.costs] == [1, 2, 4, 8]
    dependent = profile(FakeModel(lambda inputs: {"y": lengths(inputs)["y"] - lengths(inputs)["y"].max()}, [TEXT]))
    assert not dependent.rowwise
    assert "depends on" in dependent.reason


def test_strings_that_may_be_no_texts_prove_nothing() -> None:
    def parse(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if any(inputs["x"]):
            raise invalid_argument("no serialized message")
        return lengths(inputs)

    found = profile(FakeModel(parse, [TEXT]))
    assert not found.rowwise
    assert "proves nothing" in found.reason


def test_a_fixed_first_dimension_is_not_merged() -> None:
    model = FakeModel(signatures=[signature_of(inputs={"x": (FLOAT32, (1, 3))}, outputs={"y": (FLOAT32, (1, 3))})])
    found = profile(model)
    assert not found.rowwise
    assert model.batches == [1]


def test_a_model_that_refuses_invented_data_still_loads() -> None:
    found = profile(FakeModel(refuse_above=-1e9))
    assert not found.rowwise
    assert "does not take invented data" in found.reason


def test_other_free_dimensions_are_tried_until_one_fits() -> None:
    def only_one_column(inputs: Mapping[str, Array]) -> dict[str, Array]:
        from servable.core.errors import invalid_argument

        if inputs["x"].shape[1] != 1:
            raise invalid_argument("one column, please")
        return {"y": inputs["x"][:, 0]}

    model = FakeModel(
        only_one_column, [signature_of(inputs={"x": (FLOAT32, (None, None))}, outputs={"y": (FLOAT32, (None,))})]
    )
    assert profile(model).rowwise


@pytest.mark.rule("warmup-2")
def test_warm_up_can_be_off() -> None:
    model = FakeModel()
    assert not warm_up(model, WarmupOptions(enabled=False))["serving_default"].rowwise
    assert model.batches == []


def test_measuring_stops_at_the_budget() -> None:
    ticks = iter(range(10_000))
    found = warm_up(FakeModel(), WarmupOptions(batch_rows=1024, budget_s=20.0), lambda: float(next(ticks)))
    assert [rows for rows, _ in found["serving_default"].costs] == [1, 2]


def test_invented_inputs_fit_the_signature() -> None:
    signature = signature_of(
        inputs={"a": (INT64, (None, 3)), "b": (BOOL, (None,)), "c": (STRING, (None, None)), "d": (FLOAT32, None)}
    )
    inputs = invent_inputs(signature, rows=4, free_size=2)
    assert {name: array.shape for name, array in inputs.items()} == {"a": (4, 3), "b": (4,), "c": (4, 2), "d": (4,)}
    assert set(np.unique(inputs["a"])) <= {0, 1}
    assert inputs["c"].dtype == object
    assert len(np.unique(inputs["d"])) == 4


def test_rows_within_a_limit() -> None:
    found = SignatureProfile(rowwise=True, reason="", costs=((1, 0.1), (2, 0.2), (4, 0.4)))
    assert [found.rows_within(limit) for limit in (0.05, 0.1, 0.3, 1.0)] == [0, 1, 2, 4]
