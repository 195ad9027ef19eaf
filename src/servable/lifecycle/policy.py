"""Which one thing to do next for a model. Pure: it sees states and the wish, and remembers nothing.

Guarantees, whatever the sequence of wishes and failures:

1. At most one action for each call; calling again after each action ends in ``None``.
2. Where availability is preserved, the last available version is not unloaded while one that is wished for may still
   become available, or has failed. Only an empty wish unloads everything.
3. Where resources are preserved, nothing is loaded until every version that is not wished for has left memory.
4. Once loads and unloads have ended, every wished version is available or has failed, and (unless rule 2 keeps one)
   no other version is available. Those that are held are excepted, until they are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, Protocol, TypeVar

from servable.core.status import VersionState
from servable.lifecycle.config import Transition


class _Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...


Key = TypeVar("Key", bound=_Ordered)
"""What names a version: anything in order, newest last."""


class Verb(Enum):
    """What an action does to a version."""

    LOAD = auto()
    UNLOAD = auto()


@dataclass(frozen=True, slots=True)
class Action(Generic[Key]):
    """One thing to do to one version."""

    verb: Verb
    key: Key


def next_action(
    states: Mapping[Key, VersionState],
    wish: AbstractSet[Key],
    transition: Transition,
    held: AbstractSet[Key] = frozenset(),
) -> Action[Key] | None:
    """Return what to do next for one model, or ``None`` to wait for something to end.

    ``states`` holds every version known; START is one that waits to be loaded, END one that failed.
    Those that are ``held`` wait for something else before they may be loaded.
    """
    unwished = {key: state for key, state in states.items() if key not in wish}
    leaving = [key for key, state in unwished.items() if state is VersionState.AVAILABLE]
    if leaving and _may_unload(states, wish, leaving, transition):
        return Action(Verb.UNLOAD, min(leaving))
    if transition is Transition.RESOURCE_PRESERVING and any(map(_in_memory, unwished.values())):
        return None
    fresh = [key for key in wish - held if states.get(key) is VersionState.START]
    return Action(Verb.LOAD, max(fresh)) if fresh else None


def _may_unload(
    states: Mapping[Key, VersionState], wish: AbstractSet[Key], leaving: list[Key], transition: Transition
) -> bool:
    if transition is Transition.RESOURCE_PRESERVING:
        return True
    return not wish or len(leaving) > 1 or any(states.get(key) is VersionState.AVAILABLE for key in wish)


def _in_memory(state: VersionState) -> bool:
    return state in {VersionState.LOADING, VersionState.AVAILABLE, VersionState.UNLOADING}
