"""Which layers stay in float: those that hurt most, and as few as hold the drop. Pure; the caller measures."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from servable.core.errors import failed_precondition, invalid_argument
from servable.core.tensors import Array
from servable.forge.arrays import Tensors
from servable.forge.samples import top

EVALUATIONS: Final = 32
"""How many quantized forms a search makes at most."""
_ROUNDING: Final = 1e-9

Layers = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """The layers that a search left in float, and why. ``errors`` are of groups of layers, each quantized alone."""

    layers: Layers
    errors: Mapping[Layers, float]
    score: float
    evaluations: int


def hold_drop(
    layers: Sequence[str],
    baseline: float,
    max_drop: float,
    score: Callable[[Layers], float],
    error: Callable[[Layers], float],
    most: int = EVALUATIONS,
) -> Kept:
    """Return the fewest layers to keep in float so that ``baseline - score`` is at most ``max_drop``.

    ``score(kept)`` is that of everything quantized but these; ``error(group)`` is how far off a model is in which that
    group alone is quantized. Neighbouring layers are one group if there are more layers than evaluations. The groups
    are kept in the order of their errors: as many as it takes, found by doubling and halving. FAILED_PRECONDITION if
    it takes all of them.
    """
    if max_drop < 0:
        raise invalid_argument(f"a drop is 0 or more, not {max_drop:g}")
    scored: dict[int, float] = {0: score(())}
    if held(baseline, scored[0], max_drop):
        return Kept((), {}, scored[0], 1)
    groups = grouped(layers, max(1, most - 2 * max(1, math.ceil(math.log2(max(2, len(layers))))) - 1))
    errors = {group: error(group) for group in groups}
    order = sorted(groups, key=lambda group: -errors[group])

    def holds(count: int) -> bool:
        if count not in scored:
            scored[count] = score(_joined(order[:count]))
        return held(baseline, scored[count], max_drop)

    count = _least(len(order), holds)
    if count is None:
        best = max(scored.values())
        raise failed_precondition(
            f"no quantized form holds the drop of {max_drop:g}: the source scores {baseline:.4f}, the best form of "
            f"{len(scored)} that were tried {best:.4f}; allow more (--max-drop), calibrate with other data (--data), "
            "or take --fp16"
        )
    return Kept(_joined(order[:count]), errors, scored[count], len(errors) + len(scored))


def held(baseline: float, score: float, max_drop: float) -> bool:
    """Return whether a score is no more than that below the baseline: 0.99 is 0.01 below 1, not more by rounding."""
    return baseline - score <= max_drop + _ROUNDING


def grouped(layers: Sequence[str], most: int) -> list[Layers]:
    """Return the layers in at most that many groups of neighbours, as even as can be."""
    count = min(len(layers), most)
    edges = [round(place * len(layers) / count) for place in range(count + 1)] if count else [0]
    return [tuple(layers[begin:end]) for begin, end in pairwise(edges)]


def _least(total: int, holds: Callable[[int], bool]) -> int | None:
    """Return the least number from 1 to ``total`` - 1 that holds, if more hold at least as well."""
    failed, tried = 0, 1
    while tried < total and not holds(tried):
        failed, tried = tried, tried * 2
    if tried >= total:
        tried = total - 1
        if tried <= failed or not holds(tried):
            return None
    while tried - failed > 1:
        middle = (failed + tried) // 2
        failed, tried = (failed, middle) if holds(middle) else (middle, tried)
    return tried


def _joined(groups: Sequence[Layers]) -> Layers:
    return tuple(layer for group in groups for layer in group)


def chosen(words: Sequence[str], nodes: Mapping[str, str]) -> list[str]:
    """Return the names of the nodes that words mean: each is a node's name or a type. ``nodes``: name -> type.

    INVALID_ARGUMENT names what is close to a word that means nothing.
    """
    found: list[str] = []
    for word in words:
        named = [word] if word in nodes else [name for name, kind in nodes.items() if kind == word]
        if not named:
            like = difflib.get_close_matches(word, [*nodes, *set(nodes.values())], 3, 0.4)
            hint = f"; did you mean {' or '.join(like)}?" if like else ""
            kinds = ", ".join(sorted(set(nodes.values())))
            raise invalid_argument(f"--keep-float {word}: no node and no type is called so{hint} (types: {kinds})")
        found += named
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores answers: the share of rows with the right class, which is the source's own where nobody gave labels."""

    output: str
    right: Array
    labelled: bool

    @classmethod
    def of(cls, reference: Sequence[Tensors], labels: Sequence[int] | None, output: str = "") -> Judge:
        """Return the judge for a model whose answers to all rows are ``reference``, in batches.

        INVALID_ARGUMENT if no output holds classes, or if there is not one label a row.
        """
        if not reference:
            raise invalid_argument("there are no rows to judge by")
        names = [output] if output else list(reference[0])
        for name in names:
            if name not in reference[0]:
                raise invalid_argument(f"there is no output {name!r}; there are {', '.join(reference[0])}")
            found = classes(np.concatenate([answer[name] for answer in reference]))
            if found is None:
                continue
            if labels is not None and len(labels) != len(found):
                raise invalid_argument(f"there are {len(labels)} labels for {len(found)} rows; there must be one a row")
            return cls(name, found if labels is None else np.asarray(labels), labels is not None)
        raise invalid_argument(f"no output is a table of scores, so there is no class to compare ({', '.join(names)})")

    def score(self, answers: Sequence[Tensors]) -> float:
        """Return the share of rows that are right, of answers in batches of any sizes."""
        found = classes(np.concatenate([answer[self.output] for answer in answers]))
        return 0.0 if found is None else float(np.mean(found == self.right))


def classes(scores: Array) -> Array | None:
    """Return each row's class; one column is the probability of class 1. ``None`` for what is no table of scores."""
    if scores.ndim == 2 and scores.shape[1] == 1 and scores.dtype.kind == "f":
        return (scores[:, 0] >= 0.5).astype(np.int64)
    return top(scores)


def distance(reference: Sequence[Tensors], answers: Sequence[Tensors]) -> float:
    """Return the mean squared difference of all float outputs, each over its own mean square."""
    total, count = 0.0, 0
    for name, first in reference[0].items():
        if first.dtype.kind != "f":
            continue
        right = np.concatenate([answer[name].reshape(-1) for answer in reference]).astype(np.float64)
        found = np.concatenate([answer[name].reshape(-1) for answer in answers]).astype(np.float64)
        total += float(np.mean((right - found) ** 2) / max(float(np.mean(right**2)), 1e-30))
        count += 1
    return total / count if count else 0.0
