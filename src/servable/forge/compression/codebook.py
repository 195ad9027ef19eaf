"""Weights that share a few values: k-means in one dimension, which sorting makes exact and fast. Pure numpy."""

from __future__ import annotations

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.tensors import Array

MOST_VALUES = 256
"""An index is a byte."""
_ROUNDS = 60
_MANY_ZEROS = 0.1
"""From this share of zeros on, zero stays zero: the weights were pruned before."""


def share_values(weights: Array, clusters: int) -> tuple[Array, Array]:
    """Return a codebook float32 [k], ascending, and indices uint8 of the weights' shape. ``k`` is at most ``clusters``.

    Each weight goes to the nearest value, each value is the mean of its weights. Zero is one of the values if many
    weights are zero.
    """
    if not 2 <= clusters <= MOST_VALUES:
        raise invalid_argument(f"there are 2 to {MOST_VALUES} clusters, not {clusters}")
    flat = weights.reshape(-1).astype(np.float64)
    zeros = flat == 0
    pruned = bool(zeros.mean() >= _MANY_ZEROS)
    values = _means(np.sort(flat[~zeros] if pruned else flat), clusters - 1 if pruned else clusters)
    if pruned:
        values = np.unique(np.append(values, 0.0))
    book = np.unique(values.astype(np.float32))
    indices = _nearest(flat, book)
    return book, indices.astype(np.uint8).reshape(weights.shape)


def _means(ordered: Array, clusters: int) -> Array:
    """Return the means of k-means over sorted values, begun at even distances over what is not extreme."""
    distinct: Array = np.unique(ordered)
    if distinct.size <= clusters:
        return distinct
    low, high = np.quantile(ordered, 0.005), np.quantile(ordered, 0.995)
    means: Array = np.linspace(float(low), float(high), clusters)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(_ROUNDS):
        borders = np.searchsorted(ordered, (means[1:] + means[:-1]) / 2)
        edges = np.concatenate([[0], borders, [ordered.size]])
        counts = np.diff(edges)
        moved = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), means)
        if np.array_equal(moved, means):
            break
        means = np.sort(moved)
    return means


def _nearest(flat: Array, book: Array) -> Array:
    borders = (book[1:].astype(np.float64) + book[:-1]) / 2
    found: Array = np.searchsorted(borders, flat)
    return found
