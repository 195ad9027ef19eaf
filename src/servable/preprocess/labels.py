"""Names of classes: from scores to the best names, from names to the targets of training, from and to a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from servable.core.errors import invalid_argument, not_found
from servable.core.tensors import Array

TOP = 16
"""Classes that an answer names, unless asked otherwise."""


class Labels:
    """The names of a model's classes, in the order of its scores."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._index = {name: index for index, name in enumerate(self.names)}
        if not self.names:
            raise invalid_argument("there are no labels: a model has at least one class")
        for index, name in enumerate(self.names):
            if not name or "\n" in name:
                raise invalid_argument(f"label {index} is {name!r}; a label is one line of text")
            if self._index[name] != index:
                raise invalid_argument(f"labels {index} and {self._index[name]} have the same name {name!r}")

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the place of a class among the scores; INVALID_ARGUMENT if there is none of that name."""
        index = self._index.get(name)
        if index is None:
            known = ", ".join(self.names[:TOP]) + (", ..." if len(self) > TOP else "")
            raise invalid_argument(f"no class is called {name!r}; there are {known}")
        return index

    def one_hot(self, names: Iterable[str]) -> Array:
        """Return a row for each name, 1 in its class and 0 elsewhere: float32 [names, classes]."""
        return self.multi_hot([name] for name in names)

    def multi_hot(self, rows: Iterable[Iterable[str]]) -> Array:
        """Return a row for each set of names, 1 in all its classes: float32 [rows, classes]."""
        indices = [[self.index(name) for name in row] for row in rows]
        encoded = np.zeros((len(indices), len(self)), dtype=np.float32)
        for row, ones in zip(encoded, indices, strict=True):
            row[ones] = 1.0
        return encoded

    def names_above(self, scores: Array, threshold: float = 0.5) -> list[list[str]]:
        """Return for each row of scores [n, classes] the names of the classes above the threshold: multi_hot undone."""
        self._check(scores)
        return [[self.names[index] for index in np.flatnonzero(row > threshold)] for row in scores]

    def top(self, scores: Array, count: int = TOP) -> tuple[Array, Array]:
        """Return the best classes of each row of scores [n, classes], best first: names as bytes, and their scores.

        Both are [n, count], or [n, classes] if there are fewer. Equal scores keep their order; NaN comes last.
        """
        self._check(scores)
        if count < 1:
            raise invalid_argument(f"the best 1 or more classes can be named, not {count}")
        # NaN sorts last of all, also after the negated -inf.
        order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :count]
        names = np.array([name.encode() for name in self.names], dtype=object)
        return names[order], np.take_along_axis(scores, order, axis=1)

    def save(self, path: Path) -> None:
        """Write the names to a file of UTF-8, one a line."""
        path.write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read a file of names, one a line. NOT_FOUND or INVALID_ARGUMENT name the file."""
        try:
            return cls(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
        except OSError as error:
            raise not_found(f"cannot read the labels {path}: {error}") from error
        except UnicodeDecodeError as error:
            raise invalid_argument(f"the labels {path} are not UTF-8: {error}") from error

    def _check(self, scores: Array) -> None:
        if scores.ndim != 2 or scores.shape[1] != len(self):
            raise invalid_argument(
                f"{len(self)} labels need scores of shape [n, {len(self)}], not {list(scores.shape)}"
            )
