from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servable.core.status import VersionState
from servable.lifecycle.config import Transition
from servable.lifecycle.policy import Action, Verb, next_action

START, LOADING, AVAILABLE, UNLOADING, END = VersionState
AVAILABILITY = Transition.AVAILABILITY_PRESERVING
RESOURCE = Transition.RESOURCE_PRESERVING

TABLE = [
    # states, wish, availability preserving, resource preserving
    ({}, set(), None, None),
    ({1: START}, {1}, "load 1", "load 1"),
    ({1: START, 2: START, 3: START}, {1, 2, 3}, "load 3", "load 3"),
    ({1: LOADING}, {1}, None, None),
    ({1: LOADING, 2: START}, {1, 2}, "load 2", "load 2"),
    ({1: AVAILABLE}, {1}, None, None),
    ({1: AVAILABLE}, set(), "unload 1", "unload 1"),
    ({1: AVAILABLE, 2: AVAILABLE}, set(), "unload 1", "unload 1"),
    # a new version takes over
    ({1: AVAILABLE, 2: START}, {2}, "load 2", "unload 1"),
    ({1: AVAILABLE, 2: LOADING}, {2}, None, "unload 1"),
    ({1: AVAILABLE, 2: AVAILABLE}, {2}, "unload 1", "unload 1"),
    ({1: UNLOADING, 2: START}, {2}, "load 2", None),
    ({1: UNLOADING, 2: AVAILABLE}, {2}, None, None),
    ({1: LOADING, 2: START}, {2}, "load 2", None),
    # the old one stays when the new one fails
    ({1: AVAILABLE, 2: END}, {2}, None, "unload 1"),
    # two that are not wished for: one is enough to keep
    ({1: AVAILABLE, 2: AVAILABLE, 3: START}, {3}, "unload 1", "unload 1"),
    # going back to an older one
    ({1: START, 2: AVAILABLE}, {1}, "load 1", "unload 2"),
    # failed ones are not tried again
    ({1: END}, {1}, None, None),
    ({1: END}, set(), None, None),
    ({1: END, 2: START}, {1, 2}, "load 2", "load 2"),
    # waiting ones that are not wished for are not loaded
    ({1: START}, set(), None, None),
]


@pytest.mark.parametrize(("states", "wish", "availability", "resource"), TABLE)
def test_every_situation_has_one_answer(states, wish, availability, resource) -> None:
    assert _words(next_action(states, wish, AVAILABILITY)) == availability
    assert _words(next_action(states, wish, RESOURCE)) == resource


def _words(action: Action[int] | None) -> str | None:
    return None if action is None else f"{action.verb.name.lower()} {action.key}"


class World:
    """One model whose loads and unloads end when they are told to. Remembers the most that was in memory."""

    def __init__(self, transition: Transition) -> None:
        self.transition = transition
        self.states: dict[int, VersionState] = {}
        self.wish: set[int] = set()

    def wish_for(self, wish: set[int]) -> None:
        self.wish = wish
        for version in wish:
            self.states.setdefault(version, START)
        for version in set(self.states) - wish:
            if self.states[version] in {START, END}:
                del self.states[version]

    def act(self) -> bool:
        action = next_action(self.states, self.wish, self.transition)
        if action is None:
            return False
        self.check(action)
        self.states[action.key] = LOADING if action.verb is Verb.LOAD else UNLOADING
        return True

    def check(self, action: Action[int]) -> None:
        state, wished = self.states[action.key], action.key in self.wish
        available = {version for version, known in self.states.items() if known is AVAILABLE}
        if action.verb is Verb.UNLOAD:
            assert state is AVAILABLE
            assert not wished
            if self.transition is AVAILABILITY and self.wish:
                assert available - {action.key}, "the last available version was unloaded"
        else:
            assert state is START
            assert wished
            if self.transition is RESOURCE:
                assert all(v in self.wish or known is END for v, known in self.states.items()), "two worlds in memory"

    def finish(self, version: int, *, well: bool) -> None:
        state = self.states.get(version)
        if state is LOADING:
            self.states[version] = AVAILABLE if well else END
        elif state is UNLOADING:
            del self.states[version]
        self.wish_for(self.wish)

    def settle(self, failing: set[int]) -> None:
        for _ in range(100):
            while self.act():
                pass
            busy = [v for v, state in self.states.items() if state in {LOADING, UNLOADING}]
            if not busy:
                return
            self.finish(min(busy), well=min(busy) not in failing)
        raise AssertionError(f"it never ends: {self.states}")


versions = st.integers(1, 5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("wish"), st.sets(versions)),
        st.tuples(st.just("act"), st.just(0)),
        st.tuples(st.just("well"), versions),
        st.tuples(st.just("badly"), versions),
    ),
    max_size=40,
)


@given(steps, st.sets(versions), st.sampled_from(Transition))
@settings(max_examples=300, deadline=None)
def test_any_story_keeps_the_guarantees_and_ends_at_the_wish(story, failing, transition) -> None:
    world = World(transition)
    for what, value in story:
        if what == "wish":
            world.wish_for(value)
        elif what == "act":
            world.act()
        else:
            world.finish(value, well=what == "well")
    world.settle(failing)
    available = {version for version, state in world.states.items() if state is AVAILABLE}
    assert all(world.states[version] in {AVAILABLE, END} for version in world.wish)
    kept = available - world.wish
    if transition is RESOURCE or not world.wish or available & world.wish:
        assert not kept
    else:
        assert len(kept) <= 1
