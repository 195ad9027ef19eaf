"""Loads: which comes first, how many at once, and how little of the processor they take from requests."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from servable.engines.base import LOADER_NICENESS
from servable.lifecycle import loading
from servable.lifecycle.config import ManagerOptions, ModelConfig


def model(name="m", **more) -> ModelConfig:
    return ModelConfig(name, Path("/models", name), **more)


def test_loads_happen_in_nice_threads_and_nothing_else_becomes_nice(run_lab, engine) -> None:
    main = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, main)
    niceness: list[int] = []
    stop = threading.Event()
    workers: list[threading.Thread] = []

    def prepare(_loaded) -> None:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        # A framework starts its pool here.
        workers.append(threading.Thread(target=stop.wait))
        workers[0].start()

    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        assert await lab.manager.wait_ready(10)
        assert threading.get_ident() not in engine.threads
        assert niceness[0] > before
        assert os.getpriority(os.PRIO_PROCESS, main) == before
        if os.geteuid() == 0:
            assert os.getpriority(os.PRIO_PROCESS, workers[0].native_id or 0) == before
        stop.set()

    try:
        run_lab(body, prepare=prepare)
    finally:
        stop.set()


@pytest.mark.rule("manager-7")
def test_versions_load_highest_first_one_after_another_once_started(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        gates = {version: engine.hold(version) for version in (2, 3)}
        lab.wish(1, 2, 3)
        assert lab.states() == {3: "LOADING", 2: "START", 1: "AVAILABLE"}
        gates[3].set()
        await lab.until(lambda: lab.states() == {3: "AVAILABLE", 2: "LOADING", 1: "AVAILABLE"})
        gates[2].set()
        await lab.until(lambda: lab.states()[2] == "AVAILABLE")

    run_lab(body)


@pytest.mark.rule("manager-7")
def test_load_threads_let_models_load_beside_each_other(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        gates = [engine.hold(version) for version in (1, 2, 3)]
        lab.wish(1, 2, 3)
        await lab.until(lambda: len(engine.attempts) == 2)
        assert lab.states() == {3: "LOADING", 2: "LOADING", 1: "START"}
        for gate in gates:
            gate.set()
        await lab.until(lambda: set(lab.states().values()) == {"AVAILABLE"})

    run_lab(body, ManagerOptions(poll_s=-1, load_threads=2))


def test_a_load_that_comes_to_nothing_gets_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    if loading.loader_niceness() != LOADER_NICENESS:
        pytest.skip("this account may not lower a niceness: loads have their share from the start")
    monkeypatch.setattr(loading, "PATIENCE_S", 0.05)
    seen: list[tuple[int, int]] = []

    def look() -> tuple[int, int]:
        thread = threading.get_native_id()
        return os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)

    def job() -> None:
        with loading.nice():
            seen.append(look())
            end = time.monotonic() + 10
            while look() == seen[0] and time.monotonic() < end:
                time.sleep(0.005)
            seen.append(look())

    worker = threading.Thread(target=job)
    worker.start()
    worker.join()
    assert seen == [(os.SCHED_IDLE, 19), (os.SCHED_OTHER, 11)]
