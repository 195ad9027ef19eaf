"""Numbers of 8 bits, their scales, and whether this CPU adds up their products without overflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from servable.core.tensors import Array


def quantized(weights: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Return int8 numbers and the scales that give the weights back, one for all numbers along ``axes``."""
    largest = np.abs(weights).max(axis=axes, keepdims=True)
    scale = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    return np.clip(np.rint(weights / scale), -127, 127).astype(np.int8), scale


def has_vnni() -> bool:
    """Return whether the CPU adds products of 8 bits without overflow."""
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
