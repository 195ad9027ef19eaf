"""The lives of versions, on a fake engine: every wish and every load ends when the test says so."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from servable.core.errors import Code, ServingError, internal, unavailable, unimplemented
from servable.core.messages import ModelRef
from servable.core.status import VersionState
from servable.lifecycle.config import ManagerOptions, ModelConfig, Transition, VersionSpec

START, LOADING, AVAILABLE, UNLOADING, END = VersionState


def model(name="m", **more) -> ModelConfig:
    return ModelConfig(name, Path("/models", name), **more)


def refused(manager, ref: ModelRef) -> str:
    with pytest.raises(ServingError) as caught:
        manager.acquire(ref)
    return str(caught.value)


@pytest.mark.rule("manager-3")
def test_the_life_of_a_version(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        assert lab.states() == {1: "LOADING"}
        await lab.until(lambda: lab.states() == {1: "AVAILABLE"})
        loaded = lab.manager.acquire(ModelRef("m"))
        assert (loaded.name, loaded.version, loaded.ref) == ("m", 1, ModelRef("m", 1))
        assert (loaded.path, loaded.choice.engine, loaded.in_use) == (Path("/models/m"), "fake", 1)
        assert repr(loaded) == "<m/1 on fake, 1 in use>"
        (status,) = lab.manager.statuses("m")
        assert (status.engine, status.precision, status.reason) == ("fake", "f32", "the only one")
        lab.manager.release(loaded)
        lab.wish()
        await lab.until(lambda: lab.states() == {1: "END"})
        assert engine.closed == [("m", 1)]
        assert lab.history == [("m", 1, state) for state in (START, LOADING, AVAILABLE, UNLOADING, END)]

    run_lab(body)


@pytest.mark.rule("manager-1")
def test_the_new_version_takes_over_when_it_is_ready(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        go = engine.hold(2)
        lab.wish(2)
        await lab.until(lambda: ("m", 2) in engine.attempts)
        assert lab.states() == {2: "LOADING", 1: "AVAILABLE"}
        old = lab.manager.acquire(ModelRef("m"))
        assert old.version == 1
        go.set()
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "UNLOADING"})
        new = lab.manager.acquire(ModelRef("m"))
        assert new.version == 2
        assert refused(lab.manager, ModelRef("m", 1)) == "NOT_FOUND: Servable not found for request: Specific(m, 1)"
        lab.manager.release(new)
        assert not engine.closed, "version 1 is still held"
        lab.manager.release(old)
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})

    run_lab(body)


@pytest.mark.rule("select-3", "manager-3")
def test_a_handle_keeps_a_version_in_memory(run_lab, engine) -> None:
    retired: list[str] = []

    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        first, second = (lab.manager.acquire(ModelRef("m")) for _ in range(2))
        lab.wish()
        assert lab.states() == {1: "UNLOADING"}
        assert refused(lab.manager, ModelRef("m")) == "NOT_FOUND: Servable not found for request: Latest(m)"
        lab.manager.release(first)
        assert not retired
        assert not first.model.closed
        lab.manager.release(second)
        assert retired == ["m/1 MainThread open"]
        await lab.until(lambda: first.model.closed)

    def retire(loaded) -> None:
        state = "closed" if loaded.model.closed else "open"
        retired.append(f"{loaded.name}/{loaded.version} {threading.current_thread().name} {state}")

    run_lab(body, retire=retire)


@pytest.mark.rule("manager-4")
def test_resource_preserving_unloads_first(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        handle = lab.manager.acquire(ModelRef("m"))
        lab.wish(2)
        assert lab.states() == {2: "START", 1: "UNLOADING"}
        lab.manager.release(handle)
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})
        assert engine.opened_together == 1

    run_lab(body, ManagerOptions(poll_s=-1, transition=Transition.RESOURCE_PRESERVING))


@pytest.mark.rule("manager-2", "state-2")
def test_a_failure_leaves_the_old_version_and_says_why(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        engine.failures[2] = [unimplemented("no kernel for Frobnicate")]
        lab.wish(2)
        await lab.until(lambda: lab.states() == {2: "END", 1: "AVAILABLE"})
        failed = lab.manager.statuses("m", 2)[0]
        assert str(failed.error) == "UNIMPLEMENTED: no kernel for Frobnicate"
        assert engine.attempts.count(("m", 2)) == 1, "a retry cannot mend it"
        handle = lab.manager.acquire(ModelRef("m"))
        assert handle.version == 1
        lab.manager.release(handle)
        # It is not tried again until it has left the wish and come back.
        lab.wish(2)
        assert lab.states()[2] == "END"
        lab.wish(1)
        lab.wish(2)
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})

    run_lab(body)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ServingError(Code.DATA_LOSS, "torn"), Code.DATA_LOSS, "torn"),
        (internal("a fault"), Code.INTERNAL, "a fault"),
        (ValueError("no"), Code.INTERNAL, "loading m version 1 from /models/m failed: ValueError('no')"),
        (SystemExit(3), Code.INTERNAL, "loading m version 1 from /models/m failed: SystemExit(3)"),
        (FileNotFoundError(2, "gone", "/x"), Code.NOT_FOUND, "loading m version 1 from /models/m: /x does not exist"),
    ],
)
@pytest.mark.rule("manager-5")
def test_what_a_retry_cannot_mend_ends_at_once(run_lab, engine, error, code, words) -> None:
    async def body(lab) -> None:
        engine.failures[1] = [error]
        lab.manager.apply([model()])
        lab.wish(1)
        assert not await lab.manager.wait_ready(10)
        (status,) = lab.manager.statuses("m")
        assert status.state is END
        assert (status.error.code, status.error.message) == (code, words)
        assert status.error.__traceback__ is None, "it would keep what was half loaded"
        assert len(engine.attempts) == 1

    run_lab(body)


@pytest.mark.parametrize("error", [unavailable("busy"), MemoryError(), OSError(5, "I/O error")])
@pytest.mark.rule("manager-5")
def test_what_may_pass_is_retried(run_lab, engine, error) -> None:
    async def body(lab) -> None:
        engine.failures[1] = [error, error]
        lab.manager.apply([model()])
        lab.wish(1)
        assert await lab.manager.wait_ready(10)
        assert len(engine.attempts) == 3
        assert END not in {state for _, _, state in lab.history}

    run_lab(body, ManagerOptions(poll_s=-1, load_retry_interval_s=-1))


@pytest.mark.rule("manager-5")
def test_retries_end(run_lab, engine) -> None:
    async def body(lab) -> None:
        engine.failures[1] = [unavailable(f"attempt {number}") for number in range(9)]
        lab.manager.apply([model()])
        lab.wish(1)
        assert not await lab.manager.wait_ready(10)
        assert len(engine.attempts) == 3
        assert str(lab.manager.statuses("m")[0].error) == "UNAVAILABLE: attempt 2"

    run_lab(body, ManagerOptions(poll_s=-1, load_retry_interval_s=0, max_load_retries=2))


@pytest.mark.rule("manager-6")
def test_a_retry_is_cancelled_when_nobody_wishes_for_it(run_lab, engine) -> None:
    async def body(lab) -> None:
        engine.failures[1] = [unavailable("busy")]
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lambda: lab.manager.statuses("m")[0].reason != "")
        (status,) = lab.manager.statuses("m")
        assert (status.state, status.error) == (LOADING, None)
        assert status.reason == "attempt 1 of 6 failed: UNAVAILABLE: busy; next in 3600 s"
        lab.wish()
        (status,) = lab.manager.statuses("m")
        assert (status.state, str(status.error)) == (END, "CANCELLED: Loading of servable cancelled")

    run_lab(body, ManagerOptions(poll_s=-1, load_retry_interval_s=3600))


def test_a_version_in_doubt_gets_one_attempt_and_a_refused_one_none(run_lab, engine) -> None:
    async def body(lab) -> None:
        engine.failures = {1: [unavailable("cannot read")] * 3, 2: []}
        lab.manager.apply([model()])
        refusal = ServingError(Code.DATA_LOSS, "checksum")
        path = Path("/models/m")
        lab.manager.follow(
            {"m": {1: VersionSpec("m", 1, path, doubt="a shard"), 2: VersionSpec("m", 2, path, refusal=refusal)}}
        )
        await lab.until(lambda: lab.states() == {2: "END", 1: "END"})
        assert engine.attempts == [("m", 1)]
        errors = [str(status.error) for status in lab.manager.statuses("m")]
        assert errors == [
            "DATA_LOSS: checksum", "UNAVAILABLE: cannot read (its files never proved complete: a shard)",
        ]  # fmt: skip

    run_lab(body)


def test_prepare_runs_before_the_version_is_found_and_may_fail_it(run_lab, engine) -> None:
    prepared: list[tuple[str, int, dict[int, str]]] = []
    labs: list[Any] = []

    def prepare(loaded):
        prepared.append((threading.current_thread().name, loaded.version, labs[0].states()))
        if loaded.version == 2:
            raise ServingError(Code.INVALID_ARGUMENT, "warm-up record 3 fails")
        return f"executor of {loaded.version}"

    async def body(lab) -> None:
        labs.append(lab)
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        handle = lab.manager.acquire(ModelRef("m"))
        assert handle.executor == "executor of 1"
        lab.manager.release(handle)
        lab.wish(2)
        await lab.until(lambda: lab.states() == {2: "END", 1: "AVAILABLE"})
        assert lab.manager.statuses("m", 2)[0].error.message == "warm-up record 3 fails"
        assert engine.closed == [("m", 2)]
        assert [(version, states[version]) for _, version, states in prepared] == [(1, "LOADING"), (2, "LOADING")]
        assert {name for name, _, _ in prepared} == {"load"}

    run_lab(body, prepare=prepare)


def test_apply_replaces_the_set_of_models(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model("a"), model("b")])
        lab.manager.follow({name: {1: VersionSpec(name, 1, Path("/models", name))} for name in ("a", "b", "c")})
        await lab.until(lab.manager.ready)
        assert lab.manager.models() == ["a", "b"]
        assert sorted(repr(loaded) for loaded in lab.manager.loaded()) == [
            "<a/1 on fake, 0 in use>", "<b/1 on fake, 0 in use>",
        ]  # fmt: skip
        lab.manager.apply([model("b"), model("d")])
        assert not lab.manager.ready()
        assert refused(lab.manager, ModelRef("a")).endswith("Latest(a)")
        await lab.until(lambda: lab.states("a") == {1: "END"})
        assert lab.manager.models() == ["b", "d"]
        assert lab.states("b") == {1: "AVAILABLE"}

    run_lab(body)


def test_apply_checks_names(run_lab, engine) -> None:
    async def body(lab) -> None:
        with pytest.raises(ServingError, match="Illegal to list model m multiple times in config list"):
            lab.manager.apply([model(), model()])
        with pytest.raises(ServingError, match="the model at /models has no name"):
            lab.manager.apply([model("")])
        lab.manager.apply([])
        assert lab.manager.ready()
        assert await lab.manager.wait_ready(10)

    run_lab(body)


def test_the_same_version_from_elsewhere_is_swapped_in(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        old = lab.manager.acquire(ModelRef("m"))
        go = engine.hold(1)
        lab.manager.follow({"m": {1: VersionSpec("m", 1, Path("/elsewhere"))}})
        assert lab.states() == {1: "AVAILABLE"}
        go.set()
        await lab.until(lambda: lab.manager.loaded()[0].path == Path("/elsewhere"))
        assert lab.states() == {1: "AVAILABLE"}
        assert not old.model.closed
        lab.manager.release(old)
        await lab.until(lambda: old.model.closed)
        assert lab.states() == {1: "AVAILABLE"}

    run_lab(body)


def test_reload_loads_anew_and_a_failure_of_it_harms_nothing(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        (first,) = lab.manager.loaded()
        lab.manager.reload("m")
        await lab.until(lambda: first.model.closed)
        (second,) = lab.manager.loaded()
        engine.failures[1] = [unimplemented("bad operation")]
        lab.manager.reload("m")
        await lab.until(lambda: "bad operation" in lab.manager.statuses("m")[0].reason)
        (status,) = lab.manager.statuses("m")
        assert (status.state, status.error) == (AVAILABLE, None)
        assert lab.manager.loaded() == [second]
        lab.wish(1)
        lab.manager.reload("m")
        await lab.until(lambda: second.model.closed)
        with pytest.raises(ServingError, match="Servable not found"):
            lab.manager.reload("nobody")

    run_lab(body)


def test_a_load_that_ends_after_its_model_has_gone_is_never_served(run_lab, engine) -> None:
    async def body(lab) -> None:
        go = engine.hold(1)
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lambda: engine.attempts == [("m", 1)])
        lab.manager.apply([])
        go.set()
        await lab.until(lambda: lab.states() == {1: "END"})
        assert AVAILABLE not in {state for _, _, state in lab.history}
        assert engine.closed == [("m", 1)]

    run_lab(body)


def test_a_version_wished_for_again_while_it_unloads_comes_back(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        handle = lab.manager.acquire(ModelRef("m"))
        lab.wish()
        lab.wish(1)
        assert lab.states() == {1: "UNLOADING"}
        lab.manager.release(handle)
        await lab.until(lab.manager.ready)
        assert engine.attempts == [("m", 1), ("m", 1)]

    run_lab(body)


@pytest.mark.rule("better-4")
def test_ended_versions_are_remembered_failures_first(run_lab, engine) -> None:
    async def body(lab) -> None:
        engine.failures = {version: [unimplemented(f"no {version}")] for version in (1, 2)}
        lab.manager.apply([model()])
        for version in range(1, 41):
            lab.wish(version)
            wanted = "END" if version < 3 else "AVAILABLE"
            await lab.until(lambda version=version, wanted=wanted: lab.states().get(version) == wanted)
        lab.wish()
        await lab.until(lambda: lab.states()[40] == "END")
        states = lab.manager.statuses("m")
        assert [status.version for status in states] == [*range(40, 10, -1), 2, 1]
        assert [status.version for status in states if status.error] == [2, 1]

    run_lab(body)


def test_observers_hear_of_every_change_until_they_leave(run_lab, engine) -> None:
    async def body(lab) -> None:
        heard: list[str] = []

        def broken(_name, _status) -> None:
            raise RuntimeError("not my day")

        lab.manager.on_change(broken)
        leave = lab.manager.on_change(lambda name, status: heard.append(f"{name} {status.state.name}"))
        lab.manager.apply([model()])
        lab.wish(1)
        assert await lab.manager.wait_ready(10)
        leave()
        lab.wish()
        await lab.until(lambda: lab.states() == {1: "END"})
        assert heard == ["m START", "m LOADING", "m AVAILABLE"]

    run_lab(body)


def test_waiting_for_models_ends_by_time_failure_or_success(run_lab, engine) -> None:
    async def body(lab) -> None:
        manager = lab.manager
        manager.apply([model("a"), model("b")])
        go = engine.hold(1)
        engine.failures[2] = [unimplemented("no")]
        manager.follow({"a": {1: VersionSpec("a", 1, Path())}, "b": {2: VersionSpec("b", 2, Path())}})
        assert await manager.wait_settled(["b"], 10)
        assert not await manager.wait_settled(None, 0.001)
        assert not await manager.wait_ready(0.001)
        go.set()
        assert await manager.wait_settled(None, 10)
        assert not await manager.wait_ready(10)

    run_lab(body)


def test_stop_waits_for_handles_and_closes_everything(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1, 2)
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "AVAILABLE"})
        handle = lab.manager.acquire(ModelRef("m"))
        stopping = asyncio.ensure_future(lab.manager.stop())
        await lab.until(lambda: engine.closed == [("m", 1)])
        assert not stopping.done()
        lab.manager.release(handle)
        await stopping
        assert sorted(engine.closed) == [("m", 1), ("m", 2)]

    run_lab(body)


def test_stop_gives_up_on_a_handle_that_never_comes_back(run_lab, engine, caplog) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        handle = lab.manager.acquire(ModelRef("m"))
        await lab.manager.stop()
        assert not handle.model.closed
        assert "stopped with versions still in memory: <m/1 on fake, 1 in use>" in caplog.text
        lab.manager.release(handle)
        await lab.until(lambda: handle.model.closed)

    run_lab(body, ManagerOptions(poll_s=-1, drain_timeout_s=0.01))
