"""A matrix as a product of two thin ones, by its singular values. Pure numpy."""

from __future__ import annotations

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.tensors import Array

LEAST_SAVING = 0.1
"""Two layers take longer than one of as many weights: a split must save at least this share of them."""


def split(matrix: Array, energy: float) -> tuple[Array, Array] | None:
    """Return ``left`` [m, r] and ``right`` [r, n] whose product keeps that share of the matrix's squares.

    ``r`` is the least that does. ``None`` if the two would not save a tenth of the weights.
    """
    if not 0 < energy < 1:
        raise invalid_argument(f"the energy to keep is above 0 and below 1, not {energy:g}")
    rows, columns = matrix.shape
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    squares = np.cumsum(values**2)
    if not squares[-1] > 0:
        return None
    rank = int(np.searchsorted(squares, energy * squares[-1])) + 1
    if rank * (rows + columns) > (1 - LEAST_SAVING) * rows * columns:
        return None
    # Both get the root of the scale: that is kinder to 16 and 8 bits, and to a training, than all in one.
    root = np.sqrt(values[:rank])
    return (left[:, :rank] * root).astype(np.float32), (root[:, np.newaxis] * right[:rank]).astype(np.float32)
