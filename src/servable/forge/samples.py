"""Inputs to compare, calibrate and measure with: from files, or made up from a signature and said to be so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import numpy as np

from servable.core.errors import ServingError, invalid_argument
from servable.core.signatures import Signature
from servable.core.tensors import Array
from servable.engines.base import Model
from servable.forge.arrays import Tensors
from servable.lab.sources import read_samples
from servable.lab.synthesis import Wanted, synthesise

FREE_SIZE = 8
"""Size of free dimensions beside the first, where nobody says one."""
MOST_ROWS = 4096
WIDEST: Final = 100
"""Below this are the integers that are made up first."""
_BELOW: Final = (10, 2, 1)
"""Bounds to try in turn where a model refuses those: it looks something up in a table that is smaller."""

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""Input -> (lowest, below)."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows of inputs. ``origin`` says for people where they come from; ``made_up`` that nobody measured them.

    ``labels`` are the right classes, one a row, if the file has them.
    """

    rows: Tensors
    origin: str
    made_up: bool = False
    labels: Array | None = field(default=None, compare=False)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return next((len(array) for array in self.rows.values()), 0)

    def batch(self, size: int, start: int = 0) -> dict[str, Array]:
        """Return ``size`` rows from ``start`` on; begins again where there are too few."""
        index = np.arange(start, start + size) % max(1, len(self))
        return {name: array[index] for name, array in self.rows.items()}

    def batches(self, size: int, most: int | None = None) -> list[dict[str, Array]]:
        """Return all rows in batches of ``size``, what is left over in a last smaller one."""
        count = len(self) if most is None else min(len(self), most)
        return [
            {name: array[at : min(at + size, count)] for name, array in self.rows.items()}
            for at in range(0, count, size)
        ]


def made_up(
    signature: Signature,
    rows: int,
    *,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    free_size: int = FREE_SIZE,
) -> Samples:
    """Return seeded rows of the types and shapes of a signature; ``shapes`` are of one row, for free dimensions."""
    wanted = Wanted(batch=rows, samples=1, seed=seed, shapes=shapes or {}, ranges=ranges or {}, free_size=free_size)
    (sample,) = synthesise(signature, wanted)
    return Samples(sample.inputs, "made up from the signature", made_up=True)


def made_up_for(model: Model, signature: Signature, rows: int) -> Samples:
    """Return made-up rows that the model takes: the integers may have to be small, which ``origin`` then says.

    What it refuses in any size is returned as it is: to ask it is to hear why.
    """

    def refusal(samples: Samples) -> ServingError | None:
        try:
            model.run(signature.name, dict(samples.rows), list(signature.outputs))
        except ServingError as error:
            return error
        return None

    return fitting(signature, lambda ranges: _limited(signature, rows, ranges), refusal)


def smallest(signature: Signature, rows: int) -> Samples:
    """Return made-up rows whose integers are 0 and 1, which hardly a model refuses."""
    return _limited(signature, rows, dict.fromkeys(_integers(signature), (0, 2)))


def _limited(signature: Signature, rows: int, ranges: Ranges) -> Samples:
    samples = made_up(signature, rows, ranges=ranges)
    return replace(samples, origin=samples.origin + told_limits(ranges))


def _integers(signature: Signature) -> list[str]:
    return [name for name, spec in signature.inputs.items() if spec.dtype.numpy.kind in "iu"]


def told_limits(ranges: Ranges) -> str:
    """Return what to say of integers that had to be small, "" of none."""
    limits = sorted({f"{name} below {high:g}" for name, (_, high) in ranges.items() if high != WIDEST})
    return f" ({', '.join(limits)}: the model refuses more)" if limits else ""


def fitting(signature: Signature, make: Callable[[Ranges], T], refusal: Callable[[T], ServingError | None]) -> T:
    """Return made-up inputs that a model does not refuse: integers as large as it takes, one input at a time.

    Nothing is asked of a model without integers. Where nothing helps, the first inputs are returned.
    """
    inputs = make({})
    integers = _integers(signature)
    if not integers or refusal(inputs) is None:
        return inputs
    for below in _BELOW:
        ranges: dict[str, tuple[float, float]] = dict.fromkeys(integers, (0, below))
        if refusal(make(ranges)) is None:
            for name in integers:
                wider = {**ranges, name: (0.0, float(WIDEST))}
                ranges = wider if refusal(make(wider)) is None else ranges
            return make(ranges)
    return inputs


def from_file(path: Path, signature: Signature, most: int = MOST_ROWS, labels: str = "labels") -> Samples:
    """Return the rows of an ``.npz``, ``.npy``, JSON file, folder of images or request log.

    An array ``labels`` of an ``.npz``, where no input is called so, is taken for the right classes. INVALID_ARGUMENT
    says what is wrong in which file.
    """
    right: Array | None = None
    if path.suffix == ".npz" and labels not in signature.inputs:
        arrays, right = _apart(path, labels)
        unknown = set(arrays) - set(signature.inputs)
        if unknown:
            raise invalid_argument(
                f"{path} has {min(unknown)!r}, which is no input: there are {', '.join(map(repr, signature.inputs))}"
            )
        lacking = set(signature.inputs) - set(arrays) - set(signature.defaults)
        if lacking:
            raise invalid_argument(f"{path} lacks the input {min(lacking)!r} ({signature})")
        rows = {name: array[:most] for name, array in arrays.items()}
    else:
        found = read_samples(path, signature, 1, most)
        rows = {name: np.concatenate([one.inputs[name] for one in found]) for name in found[0].inputs}
    sizes = {len(array) if array.ndim else -1 for array in rows.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise invalid_argument(f"{path}: its arrays do not have the same number of rows")
    if right is not None:
        right = right[:most]
        if len(right) != sizes.pop():
            raise invalid_argument(f"{path}: it has {len(right)} labels for another number of rows")
    return Samples(rows, str(path), labels=right)


def _apart(path: Path, labels: str) -> tuple[dict[str, Array], Array | None]:
    from servable.lab.sources import read_arrays

    arrays = read_arrays(path)
    right = arrays.pop(labels, None)
    if right is None:
        return arrays, None
    if right.ndim == 2 and right.shape[1] == 1:
        right = right[:, 0]
    if right.ndim != 1:
        raise invalid_argument(f"{path}: labels are one number a row, not an array of shape {list(right.shape)}")
    return arrays, right


def agreement(left: Array, right: Array) -> float | None:
    """Return the share of rows whose largest score is at the same place; ``None`` where there are no scores."""
    chosen = [top(left), top(right)]
    if chosen[0] is None or chosen[1] is None or not len(chosen[0]):
        return None
    return float(np.mean(chosen[0] == chosen[1]))


def top(scores: Array) -> Array | None:
    """Return each row's class: the place of its largest score; ``None`` for what is no table of scores."""
    if scores.ndim < 2 or scores.shape[-1] < 2 or scores.dtype.kind not in "fV":
        return None
    return np.asarray(np.argmax(scores.astype(np.float64), axis=-1)).reshape(-1)


def accuracy(outputs: Sequence[Array], labels: Array) -> float | None:
    """Return the share of rows whose class is the label, of batches in order. One column is a probability of 1."""
    scores = np.concatenate(list(outputs))
    if scores.ndim == 2 and scores.shape[1] == 1:
        found: Array | None = (scores[:, 0] >= 0.5).astype(np.int64)
    else:
        found = scores.reshape(-1) if scores.ndim == 1 and scores.dtype.kind in "iu" else top(scores)
    if found is None or len(found) != len(labels):
        return None
    return float(np.mean(found == labels))
