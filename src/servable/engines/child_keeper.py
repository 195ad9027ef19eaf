"""Keeps a model's child alive: a thread that starts it, watches it to its end and starts it again."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from queue import SimpleQueue

from servable.core.errors import Code, ServingError, unavailable
from servable.core.progress import Progress
from servable.engines.base import LASTING_NICENESS
from servable.engines.child_messages import Load, Loaded
from servable.engines.child_process import ChildProcess, wait_readable
from servable.engines.child_restart import Backoff
from servable.engines.child_watch import Watch

log = logging.getLogger("servable.child")

_News = str | Loaded | ServingError


RESTART_PATIENCE_S = 5.0
"""How long a process that starts again runs on what others leave over, before it has ``LASTING_NICENESS``."""


class Keeper:
    """One model's child through all its lives. ``turn`` is held by whoever calls the child or takes it apart.

    ``memory_limit`` is in bytes; 0 is none.
    """

    def __init__(self, load: Load, label: str, memory_limit: int = 0) -> None:
        self.turn = threading.Lock()
        self._load = load
        self._memory_limit = memory_limit
        self._label = label
        self._live: ChildProcess | None = None
        self._reason = f"model {label} is not loaded"
        self._news: SimpleQueue[_News] = SimpleQueue()
        self._loaded_once = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._closing = False
        self._niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        """While the model loads: that of the thread which asked for it."""
        self._serving = False
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"child {label}", daemon=True)

    def start(self, report: Progress) -> Loaded:
        """Start the child and wait until it has loaded; raise what kept it from that."""
        self._thread.start()
        try:
            while isinstance(news := self._news.get(), str):
                report(news)
        except BaseException:
            self.close()
            raise
        if isinstance(news, ServingError):
            self.close()
            raise news
        return news

    def live(self) -> ChildProcess:
        """Return the process that answers calls; UNAVAILABLE if there is none now. For who holds ``turn``."""
        if self._live is None:
            raise unavailable(self._reason)
        return self._live

    def begin_serving(self) -> None:
        """Let the child, and those that come after it once they have loaded, compute as urgently as this process."""
        with self.turn:
            if self._live is not None:
                self._serving = self._live.renice(_niceness_of_serving())

    def close(self) -> None:
        """End the child for good: ask it, kill it if it does not go. Waits for the end. May be called twice."""
        with self._close_lock:
            if self._wake < 0:
                return
            self._closing = True
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)
            self._wake = -1

    def _keep(self) -> None:
        backoff = Backoff()
        while True:
            began = time.monotonic()
            error = self._live_once()
            if not self._loaded_once or self._closing:
                self._reason = f"model {self._label} was closed"
                self._news.put(error)
                return
            delay_s = backoff.delay_s(time.monotonic() - began)
            log.warning("%s; it is started again in %.1f s", error.message, delay_s)
            if wait_readable(self._wake, delay_s):
                self._reason = f"model {self._label} was closed"
                return

    def _live_once(self) -> ServingError:
        """Start the process and see it to its end; return an error that says how that was."""
        try:
            process = ChildProcess(self._label, self._load.intra_op_threads)
        except OSError as error:
            return ServingError(Code.RESOURCE_EXHAUSTED, f"no process can be started for {self._label}: {error}")
        impatience = threading.Timer(RESTART_PATIENCE_S, self._hurry, (process,))
        if self._serving:
            process.renice(self._niceness)  # it loads beside those who serve
            impatience.daemon = True
            impatience.start()
        watch = Watch(process, self._label, self._tell, lambda loaded: self._ready(process, loaded), self._memory_limit)
        with contextlib.suppress(BrokenPipeError):  # the watch finds out why
            process.channel.send(self._load)
        watch.until_end(self._wake, self.turn)
        impatience.cancel()
        self._live = None
        process.bury()
        end = watch.conclude()
        self._reason = f"{end.message}; it is being restarted"
        with self.turn:
            process.release()
        return end

    def _hurry(self, process: ChildProcess) -> None:
        """Give a process that is not back yet a share of a core that is never idle."""
        process.renice(min(self._niceness, LASTING_NICENESS))
        if self._live is process:
            process.renice(_niceness_of_serving())

    def _tell(self, line: str) -> None:
        if not self._loaded_once:
            self._news.put(line)

    def _ready(self, process: ChildProcess, loaded: Loaded) -> None:
        if self._loaded_once:
            log.info("the process of model %s is back", self._label)
        # For calls between its end and the moment when it is known how that was.
        self._reason = f"the process of model {self._label} ended; it is being restarted"
        self._live = process
        if self._serving:
            process.renice(_niceness_of_serving())
        if not self._loaded_once:
            self._loaded_once = True
            self._news.put(loaded)


def _niceness_of_serving() -> int:
    return os.getpriority(os.PRIO_PROCESS, os.getpid())
