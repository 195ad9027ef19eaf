"""States the whole wish: for every model the versions that should be available. What it leaves out is unloaded.

Each base path is looked at in a thread of its own, so one that hangs stops no other. The looks decide nothing about
each other; a model that was not seen yet, or cannot be seen now, keeps the wish it had.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue

from servable.core.errors import Code, ServingError, internal
from servable.lifecycle.config import ModelConfig, VersionSpec, Wish
from servable.lifecycle.loading import nice
from servable.lifecycle.watch import Prove, Scan, Watch

log = logging.getLogger("servable.lifecycle")


class Source:
    """The watches of all models. Lives on the event loop; calls ``on_look(changed)`` there after each look, with
    whether the wish has changed.

    ``failed`` gives, for a model, the wished versions whose load has failed so far.
    """

    def __init__(
        self,
        prove: Prove,
        on_look: Callable[[bool], None],
        failed: Callable[[str], AbstractSet[int]],
        *,
        poll_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prove = prove
        self._on_look = on_look
        self._failed = failed
        self._poll_s = poll_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._wish: dict[str, dict[int, VersionSpec]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._applied = False

    def wish(self) -> Wish:
        """Return the whole wish as far as it is known."""
        return self._wish

    def waiting(self, name: str) -> dict[int, str]:
        """Return the versions of a model that are on disk but not complete, and what they lack."""
        watched = self._watched.get(name)
        return dict(watched.waiting) if watched else {}

    def problem(self, name: str) -> ServingError | None:
        """Return why the base path of a model could not be looked at the last time, if so."""
        watched = self._watched.get(name)
        return watched.problem if watched else None

    def apply(self, configs: Sequence[ModelConfig]) -> None:
        """Replace the watched models. Those of the first call are taken on the proof of their format alone."""
        names = {config.name for config in configs}
        for name in self._watched.keys() - names:
            self._watched.pop(name).stop()
            self._wish.pop(name, None)
        fresh = set()
        for config in configs:
            # Labels do not matter here: a change of labels alone must not look like a new model.
            unlabelled = replace(config, labels={})
            known = self._watched.get(config.name)
            if known is not None and known.config == unlabelled:
                continue
            if known is not None:
                known.stop()
            self._watched[config.name] = self._watch(unlabelled)
            fresh.add(config.name)
        self._applied = True
        self.scan(fresh)

    def _watch(self, config: ModelConfig) -> _Watched:
        once = self._poll_s == 0
        wished = self._wish.get(config.name, {})
        watch = Watch(config, self._prove, wished, proof_alone=once or not self._applied, once=once)
        return _Watched(config, watch)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look: at once, and every ``poll_s`` after."""
        self._loop = loop
        self.scan()
        if self._poll_s > 0:
            self._timer = loop.call_later(self._poll_s, self._tick)

    def stop(self) -> None:
        """End the looking. A thread that hangs in the file system is left behind."""
        if self._timer is not None:
            self._timer.cancel()
        for watched in self._watched.values():
            watched.stop()
        self._loop = None

    def scan(self, names: AbstractSet[str] | None = None) -> None:
        """Look at these models now, or at all; at one that is being looked at, again after that."""
        for name, watched in self._watched.items():
            if names is None or name in names:
                watched.ask_again = watched.asked_at is not None
                self._ask(name, watched)

    def looking(self, name: str) -> bool:
        """Return whether a look at this model has begun and not ended."""
        watched = self._watched.get(name)
        return watched is not None and watched.asked_at is not None

    def empty(self, name: str) -> bool:
        """Return whether the last look at this model found no version, complete or not."""
        watched = self._watched.get(name)
        if watched is None or watched.asked_at is not None or watched.waiting or self._wish.get(name):
            return False
        return name in self._wish or watched.problem is not None

    def _tick(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(self._poll_s, self._tick)
        # Spread over the period, so that a server of many models does not scan them all at one instant.
        for index, (name, watched) in enumerate(self._watched.items()):
            self._loop.call_later(self._poll_s * index / len(self._watched), self._ask, name, watched)

    def _ask(self, name: str, watched: _Watched) -> None:
        loop, now = self._loop, self._clock()
        if loop is None or self._poll_s < 0:
            return
        if watched.asked_at is not None:
            if now - watched.asked_at > self._timeout_s:
                path = watched.config.base_path
                self._report(
                    watched,
                    ServingError(Code.DEADLINE_EXCEEDED, f"{path} has not answered for {self._timeout_s:g} s or more"),
                )
            return
        watched.asked_at = now
        failed = frozenset(self._failed(name))

        def look() -> None:
            try:
                outcome: Scan | ServingError = watched.watch.look(now, failed)
            except ServingError as error:
                outcome = error
            except Exception as error:  # noqa: BLE001  # the watch must survive whatever a file system does
                outcome = internal(f"looking at {watched.config.base_path} failed: {error!r}")
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(self._seen, name, watched, outcome)

        watched.do(look)

    def _seen(self, name: str, watched: _Watched, outcome: Scan | ServingError) -> None:
        watched.asked_at = None
        if self._watched.get(name) is not watched or self._loop is None:
            return
        changed = False
        if isinstance(outcome, ServingError):
            self._report(watched, outcome)
        else:
            self._report(watched, None)
            watched.note_warnings(outcome.warnings)
            watched.note_waiting(outcome.waiting)
            changed = self._wish.get(name) != outcome.versions
            self._wish[name] = dict(outcome.versions)
        if watched.ask_again:
            watched.ask_again = False
            self._ask(name, watched)
        self._on_look(changed)

    def _report(self, watched: _Watched, problem: ServingError | None) -> None:
        """Log a problem when it begins or changes, not at every poll."""
        known = watched.problem
        watched.problem = problem
        if problem is not None and (known is None or known.message != problem.message):
            log.error("FileSystemStoragePathSource encountered a filesystem access error: %s", problem.message)
        elif problem is None and known is not None:
            log.info("base path %s can be read again", watched.config.base_path)


class _Watched:
    """One model's watch, its thread, and what the last look said."""

    def __init__(self, config: ModelConfig, watch: Watch) -> None:
        self.config = config
        self.watch = watch
        self.asked_at: float | None = None
        self.ask_again = False
        self.problem: ServingError | None = None
        self.waiting: Mapping[int, str] = {}
        self._warnings: tuple[str, ...] = ()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], None]) -> None:
        """Run a job on the thread of this base path, started by the first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"scan {self.config.name}", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread end after what it is doing."""
        self._jobs.put(None)

    def note_warnings(self, warnings: tuple[str, ...]) -> None:
        """Log the warnings that the look before did not have."""
        for warning in warnings:
            if warning not in self._warnings:
                log.warning("%s", warning)
        self._warnings = warnings

    def note_waiting(self, waiting: Mapping[int, str]) -> None:
        """Take over what waits, and log the versions that did not wait before."""
        for version in waiting.keys() - self.waiting.keys():
            log.info("%s version %d waits: %s", self.config.name, version, waiting[version])
        self.waiting = waiting

    def _work(self) -> None:
        with nice():
            while (job := self._jobs.get()) is not None:
                job()
