"""Rows to calibrate with: in the batches that a model takes, and enough of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.tensors import Array
from servable.forge.arrays import Tensors
from servable.forge.steps import Task

CALIBRATE: Final = 128
"""Rows that ranges are taken from, if there are so many and nobody says another number."""
LEAST: Final = 8
ROWS_AT_ONCE: Final = 8


def calibration_of(task: Task, fixed: int | None, size: int = ROWS_AT_ONCE) -> list[dict[str, Array]]:
    """Return the rows to calibrate with, in batches of ``size`` or of the size that the model fixes.

    INVALID_ARGUMENT if there are too few.
    """
    rows = task.samples[: rows_wanted(task)]
    needed = max(LEAST, fixed or 0)
    if len(rows) < needed:
        raise invalid_argument(f"{len(rows)} rows are too few to calibrate with: at least {needed} are needed")
    return regrouped(rows, fixed or size, whole=fixed is not None)


def rows_wanted(task: Task) -> int:
    """Return how many rows a step calibrates with, if there are so many."""
    return int(task.options.get("calibrate") or CALIBRATE)


def regrouped(samples: Sequence[Tensors], size: int, *, whole: bool = False) -> list[dict[str, Array]]:
    """Return rows that came one by one in batches of ``size``; with ``whole`` what is left over is left out."""
    count = len(samples) - len(samples) % size if whole else len(samples)
    return [
        {name: np.concatenate([one[name] for one in samples[at : min(at + size, count)]]) for name in samples[at]}
        for at in range(0, count, size)
    ]


def notes_of(task: Task) -> list[str]:
    """Return what people must know of the rows: that they were made up."""
    if not task.options.get("made_up"):
        return []
    return [
        (
            "IT WAS CALIBRATED WITH INPUTS MADE UP FROM THE SIGNATURE: its ranges, and so its accuracy, are those of "
            "no real input; calibrate with real ones (--data)"
        )
    ]
