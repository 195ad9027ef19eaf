from __future__ import annotations

import asyncio
import threading
import time

import pytest

from servable.core.errors import Code
from servable.lifecycle.config import All, ModelConfig
from servable.lifecycle.source import Source


class Follower:
    """A source on real directories, and what it said."""

    def __init__(self, *, poll_s=0.01, timeout_s=30.0, clock=time.monotonic) -> None:
        self.changes = 0
        self.looks = 0
        self.wishes: list[dict[str, list[int]]] = []
        self.failed: dict[str, frozenset[int]] = {}
        self.hanging: set[str] = set()
        self.freed = threading.Event()
        self.source = Source(
            self.prove,
            self.looked,
            lambda name: self.failed.get(name, frozenset()),
            poll_s=poll_s,
            timeout_s=timeout_s,
            clock=clock,
        )

    def prove(self, path, engine) -> None:
        if path.parent.name in self.hanging:
            self.freed.wait()

    def looked(self, changed) -> None:
        self.looks += 1
        self.changes += changed
        self.wishes.append(self.wish())

    def wish(self) -> dict[str, list[int]]:
        return {name: sorted(specs) for name, specs in self.source.wish().items()}

    async def until(self, condition) -> None:
        limit = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < limit, f"never came to be; the wish is {self.wish()}"
            await asyncio.sleep(0.002)

    async def look_again(self, times=3) -> None:
        looks = self.looks + times
        await self.until(lambda: self.looks >= looks)


@pytest.fixture
def follow():
    def run(body, **options) -> None:
        async def main() -> None:
            follower = Follower(**options)
            try:
                await body(follower)
            finally:
                follower.freed.set()
                follower.source.stop()

        asyncio.run(main())

    return run


@pytest.fixture
def base(tmp_path):
    def make(name, *versions) -> ModelConfig:
        for version in versions:
            (tmp_path / name / str(version)).mkdir(parents=True)
        return ModelConfig(name, tmp_path / name)

    return make


def test_it_states_the_whole_wish_and_follows_the_disk(follow, base, tmp_path) -> None:
    async def body(follower) -> None:
        follower.source.apply([base("a", 1), base("b", 5)])
        follower.source.start(asyncio.get_running_loop())
        await follower.until(lambda: follower.wish() == {"a": [1], "b": [5]})
        (tmp_path / "a" / "2").mkdir()
        await follower.until(lambda: follower.wish() == {"a": [2], "b": [5]})
        assert follower.changes == 3
        follower.source.apply([base("b")])
        assert follower.wish() == {"b": [5]}

    follow(body)


def test_a_base_path_that_hangs_stops_no_other(follow, base, tmp_path) -> None:
    now = [100.0]

    async def body(follower) -> None:
        follower.hanging = {"slow"}
        follower.source.apply([base("slow", 1), base("quick", 1)])
        follower.source.start(asyncio.get_running_loop())
        await follower.until(lambda: follower.wish() == {"quick": [1]})
        assert follower.source.looking("slow")
        assert follower.source.problem("slow") is None
        now[0] += 31
        await follower.until(lambda: follower.source.problem("slow") is not None)
        assert follower.source.problem("slow").code is Code.DEADLINE_EXCEEDED
        (tmp_path / "quick" / "2").mkdir()
        await follower.until(lambda: follower.wish() == {"quick": [2]})
        follower.freed.set()
        await follower.until(lambda: follower.wish() == {"quick": [2], "slow": [1]})
        assert follower.source.problem("slow") is None

    follow(body, clock=lambda: now[0])


def test_a_base_path_that_vanishes_changes_no_wish_and_is_reported_once(follow, base, tmp_path, caplog) -> None:
    async def body(follower) -> None:
        follower.source.apply([base("a", 1)])
        follower.source.start(asyncio.get_running_loop())
        await follower.until(lambda: follower.wish() == {"a": [1]})
        (tmp_path / "a").rename(tmp_path / "away")
        await follower.until(lambda: follower.source.problem("a") is not None)
        await follower.look_again(10)
        assert follower.wish() == {"a": [1]}
        assert caplog.text.count("Could not find base path") == 1
        (tmp_path / "away").rename(tmp_path / "a")
        await follower.until(lambda: follower.source.problem("a") is None)
        assert follower.changes == 1

    follow(body)


def test_a_warning_is_logged_when_it_begins(follow, base, tmp_path, caplog) -> None:
    async def body(follower) -> None:
        (tmp_path / "a").mkdir()
        follower.source.apply([base("a")])
        follower.source.start(asyncio.get_running_loop())
        await follower.look_again(10)
        assert caplog.text.count("Did you forget to name your leaf directory as a number") == 1

    follow(body)


@pytest.mark.rule("poll-1")
def test_polling_0_looks_once_and_when_asked(follow, base, tmp_path) -> None:
    async def body(follower) -> None:
        follower.source.apply([base("a", 1)])
        follower.source.start(asyncio.get_running_loop())
        await follower.until(lambda: follower.wish() == {"a": [1]})
        (tmp_path / "a" / "2").mkdir()
        # A model that a new configuration brings is looked for; the one that is known is not.
        follower.source.apply([base("a"), base("b", 1)])
        await follower.until(lambda: follower.wish().get("b") == [1])
        assert follower.wish()["a"] == [1]
        looks = follower.looks
        follower.source.scan({"a"})
        await follower.until(lambda: follower.looks > looks)
        assert follower.wish()["a"] == [2]

    follow(body, poll_s=0)


@pytest.mark.rule("poll-1")
def test_negative_polling_never_looks(follow, base) -> None:
    async def body(follower) -> None:
        follower.source.apply([base("a", 1)])
        follower.source.start(asyncio.get_running_loop())
        follower.source.scan()
        assert not follower.source.looking("a")
        assert follower.wish() == {}

    follow(body, poll_s=-1)


def test_a_changed_policy_goes_on_from_the_wish_there_is(follow, base, tmp_path) -> None:
    async def body(follower) -> None:
        config = base("a", 1, 2)
        follower.source.apply([config])
        follower.source.start(asyncio.get_running_loop())
        await follower.until(lambda: follower.wish() == {"a": [2]})
        follower.wishes.clear()
        follower.source.apply([ModelConfig("a", config.base_path, All())])
        assert follower.wish() == {"a": [2]}
        await follower.until(lambda: follower.wish() == {"a": [1, 2]})
        assert all(2 in wish["a"] for wish in follower.wishes)

    follow(body)


def test_other_labels_are_no_other_model(follow, base) -> None:
    async def body(follower) -> None:
        config = base("a", 1)
        follower.source.apply([config])
        follower.source.start(asyncio.get_running_loop())
        await follower.until(lambda: follower.wish() == {"a": [1]})
        before = follower.source.wish()["a"][1]
        follower.source.apply([ModelConfig("a", config.base_path, labels={"stable": 1})])
        await follower.look_again()
        assert follower.source.wish()["a"][1] is before

    follow(body)
