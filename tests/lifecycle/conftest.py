"""Fakes with memory: an engine that is told what to do and remembers what was done to it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from servable.core.errors import ServingError
from servable.core.signatures import Signature
from servable.core.status import VersionState, VersionStatus
from servable.core.tensors import Array
from servable.engines.base import Model
from servable.engines.plan import Choice
from servable.lifecycle.config import VersionSpec
from servable.lifecycle.manager import LoadedModel, Manager, ManagerOptions

TIMEOUT_S = 15.0


class FakeModel(Model):
    """Remembers whether it is open, and that nobody closed it while somebody used it."""

    engine = "fake"
    signatures: Mapping[str, Signature] = {}

    def __init__(self, on_close: Callable[[], None]) -> None:
        self.closed = False
        self._on_close = on_close

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert not self.closed
        return {}

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._on_close()


class FakeEngine:
    """Loads anything. ``failures`` holds, by version, errors for the next attempts; ``hold`` makes loads wait."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, int]] = []
        self.paths: list[Path] = []
        self.open: set[tuple[str, int]] = set()
        self.opened_together = 0
        self.closed: list[tuple[str, int]] = []
        self.threads: set[int] = set()
        self.failures: dict[int, list[BaseException]] = {}
        self._held: dict[int, threading.Event] = {}
        self._lock = threading.Lock()

    def hold(self, version: int) -> threading.Event:
        """Let loads of a version wait until the event that is returned is set."""
        return self._held.setdefault(version, threading.Event())

    def load(self, spec: VersionSpec) -> LoadedModel:
        key = (spec.name, spec.version)
        with self._lock:
            self.attempts.append(key)
            self.paths.append(spec.path)
            self.threads.add(threading.get_ident())
        if spec.version in self._held:
            assert self._held[spec.version].wait(TIMEOUT_S)
        if self.failures.get(spec.version):
            raise self.failures[spec.version].pop(0)
        with self._lock:
            self.open.add(key)
            self.opened_together = max(self.opened_together, len(self.open))
        return LoadedModel(FakeModel(lambda: self._close(key)), Choice("fake", "f32", False, "the only one"))

    def _close(self, key: tuple[str, int]) -> None:
        with self._lock:
            self.open.discard(key)
            self.closed.append(key)
            self.threads.add(threading.get_ident())


class Lab:
    """A manager on a fake engine, with the history of what it published."""

    def __init__(self, engine: FakeEngine, options: ManagerOptions, **hooks: Any) -> None:
        self.engine = engine
        self.history: list[tuple[str, int, VersionState]] = []
        self.manager = Manager(options, load=engine.load, **{"prove": lambda _path, _engine: None} | hooks)
        self.manager.on_change(self._note)

    def _note(self, name: str, status: VersionStatus) -> None:
        self.history.append((name, status.version, status.state))

    def wish(self, *versions: int, name: str = "m") -> None:
        """Wish for these versions of one model, and of no other."""
        self.manager.follow(
            {name: {version: VersionSpec(name, version, Path("/models", name)) for version in versions}}
        )

    def states(self, name: str = "m") -> dict[int, str]:
        """Return the names of the states, by version."""
        try:
            return {status.version: status.state.name for status in self.manager.statuses(name)}
        except ServingError:
            return {}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        limit = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < limit, f"never came to be; history: {self.history}"
            await asyncio.sleep(0.002)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def run_lab(engine: FakeEngine) -> Callable[..., None]:
    """Run ``body(lab)`` on a loop of its own, with a manager of these options, and stop the manager."""

    def run(
        body: Callable[[Lab], Coroutine[Any, Any, None]], options: ManagerOptions | None = None, **hooks: Any
    ) -> None:
        async def main() -> None:
            lab = Lab(engine, options or ManagerOptions(poll_s=-1), **hooks)
            await body(lab)
            await lab.manager.stop()
            assert not engine.open, "a model was left in memory"

        asyncio.run(main())

    return run
