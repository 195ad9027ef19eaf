from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.preprocess import normalizers
from servable.preprocess.normalizers import Axes, Range, RangeFit, Standard, StandardFit


def data(*shape: int) -> Array:
    rng = np.random.default_rng(3)
    return rng.normal(rng.uniform(-1000, 1000, shape[-1]), rng.uniform(0.1, 50, shape[-1]), shape)


@pytest.mark.parametrize("axes", [0, None, (0, 1)])
def test_batches_of_any_size_give_what_all_data_give(axes: Axes) -> None:
    values = data(101, 7, 3)
    standard, limits = StandardFit(axes), RangeFit(axes)
    for batch in (values[:1], values[1:1], values[1:60], values[60:]):
        standard.add(batch)
        limits.add(batch)
    found = standard.result()
    np.testing.assert_allclose(found.mean, values.mean(axis=axes, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, values.std(axis=axes, keepdims=True), rtol=1e-9)
    np.testing.assert_array_equal(limits.result().low, values.min(axis=axes, keepdims=True))
    np.testing.assert_array_equal(limits.result().high, values.max(axis=axes, keepdims=True))


def test_a_small_deviation_far_from_zero_is_not_lost() -> None:
    values = 1e9 + np.random.default_rng(1).standard_normal((1000, 1))
    fit = StandardFit()
    for batch in np.split(values, 10):
        fit.add(batch)
    np.testing.assert_allclose(fit.result().deviation, values.std(axis=0, keepdims=True), rtol=1e-6)


def test_standard_data_have_mean_0_and_deviation_1_and_come_back() -> None:
    values = data(200, 4)
    standard = StandardFit().add(values).result()
    scaled = standard.apply(values)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-9)
    np.testing.assert_allclose(standard.invert(scaled), values, rtol=1e-9)
    assert standard.apply(values[:2]).shape == (2, 4), "a fit on 200 rows scales 2"


def test_a_range_is_mapped_to_its_target_and_back() -> None:
    values = data(50, 4)
    scaler = RangeFit().add(values).result((-1.0, 1.0))
    scaled = scaler.apply(values)
    np.testing.assert_allclose(scaled.min(axis=0), -1, atol=1e-12)
    np.testing.assert_allclose(scaled.max(axis=0), 1, atol=1e-12)
    np.testing.assert_allclose(scaler.invert(scaled), values, rtol=1e-9)


def test_what_lies_outside_is_clipped_only_if_asked() -> None:
    outside = np.array([[-5.0], [15.0]])
    ends = np.array([[0.0]]), np.array([[10.0]])
    assert Range(*ends).apply(outside).tolist() == [[0.0], [1.0]]
    assert Range(*ends, clip=False).apply(outside).tolist() == [[-0.5], [1.5]]
    assert Range(*ends, clip=False).invert(np.array([[-0.5], [1.5]])).tolist() == outside.tolist()


def test_a_feature_that_never_varies_does_no_harm() -> None:
    values = np.array([[1.0, 7.0], [3.0, 7.0]])
    for scaler in (StandardFit().add(values).result(), RangeFit().add(values).result()):
        scaled = scaler.apply(values)
        assert scaled[:, 1].tolist() == [0.0, 0.0]
        np.testing.assert_allclose(scaler.invert(scaled), values)


@pytest.mark.parametrize(("given", "kept"), [("uint8", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_results_are_floats(given: str, kept: str) -> None:
    values = np.array([[1], [200]], dtype=given)
    assert StandardFit().add(values).result().apply(values).dtype == kept
    assert RangeFit().add(values).result().apply(values).dtype == kept


def test_files_bring_back_the_same(tmp_path: Path) -> None:
    values = data(20, 3)
    for scaler in (StandardFit((0,)).add(values).result(), RangeFit(None).add(values).result((2.0, 3.0), clip=False)):
        scaler.save(tmp_path / "norm.npz")
        loaded = normalizers.load(tmp_path / "norm.npz")
        assert type(loaded) is type(scaler)
        np.testing.assert_array_equal(loaded.apply(2 * values), scaler.apply(2 * values))


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "norm.npz"
    with pytest.raises(ServingError, match=r"norm\.npz") as caught:
        normalizers.load(path)
    assert caught.value.code is Code.NOT_FOUND
    np.savez(path, other=np.zeros(1))
    with pytest.raises(ServingError, match="no saved normalizer"):
        normalizers.load(path)
    np.savez(path, mean=np.array([None]), deviation=np.zeros(1))
    with pytest.raises(ServingError, match="no saved normalizer") as caught:
        normalizers.load(path)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_fit_wants_finite_data_of_one_shape() -> None:
    fits: list[StandardFit | RangeFit] = [StandardFit(), RangeFit()]
    for fit in fits:
        with pytest.raises(ServingError, match="none was added") as caught:
            fit.result()
        assert caught.value.code is Code.FAILED_PRECONDITION
        with pytest.raises(ServingError, match="NaN or infinity"):
            fit.add(np.array([[1.0, np.nan]]))
        fit.add(np.ones((2, 3)))
        with pytest.raises(ServingError, match=r"shape \[1, 3\], this one \[1, 4\]"):
            fit.add(np.ones((2, 4)))
    with pytest.raises(ServingError, match="no width"):
        RangeFit().add(np.ones((2, 1))).result((1.0, 1.0))


def test_standard_is_made_from_known_factors_too() -> None:
    pixels = Standard(np.array([128.0]), np.array([64.0]))
    assert pixels.apply(np.array([[64, 192]], np.uint8)).tolist() == [[-1.0, 1.0]]
