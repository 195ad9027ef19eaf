"""Which weights matter least, by size: masks over all kernels at once, and channels of one layer. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.tensors import Array

Kernels = Mapping[str, Array]


def smallest_masked(kernels: Kernels, sparsity: float) -> dict[str, Array]:
    """Return masks, 1 for what stays: the smallest of all weights together go, whatever layer they are in.

    Exactly ``sparsity`` of all weights are masked, rounded down; of equals the first go.
    """
    check_share(sparsity, "sparsity")
    names = list(kernels)
    sizes = np.concatenate([np.abs(kernels[name]).reshape(-1) for name in names])
    gone = int(sizes.size * sparsity)
    flat = np.ones(sizes.size, np.float32)
    if gone:
        flat[np.argsort(sizes, kind="stable")[:gone]] = 0
    masks = {}
    begin = 0
    for name in names:
        end = begin + kernels[name].size
        masks[name] = flat[begin:end].reshape(kernels[name].shape)
        begin = end
    return masks


def ramp(sparsity: float, done: float) -> float:
    """Return the sparsity after a share ``done`` of the training: it rises fast at first, and slowly to its end."""
    return sparsity * (1.0 - (1.0 - min(1.0, done)) ** 3)


def strongest(importance: Array, share: float) -> Array:
    """Return the indices, ascending, of the channels that stay when that share of them goes. One stays in any case."""
    check_share(share, "share of channels")
    gone = min(round(importance.size * share), importance.size - 1)
    kept: Array = np.sort(np.argsort(importance, kind="stable")[gone:])
    return kept


def sparsity_of(kernels: Kernels) -> float:
    """Return the share of weights that are zero."""
    total = sum(kernel.size for kernel in kernels.values())
    return 1.0 - sum(int(np.count_nonzero(kernel)) for kernel in kernels.values()) / total if total else 0.0


def check_share(value: float, what: str) -> None:
    """INVALID_ARGUMENT for what is no share of a whole."""
    if not 0 <= value < 1:
        raise invalid_argument(f"{what} is from 0 to below 1, not {value:g}")
