"""Models whose inputs and outputs are integers: what these stand for, and rows that make a converter see it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.signatures import Scale, Signature
from servable.core.tensors import Array
from servable.forge.arrays import Tensors

FLOATS: Final = "float32"
TYPES: Final = (FLOATS, "uint8", "int8")
"""What inputs and outputs of a TFLite file in int8 may be."""


def integers_asked(io: str, stats: Sequence[float] | None) -> tuple[str, Scale | None]:
    """Return the type that goes in and comes out, and what integers that go in stand for if ``stats`` say it.

    ``stats`` are mean and standard deviation: an input ``q`` stands for ``(q - mean) / std``. INVALID_ARGUMENT.
    """
    if io not in TYPES:
        raise invalid_argument(f"--io is one of {', '.join(TYPES)}, not {io}")
    if stats is None:
        return io, None
    if io == FLOATS:
        raise invalid_argument(f"--input-stats say what integers stand for: with --io {' or '.join(TYPES[1:])}")
    limits = np.iinfo(io)
    mean, std = stats if len(stats) == 2 else (math.nan, math.nan)
    if not float(mean).is_integer() or not 0 < std < math.inf:
        raise invalid_argument("--input-stats is MEAN,STD: an integer, and a number above 0; q is (q - MEAN) / STD")
    if not limits.min <= mean <= limits.max:
        raise invalid_argument(f"--input-stats {mean:g},{std:g}: a mean of {io} is from {limits.min} to {limits.max}")
    return io, Scale(1 / std, int(mean))


def showing_ends(rows: Sequence[Tensors], signature: Signature, io: str, scale: Scale) -> list[dict[str, Array]]:
    """Return the rows, and two batches more that have the lowest and the highest number that integers stand for.

    A converter takes the range of an input from what it sees. What is beyond by less than a step, as 1 where integers
    stand for -1 to 0.992, is cut off. INVALID_ARGUMENT if rows go further.
    """
    limits = np.iinfo(io)
    low, high = scale.numbers(np.array([limits.min, limits.max]))
    floats = [name for name, spec in signature.inputs.items() if spec.dtype.numpy.kind == "f"]
    for name in floats:
        least, most = min(batch[name].min() for batch in rows), max(batch[name].max() for batch in rows)
        if least < low - scale.step or most > high + scale.step:
            raise invalid_argument(
                f"--input-stats {scale.zero},{1 / scale.step:g}: {io} then stands for {low:.4g} to {high:.4g}, but "
                f"{name} has {least:.4g} to {most:.4g}"
            )
    cut = [
        {name: np.clip(array, low, high) if name in floats else array for name, array in batch.items()}
        for batch in rows
    ]
    for end in (low, high):
        shown = {name: array.copy() for name, array in cut[0].items()}
        for name in floats:
            shown[name].reshape(-1)[:1] = end
        cut.append(shown)
    return cut


def same(found: Scale, asked: Scale) -> bool:
    """Return whether both scales are the same, but for rounding to float32."""
    return found.zero == asked.zero and math.isclose(found.step, asked.step, rel_tol=1e-4)
