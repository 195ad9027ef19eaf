"""Whether a version must wait for the models that it calls, or may never be loaded. Pure decisions."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from servable.core.errors import ServingError, failed_precondition


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a configured model. ``uses`` are the models that versions of it call which have not ended."""

    available: bool
    failed: bool
    uses: AbstractSet[str]


@dataclass(frozen=True, slots=True)
class Wait:
    """A version waits for these models, for this reason."""

    models: tuple[str, ...]
    reason: str


def judge(name: str, uses: tuple[str, ...], models: Mapping[str, Known]) -> Wait | ServingError | None:
    """Return what keeps a version of model ``name`` from being loaded: ``None`` if nothing does.

    FAILED_PRECONDITION if models would call each other in a circle: then they could wait for each other for ever.
    """
    circle = _way_back(name, uses, models)
    if circle:
        return failed_precondition(f"models would call each other in a circle: {' -> '.join(circle)}")
    lacking = tuple(used for used in uses if used not in models or not models[used].available)
    if not lacking:
        return None
    return Wait(lacking, "; ".join(_reason(used, models.get(used)) for used in lacking))


def _reason(used: str, known: Known | None) -> str:
    if known is None:
        return f"it uses model {used}, which this server is not told to serve"
    if known.failed:
        return f"it uses model {used}, which could not be loaded"
    return f"it waits for model {used}"


def _way_back(name: str, uses: tuple[str, ...], models: Mapping[str, Known]) -> tuple[str, ...]:
    """Return a way from the model over those that it uses to itself, if there is one."""
    ways: list[tuple[str, ...]] = [(name, used) for used in uses]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == name:
            return way
        if way[-1] not in seen and way[-1] in models:
            seen.add(way[-1])
            ways += [(*way, used) for used in sorted(models[way[-1]].uses)]
    return ()
