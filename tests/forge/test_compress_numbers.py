"""The decisions of compression, in numpy: which weights go, which values are shared, how far a matrix splits."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.forge.compression import codebook, coding, factors, magnitude

RNG = np.random.default_rng(1)


class TestMagnitude:
    def test_the_smallest_of_all_layers_go(self) -> None:
        kernels = {"small": np.array([[0.1, -0.2]]), "large": np.array([[3.0, -0.15, 4.0, 5.0]])}
        masks = magnitude.smallest_masked(kernels, 0.5)
        np.testing.assert_array_equal(masks["small"], [[0, 0]])
        np.testing.assert_array_equal(masks["large"], [[1, 0, 1, 1]])

    @pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.99])
    def test_exactly_the_share_that_was_asked_goes_even_of_equals(self, sparsity: float) -> None:
        masks = magnitude.smallest_masked({"a": np.ones((10, 10)), "b": RNG.standard_normal((10, 10))}, sparsity)
        assert sum(int((mask == 0).sum()) for mask in masks.values()) == int(200 * sparsity)

    @pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan")])
    def test_no_share_is_refused(self, sparsity: float) -> None:
        with pytest.raises(ServingError, match="from 0 to below 1") as caught:
            magnitude.smallest_masked({"a": np.ones((2, 2))}, sparsity)
        assert caught.value.code is Code.INVALID_ARGUMENT

    def test_the_ramp_ends_where_it_should_and_never_falls(self) -> None:
        steps = [magnitude.ramp(0.8, done) for done in np.linspace(0, 1.2, 30)]
        assert steps[0] == 0
        assert magnitude.ramp(0.8, 0.3) > 0.5, "most go while there is still much to learn"
        assert steps[-1] == pytest.approx(0.8)
        assert all(later >= earlier for earlier, later in itertools.pairwise(steps))

    def test_the_strongest_channels_stay_in_order_and_one_at_least(self) -> None:
        importance = np.array([3.0, 1.0, 5.0, 2.0])
        np.testing.assert_array_equal(magnitude.strongest(importance, 0.5), [0, 2])
        np.testing.assert_array_equal(magnitude.strongest(importance, 0.99), [2])


class TestCodebook:
    def test_every_weight_gets_the_nearest_value_and_every_value_is_the_mean_of_its_weights(self) -> None:
        weights = RNG.standard_normal((40, 50)).astype(np.float32)
        book, indices = codebook.share_values(weights, 16)
        assert book.dtype == np.float32
        assert indices.dtype == np.uint8
        assert indices.shape == weights.shape
        assert len(book) == 16
        gaps = np.abs(weights[..., np.newaxis] - book)
        np.testing.assert_array_equal(gaps.argmin(axis=-1), indices)
        # A round more would move a value by next to nothing.
        means = [weights[indices == index].mean() for index in range(16)]
        np.testing.assert_allclose(book, means, atol=0.01)

    def test_more_values_are_nearer(self) -> None:
        weights = RNG.standard_normal(3000).astype(np.float32)
        errors = []
        for clusters in (2, 4, 16, 256):
            book, indices = codebook.share_values(weights, clusters)
            errors.append(float(np.square(book[indices] - weights).mean()))
        assert errors == sorted(errors, reverse=True)
        assert errors[2] < 0.02, "sixteen values of a normal distribution: 0.0095 at best"
        assert errors[3] < 4e-4

    def test_few_distinct_weights_are_kept_as_they_are(self) -> None:
        weights = np.array([1.5, -2.0, 1.5, 7.0], np.float32)
        book, indices = codebook.share_values(weights, 16)
        np.testing.assert_array_equal(book[indices], weights)

    def test_pruned_weights_stay_zero(self) -> None:
        weights = RNG.standard_normal(1000).astype(np.float32)
        weights[::2] = 0
        book, indices = codebook.share_values(weights, 8)
        assert len(book) <= 8
        np.testing.assert_array_equal(book[indices][::2], 0)

    @pytest.mark.parametrize("clusters", [1, 257])
    def test_an_index_is_a_byte(self, clusters: int) -> None:
        with pytest.raises(ServingError, match="2 to 256"):
            codebook.share_values(np.ones(4), clusters)


class TestFactors:
    def test_a_matrix_of_low_rank_is_found_out(self) -> None:
        matrix = RNG.standard_normal((40, 3)) @ RNG.standard_normal((3, 60))
        found = factors.split(matrix, 0.9999)
        assert found is not None
        left, right = found
        assert left.shape == (40, 3)
        np.testing.assert_allclose(left @ right, matrix, atol=1e-4)

    def test_the_energy_that_was_asked_is_kept_and_one_rank_less_would_not_do(self) -> None:
        matrix = RNG.standard_normal((60, 80)) * (1.0 / np.arange(1, 81))
        found = factors.split(matrix, 0.9)
        assert found is not None
        left, right = found
        total = np.square(matrix).sum()
        assert 1 - np.square(matrix - left @ right).sum() / total >= 0.9
        values = np.linalg.svd(matrix, compute_uv=False)
        assert np.square(values[: left.shape[1] - 1]).sum() / total < 0.9

    def test_what_would_not_save_weights_stays_whole(self) -> None:
        assert factors.split(RNG.standard_normal((50, 50)), 0.95) is None
        assert factors.split(np.zeros((5, 5)), 0.9) is None


class TestCoding:
    def test_code_lengths_are_huffmans(self) -> None:
        np.testing.assert_array_equal(coding.code_lengths(np.array([1, 1, 2, 4])), [3, 3, 2, 1])
        np.testing.assert_array_equal(coding.code_lengths(np.array([9])), [1])

    def test_lengths_fill_the_tree_and_lie_within_a_bit_of_the_entropy(self) -> None:
        counts = RNG.integers(1, 1000, 50)
        lengths = coding.code_lengths(counts)
        assert np.ldexp(1.0, -lengths).sum() == 1
        shares = counts / counts.sum()
        entropy = -(shares * np.log2(shares)).sum()
        assert entropy <= (shares * lengths).sum() < entropy + 1

    def test_what_repeats_is_small_and_what_does_not_is_no_larger_than_raw(self) -> None:
        zeros = np.zeros(8000, np.float32)
        assert coding.huffman_bytes([zeros]) <= 1000 + 5
        noise = RNG.standard_normal(1000).astype(np.float32)
        assert coding.huffman_bytes([noise]) == noise.nbytes
        pruned = np.concatenate([zeros, noise])
        assert coding.huffman_bytes([pruned]) <= 9000 // 8 + noise.nbytes + 10
        assert coding.huffman_bytes([np.arange(8000, dtype=np.uint8) % 2]) == 1000 + 2 * 2, "two codes in the table"
        indices = RNG.integers(16, size=8000).astype(np.uint8)
        assert coding.huffman_bytes([indices]) == pytest.approx(4000, rel=0.05)

    def test_gzip_is_gzip(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"again and " * 1000)
        assert coding.gzipped_bytes(path) == len(gzip.compress(path.read_bytes(), 6, mtime=0)) < 200
        assert coding.gzipped_bytes(tmp_path) == coding.gzipped_bytes(path)
