"""Models that call others: when they may load, what they wait for, and what is never loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.lifecycle.conftest import FakeEngine, Lab

from servable.core.errors import Code, ServingError, not_found
from servable.core.status import VersionState
from servable.lifecycle.config import ManagerOptions, ModelConfig, Transition, VersionSpec
from servable.lifecycle.dependencies import Known, Wait, judge
from servable.lifecycle.policy import Action, Verb, next_action

HERE = Known(available=True, failed=False, uses=frozenset())
COMING = Known(available=False, failed=False, uses=frozenset())
FAILED = Known(available=False, failed=True, uses=frozenset())


def calls(*uses: str, available: bool = True) -> Known:
    return Known(available, failed=False, uses=frozenset(uses))


@pytest.mark.parametrize(
    ("uses", "reason"),
    [
        ((), None),
        (("here",), None),
        (("coming",), "it waits for model coming"),
        (("failed",), "it uses model failed, which could not be loaded"),
        (("stranger", "here"), "it uses model stranger, which this server is not told to serve"),
        (("here", "coming", "failed"), "it waits for model coming; it uses model failed, which could not be loaded"),
    ],
)
def test_a_version_waits_until_all_that_it_uses_is_there(uses: tuple[str, ...], reason: str | None) -> None:
    verdict = judge("top", uses, {"here": HERE, "coming": COMING, "failed": FAILED})
    assert (verdict.reason if isinstance(verdict, Wait) else verdict) == reason


@pytest.mark.parametrize(
    ("models", "circle"),
    [
        ({}, "a -> a"),
        ({"b": calls("c"), "c": calls("a", available=False)}, "a -> b -> c -> a"),
        ({"b": calls("c", "d"), "c": calls("b"), "d": calls("a")}, "a -> b -> d -> a"),
    ],
)
def test_a_circle_is_refused_and_named(models: dict[str, Known], circle: str) -> None:
    verdict = judge("a", ("b",) if models else ("a",), models)
    assert isinstance(verdict, ServingError)
    assert verdict.code is Code.FAILED_PRECONDITION
    assert verdict.message.endswith(circle)


def test_two_ways_to_one_model_are_no_circle() -> None:
    assert judge("a", ("b", "c"), {"b": calls("d"), "c": calls("d"), "d": HERE}) is None


def test_what_is_held_is_not_loaded_and_holds_up_nothing_else() -> None:
    states = {1: VersionState.START, 2: VersionState.START}
    policy = Transition.AVAILABILITY_PRESERVING
    assert next_action(states, {1, 2}, policy, {2}) == Action(Verb.LOAD, 1)
    assert next_action({2: VersionState.START}, {2}, policy, {2}) is None
    assert next_action({1: VersionState.AVAILABLE, 2: VersionState.START}, {2}, policy, {2}) is None


def follow(lab: Lab, models: dict[str, tuple[int, tuple[str, ...]]]) -> None:
    """Serve one version of each model, which uses these others."""
    lab.manager.apply([ModelConfig(name, Path("/models", name)) for name in models])
    lab.manager.follow(
        {
            name: {version: VersionSpec(name, version, Path("/models", name), uses=uses)}
            for name, (version, uses) in models.items()
        }
    )


def reason(lab: Lab, name: str) -> str:
    return lab.manager.statuses(name)[0].reason


def test_models_load_after_those_that_they_use(engine: FakeEngine, run_lab: Callable[..., None]) -> None:
    async def body(lab: Lab) -> None:
        held = engine.hold(3)
        follow(lab, {"top": (1, ("middle", "low")), "middle": (2, ("low",)), "low": (3, ())})
        await lab.until(lambda: ("low", 3) in engine.attempts)
        assert (lab.states("top"), lab.states("middle")) == ({1: "START"}, {2: "START"})
        assert reason(lab, "top") == "it waits for model middle; it waits for model low"
        held.set()
        assert await lab.manager.wait_ready(10)
        assert engine.attempts == [("low", 3), ("middle", 2), ("top", 1)]
        assert reason(lab, "top") == "the only one"

    run_lab(body, ManagerOptions(poll_s=-1, load_threads=4))


def test_waiting_in_vain_holds_up_nobody_and_says_why(engine: FakeEngine, run_lab: Callable[..., None]) -> None:
    async def body(lab: Lab) -> None:
        engine.failures[2] = [not_found("no file")]
        follow(lab, {"top": (1, ("bad",)), "bad": (2, ()), "lost": (3, ("stranger",)), "over": (4, ("top",))})
        assert await lab.manager.wait_settled(None, 10)
        assert not await lab.manager.wait_ready(10)
        assert reason(lab, "top") == "it uses model bad, which could not be loaded"
        assert "stranger, which this server is not told to serve" in reason(lab, "lost")
        assert reason(lab, "over") == "it waits for model top"
        follow(lab, {"top": (1, ("bad",)), "bad": (5, ()), "lost": (3, ("stranger",)), "stranger": (6, ())})
        assert await lab.manager.wait_ready(10)

    run_lab(body)


def test_models_that_would_call_each_other_in_a_circle_end(engine: FakeEngine, run_lab: Callable[..., None]) -> None:
    async def body(lab: Lab) -> None:
        follow(lab, {"a": (1, ("b",)), "b": (2, ())})
        assert await lab.manager.wait_ready(10)
        follow(lab, {"a": (1, ("b",)), "b": (3, ("a",))})
        await lab.until(lambda: lab.states("b").get(3) == "END")
        error = lab.manager.statuses("b", 3)[0].error
        assert error is not None
        assert error.message == "models would call each other in a circle: b -> a -> b"
        assert lab.states("b")[2] == "AVAILABLE"

    run_lab(body)


def test_a_model_goes_on_when_what_it_uses_is_gone_and_waits_for_it_when_it_is_loaded_anew(
    run_lab: Callable[..., None],
) -> None:
    async def body(lab: Lab) -> None:
        follow(lab, {"top": (1, ("low",)), "low": (2, ())})
        assert await lab.manager.wait_ready(10)
        follow(lab, {"top": (1, ("low",))})
        await lab.until(lambda: ("low", 2, VersionState.END) in lab.history)
        assert lab.states("top") == {1: "AVAILABLE"}
        lab.manager.reload("top")
        assert lab.states("top") == {1: "AVAILABLE"}
        follow(lab, {"top": (1, ("low",)), "low": (3, ())})
        await lab.until(lambda: lab.engine.attempts.count(("top", 1)) == 2)

    run_lab(body)


def test_uses_is_read_from_the_files_and_what_cannot_be_read_fails_the_version(
    tmp_path: Path, run_lab: Callable[..., None]
) -> None:
    from servable.lifecycle.loading import prove_artifact

    for name, uses in (("good", "['low']"), ("bad", "NAMES")):
        (tmp_path / name / "1").mkdir(parents=True)
        code = f"class M:\n    uses = {uses}\n    def predict(self): ...\n"
        (tmp_path / name / "1" / "model.py").write_text(code)

    async def body(lab: Lab) -> None:
        lab.manager.apply([ModelConfig(name, tmp_path / name) for name in ("good", "bad")])
        await lab.manager.start()
        assert not await lab.manager.wait_ready(10)
        assert "it uses model low" in reason(lab, "good")
        error = lab.manager.statuses("bad")[0].error
        assert error is not None
        assert (error.code, "line 2 is read before" in error.message) == (Code.FAILED_PRECONDITION, True)

    run_lab(body, ManagerOptions(poll_s=0), prove=prove_artifact)
