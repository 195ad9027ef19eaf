"""Loads and closes models in niced threads, so that a load never takes the processor from those who serve."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from servable.core.errors import Code, ServingError, internal, not_found, unavailable
from servable.core.messages import ModelRef
from servable.engines.base import AUTO_PLAN, LASTING_NICENESS, LOADER_NICENESS, Model
from servable.engines.plan import Choice, artifact_of_file, choose, complete, load, models_used
from servable.lifecycle.config import VersionSpec

log = logging.getLogger("servable.lifecycle")

PATIENCE_S = 20.0
"""How long a load runs on what others leave over."""

RETRYABLE = frozenset({
    Code.CANCELLED, Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.ABORTED, Code.UNAVAILABLE,
})  # fmt: skip
"""What may be otherwise a minute later. The others say that these files, here, will never load."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What a load gives: the model, and which engine and precision were chosen for it, and why."""

    model: Model
    choice: Choice


class LoadedVersion:
    """A version in memory. Whoever acquired it holds it there; it is closed after the last one has released it."""

    __slots__ = ("choice", "executor", "in_use", "model", "name", "on_drained", "path", "ref", "version")

    def __init__(self, spec: VersionSpec, loaded: LoadedModel) -> None:
        self.name = spec.name
        self.version = spec.version
        self.path = spec.path
        self.ref = ModelRef(spec.name, spec.version)
        self.model = loaded.model
        self.choice = loaded.choice
        self.executor: Any = None
        """Whatever ``prepare`` returned."""
        self.in_use = 0
        self.on_drained: Callable[[], None] | None = None
        """Set while it is unloading: called when ``in_use`` falls to 0."""

    def __repr__(self) -> str:
        return f"<{self.name}/{self.version} on {self.choice.engine}, {self.in_use} in use>"


Load: TypeAlias = Callable[[VersionSpec], LoadedModel]
Prepare: TypeAlias = Callable[[LoadedVersion], Any]


def load_artifact(spec: VersionSpec) -> LoadedModel:
    """Find the artifact of a version, choose an engine for it and load it."""
    artifact = artifact_of_file(spec.path)
    choice = choose(artifact, spec.engine, spec.options.precision, spec.options)
    spec.options.report(f"loading {spec.name}/{spec.version} with {choice.engine}")
    try:
        return LoadedModel(load(choice, artifact, spec.options), choice)
    except ServingError as error:
        if choice.plan is None or spec.options.plan != AUTO_PLAN:
            raise
        log.warning("%s/%s cannot be loaded by its plan: %s", spec.name, spec.version, error.message)
        choice = choose(artifact, spec.engine, spec.options.precision)
        choice = replace(choice, reason=f"{choice.reason}; its plan failed: {error.message}")
    return LoadedModel(load(choice, artifact, spec.options), choice)


def prove_artifact(path: Path, engine: str | None) -> str | None:
    """Return what the artifact's format says is missing, or ``None`` if it proves that nothing is.

    What stands in the way for other reasons (an engine that is not installed) is the load's to report.
    """
    try:
        artifact = artifact_of_file(path)
        return complete(choose(artifact, engine), artifact)
    except ServingError as error:
        return None if error.code in {Code.FAILED_PRECONDITION, Code.UNIMPLEMENTED} else error.message
    except Exception as error:  # noqa: BLE001  # half a file may break any parser
        return f"its files cannot be read: {error!r}"


def uses_of(path: Path) -> tuple[str, ...]:
    """Return the models that a version calls. FAILED_PRECONDITION if what says so cannot be read."""
    try:
        artifact = artifact_of_file(path)
    except ServingError:
        return ()  # the load says what is wrong
    return models_used(artifact)


def load_version(spec: VersionSpec, load: Load, prepare: Prepare) -> LoadedVersion | ServingError:
    """Load a version and make it ready for requests, or return why it cannot be; then nothing stays in memory.

    Errors are returned, not raised: a traceback would keep what was half loaded.
    """
    if spec.refusal is not None:
        return spec.refusal
    loaded: LoadedVersion | None = None
    try:
        loaded = LoadedVersion(spec, load(spec))
        loaded.executor = prepare(loaded)
        loaded.model.begin_serving()
    except BaseException as error:  # an engine or a user's code may raise anything, SystemExit too
        log.debug("loading %s failed", spec.path, exc_info=error)
        failure = _translate(error, spec)
    else:
        return loaded
    if loaded is not None:
        close_version(loaded)
    if spec.doubt and spec.doubt not in failure.message:
        failure.message += f" (its files never proved complete: {spec.doubt})"
    return failure


def _translate(error: BaseException, spec: VersionSpec) -> ServingError:
    if isinstance(error, ServingError):
        return ServingError(error.code, error.message)
    where = f"loading {spec.name} version {spec.version} from {spec.path}"
    if isinstance(error, MemoryError):
        return ServingError(Code.RESOURCE_EXHAUSTED, f"{where} ran out of memory")
    if isinstance(error, FileNotFoundError):
        return not_found(f"{where}: {error.filename} does not exist")
    if isinstance(error, OSError):
        return unavailable(f"{where}: {error}")
    return internal(f"{where} failed: {error!r}")


def close_version(loaded: LoadedVersion) -> None:
    """Free a version. A failure is logged: the version is gone all the same."""
    try:
        loaded.model.close()
    except Exception:
        log.exception("closing %s version %d failed", loaded.name, loaded.version)
    loaded.executor = None


def _return_memory() -> None:
    """Give freed memory back to the system where the C library can (glibc).

    Without it a model that was closed stays in the allocator's hands as a whole, and a load leaves the parsed file,
    often as large as the model. It holds locks of the allocator, so it must not run in a nice thread, which a busy
    machine could stop for long.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def loader_niceness() -> int:
    """Return the niceness of loads. A way back needs a privilege (CAP_SYS_NICE) that a container may lack."""
    allowed: list[bool] = []

    def try_it() -> None:
        thread = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(before + 1, LOADER_NICENESS))
        with suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, thread, before)
            allowed.append(True)

    if sys.platform == "linux":  # elsewhere priorities belong to processes
        probe = threading.Thread(target=try_it, name="niceness")
        probe.start()
        probe.join()
    return LOADER_NICENESS if allowed else LASTING_NICENESS


_nice_threads: set[int] = set()
_nice_lock = threading.Lock()


@contextmanager
def nice() -> Iterator[None]:
    """Let every other thread go before this one. There is no way back, so the thread must end after."""
    thread = threading.get_native_id()
    with _nice_lock:
        _nice_threads.add(thread)
        if sys.platform == "linux":  # elsewhere priorities belong to processes
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, loader_niceness())
                if loader_niceness() == LOADER_NICENESS:
                    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    impatience = threading.Timer(PATIENCE_S, _hurry)
    impatience.daemon = True
    impatience.start()
    try:
        yield
    finally:
        impatience.cancel()
        with _nice_lock:
            _nice_threads.discard(thread)


def _hurry() -> None:
    """Give loads, in this process and in those that it has started, a share of a core that is never idle."""
    with suppress(OSError):
        children = " ".join(each.read_text() for each in Path("/proc/self/task").glob("*/children"))
        for process in ("self", *children.split()):
            for task in [int(each.name) for each in Path(f"/proc/{process}/task").iterdir()]:
                with suppress(ProcessLookupError):
                    if os.sched_getscheduler(task) == os.SCHED_IDLE:
                        os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))
                        os.setpriority(os.PRIO_PROCESS, task, LASTING_NICENESS)


def _free_from_niceness() -> None:
    """Give threads that frameworks started during a load the priority of those that serve.

    A thread inherits niceness from the one that starts it. Undoing it needs a privilege (CAP_SYS_NICE) that a
    container may lack; there the threads stay nice, which only other processes on a full machine can make felt.
    """
    if sys.platform != "linux":
        return
    serving = os.getpriority(os.PRIO_PROCESS, os.getpid())
    niceness = loader_niceness()
    if serving >= niceness:
        return
    with _nice_lock, suppress(OSError):
        for thread in [int(task.name) for task in Path("/proc/self/task").iterdir()]:
            with suppress(ProcessLookupError):
                if thread not in _nice_threads and os.getpriority(os.PRIO_PROCESS, thread) == niceness:
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
                    os.setpriority(os.PRIO_PROCESS, thread, serving)


Job: TypeAlias = Callable[[], None]


class Workers:
    """Runs jobs in threads of their own, ``limit`` at a time, and hands each outcome back on the loop.

    After each, the memory that it freed goes back to the system.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self.limit = limit
        self._name = name
        self._loop = loop
        self._running = 0
        self._queue: deque[Job] = deque()

    @property
    def free(self) -> bool:
        """Whether a job given now would start now."""
        return self._running < self.limit

    def run(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run ``job``, which must not raise, in a niced thread, then ``done`` on the loop with its result."""
        self._queue.append(lambda: self._work(job, done))
        self._start()

    def _start(self) -> None:
        while self._queue and self.free:
            self._running += 1
            threading.Thread(target=self._queue.popleft(), name=self._name, daemon=True).start()

    def _work(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        with nice():
            outcome = job()
            _free_from_niceness()
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._ended, done, outcome)

    def _ended(self, done: Callable[[Any], None], outcome: Any) -> None:
        self._running -= 1
        self._start()
        done(outcome)
        threading.Thread(target=_return_memory, name="return memory", daemon=True).start()
