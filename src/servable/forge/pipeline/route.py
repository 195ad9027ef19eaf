"""From what a person asks for (``freeze``, ``int8``) to steps and sources: pure, over the table of steps.

Steps that keep the arithmetic (freeze, fold, convert) build on each other: each takes the newest artifact that it
reads. Steps that give up precision start there too, and nothing starts from what they made, unless it is asked for with
a plus: ``prune+int8``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from servable.core.errors import ServingError, invalid_argument
from servable.forge.artifacts import MAIN_FILES
from servable.forge.quantization.steps import METHODS, step_for
from servable.forge.steps import Step

CHAIN: Final = "+"
_MOST_CONVERSIONS: Final = 2
_PREFERRED: Final = ("onnx", "openvino", "saved_model")
"""Kinds to go through if several would do."""


@dataclass(frozen=True, slots=True)
class Node:
    """An artifact that exists. ``exact`` says that its arithmetic is that of the model given."""

    name: str
    kind: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Route:
    """The way to what was asked for: conversions, and the step itself at the end, from the artifact ``source``."""

    source: str
    steps: tuple[Step, ...]


Resolve = Callable[[str, str], Step | None]
"""``(word, kind) -> step``: what a word means for an artifact of that kind, ``None`` if nothing."""


def resolver(table: Mapping[str, Step]) -> Resolve:
    """Return how words are understood with these steps: a step's name, with or without the kind at its end; a kind."""

    def resolve(word: str, kind: str) -> Step | None:
        if word in table:
            return table[word] if kind in table[word].reads else None
        if word in METHODS:
            try:
                found = step_for(word, kind)
            except ServingError:
                return None
            return table.get(found.name)
        if word in MAIN_FILES:
            return next((step for step in _conversions(kind, table) if step.writes == word), None)
        variants = [step for name, step in table.items() if _is_variant(name, word) and kind in step.reads]
        # The one that stays with the kind first.
        return min(variants, key=lambda step: step.writes != kind, default=None)

    return resolve


def check_words(words: Sequence[str], table: Mapping[str, Step]) -> None:
    """Refuse a word that no step has, or one that is there twice, before anything is done."""
    if not words:
        raise invalid_argument("there is no step to do")
    for word in words:
        if words.count(word) > 1:
            raise invalid_argument(f"--steps has {word!r} twice")
        for part in word.split(CHAIN):
            known_word = part in METHODS or part in MAIN_FILES or part in table
            if not known_word and not any(_is_variant(name, part) for name in table):
                known = ", ".join(sorted({*METHODS, *table}))
                raise invalid_argument(f"--steps: there is no step {part!r}; there are {known}")


def reachable(words: Sequence[str], kind: str, table: Mapping[str, Step]) -> list[str]:
    """Return those of the words that can mean something for a model of that kind."""
    given = [Node("given", kind, exact=True)]
    return [word for word in words if word != kind and find_route(word, given, table, resolver(table)) is not None]


def find_route(
    word: str,
    nodes: Sequence[Node],
    table: Mapping[str, Step],
    resolve: Resolve,
    failed: Iterable[tuple[str, str]] = (),
) -> Route | None:
    """Return the way with the fewest conversions, from the newest artifact that has one; ``None`` if there is none.

    ``nodes`` are in the order in which they were made. ``failed`` are pairs of artifact and step that went wrong.
    """
    lost = set(failed)
    found: list[tuple[tuple[int, int, int], Route]] = []
    for age, node in enumerate(reversed(nodes)):
        for steps in _ways(word, node, table, resolve, lost):
            order = (len(steps), age, _preference(steps[-2].writes) if len(steps) > 1 else 0)
            found.append((order, Route(node.name, steps)))
    return min(found, key=lambda one: one[0])[1] if found else None


def _ways(
    word: str, node: Node, table: Mapping[str, Step], resolve: Resolve, lost: set[tuple[str, str]]
) -> list[tuple[Step, ...]]:
    """Return all ways from one artifact, those without conversions first."""
    ways: list[tuple[Step, ...]] = []
    reached: list[tuple[str, tuple[Step, ...]]] = [(node.kind, ())]
    seen = {node.kind}
    for _ in range(_MOST_CONVERSIONS + 1):
        following: list[tuple[str, tuple[Step, ...]]] = []
        for kind, before in reached:
            step = resolve(word, kind)
            if step is not None and (node.name, step.name) not in lost:
                ways.append((*before, step))
            for conversion in _conversions(kind, table):
                fresh = conversion.writes not in seen and (before or (node.name, conversion.name) not in lost)
                if fresh:
                    seen.add(conversion.writes)
                    following.append((conversion.writes, (*before, conversion)))
        if ways:
            return ways
        reached = following
    return ways


def is_exact(step: Step) -> bool:
    """Return whether a step keeps the arithmetic: every element is held to a tolerance of its own."""
    return step.tolerance.rtol is not None


def _conversions(kind: str, table: Mapping[str, Step]) -> list[Step]:
    able = [step for step in table.values() if kind in step.reads and step.writes != kind]
    able = [step for step in able if is_exact(step) and not step.calibrated]
    return sorted(able, key=lambda step: _preference(step.writes))


def _preference(kind: str) -> int:
    return _PREFERRED.index(kind) if kind in _PREFERRED else len(_PREFERRED)


def _is_variant(name: str, word: str) -> bool:
    """Return whether a name is the word with the kind of an artifact behind it: ``fold-onnx`` is ``fold``."""
    rest = name.removeprefix(f"{word}-")
    return rest != name and rest.partition("-")[0] in MAIN_FILES
