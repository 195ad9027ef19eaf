"""Any number of rows for a model that was made for a fixed one: blocks of that number, the last filled with zeros.

Only where a ``servable.toml`` says that the first dimension is free, because only its author knows that the rows of the
model are computed each by itself. It must say so of every output, and of every input that has rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.tensors import Array
from servable.engines.fitting import Fitted


@dataclass(frozen=True, slots=True)
class RowBlocks:
    """``rows`` is the number that the model takes; ``inputs`` are those that have rows. Others go with every block."""

    rows: int
    inputs: frozenset[str]

    def split(self, inputs: Mapping[str, Array], rows: int) -> Iterator[Mapping[str, Array]]:
        """Yield the inputs of each block; one for no rows at all, which shows the shapes of the outputs."""
        if rows == self.rows:
            yield inputs
            return
        for begin in range(0, max(rows, 1), self.rows):
            yield {name: self._block(array, begin) if name in self.inputs else array for name, array in inputs.items()}

    def _block(self, array: Array, begin: int) -> Array:
        block = array[begin : begin + self.rows]
        if len(block) == self.rows:
            return block
        shape = (self.rows, *array.shape[1:])
        filled = np.full(shape, b"", dtype=object) if array.dtype.hasobject else np.zeros(shape, array.dtype)
        filled[: len(block)] = block
        return filled

    def join(self, parts: Sequence[Array], rows: int) -> Array:
        """Return one output of all blocks without the rows that filled them up."""
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return whole if len(whole) == rows else whole[:rows]


def blocks_of(fit: Fitted) -> RowBlocks | None:
    """Return how to cut the rows of a signature, ``None`` if its model takes what the signature says.

    FAILED_PRECONDITION if it frees the rows of some tensors and not of others, or of different numbers.
    """
    freed = {
        name: size
        for name, own in fit.inputs.items()
        if (size := _fixed_rows(fit.signature.inputs[name].shape, fit.own.inputs[own].shape)) is not None
    }
    given = {
        name: _fixed_rows(fit.signature.outputs[name].shape, fit.own.outputs[own].shape)
        for name, own in fit.outputs.items()
    }
    if not freed and not any(given.values()):
        return None
    sizes = {*freed.values(), *given.values()}
    if len(sizes) != 1 or 0 in sizes or not freed:
        raise failed_precondition(
            f"signature {fit.signature.name!r} frees the first dimension of "
            f"{', '.join([*freed, *(name for name, size in given.items() if size)])}; to take any number of rows it "
            "must free that of every output and of every input with rows, which must all be the same in the model: "
            f"{fit.own}"
        )
    rows = next(iter(freed.values()))
    return RowBlocks(rows, frozenset(freed))


def _fixed_rows(stated: tuple[int | None, ...] | None, own: tuple[int | None, ...] | None) -> int | None:
    """Return the number of rows that the model fixes where the signature frees it."""
    return own[0] if stated and own and stated[0] is None else None
