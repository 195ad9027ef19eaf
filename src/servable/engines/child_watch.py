"""Sees one process to its end: its messages while it loads, and every line it prints."""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable

from servable.core.errors import Code, ServingError, internal
from servable.engines.child_messages import Failure, Loaded, Progress
from servable.engines.child_process import ChildProcess, wait_readable

log = logging.getLogger("servable.child")

MIB = 1024 * 1024
GRACE_S = 2.0
"""How long a child may take to finish a call, and to end, when it is asked to; then it is killed."""
MEMORY_LOOK_S = 0.1
"""How often the memory of a child with a limit is looked at."""
_TAIL_LINES = 20
_LONGEST_LINE = 8192
_CHUNK = 65536


class Watch:
    """The watch over one process. ``tell`` gets lines of progress, ``ready`` is called when the model is loaded.

    ``memory_limit`` is in bytes; 0 is none.
    """

    def __init__(
        self,
        process: ChildProcess,
        label: str,
        tell: Callable[[str], None],
        ready: Callable[[Loaded], None],
        memory_limit: int,
    ) -> None:
        self._process = process
        self._label = label
        self._tell = tell
        self._ready = ready
        self._memory_limit = memory_limit
        self._loading = True
        self._failure: ServingError | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._partial = b""
        self._deadline: float | None = None

    def until_end(self, wake_fd: int, turn: threading.Lock) -> None:
        """Return when the process has ended. When ``wake_fd`` is readable, make it end between two calls."""
        process = self._process
        with selectors.PollSelector() as selector:
            selector.register(process.log_fd, selectors.EVENT_READ, self._read_log)
            selector.register(process.channel.read_fd, selectors.EVENT_READ, self._read_messages)
            selector.register(wake_fd, selectors.EVENT_READ, lambda: self._part(turn))
            selector.register(process.pid_fd, selectors.EVENT_READ)
            ended = False
            while not ended:
                events = selector.select(self._patience_s())
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    process.kill()
                    self._deadline = None
                if self._memory_limit:
                    self._bound_memory()
                for key, _ in events:
                    if key.data is None:
                        ended = True
                    elif key.data():
                        selector.unregister(key.fileobj)

    def _patience_s(self) -> float | None:
        waits = [] if self._deadline is None else [max(0.0, self._deadline - time.monotonic())]
        return min([*waits, MEMORY_LOOK_S] if self._memory_limit else waits, default=None)

    def _bound_memory(self) -> None:
        taken, limit = self._process.memory, self._memory_limit
        if taken > limit:
            self._process.kill(
                f"was killed because it took {taken // MIB} MiB of memory, "
                f"more than its {limit // MIB} (--child_memory_mb)"
            )

    def conclude(self) -> ServingError:
        """Read what the process left unread and return how it ended, as an error. Call it after ``bury``."""
        process = self._process
        while wait_readable(process.log_fd, 0) and not self._read_log():
            pass
        while self._loading and wait_readable(process.channel.read_fd, 0) and not self._read_messages():
            pass
        if self._partial:
            self._say(self._partial)
        if self._failure is not None:
            return self._failure
        ended = f"the process of model {self._label} {process.end()}"
        if not self._loading:
            return ServingError(Code.UNAVAILABLE, ended)
        last = "\n".join(self._tail)
        return internal(f"{ended} while it loaded" + (f"; its last lines were:\n{last}" if last else ""))

    def _read_log(self) -> bool:
        """Log the lines that are there; true at the end."""
        chunk = os.read(self._process.log_fd, _CHUNK)
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > _LONGEST_LINE:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._say(line)
        return not chunk

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="backslashreplace").rstrip()
        if text:
            self._tail.append(text)
            log.info("%s: %s", self._label, text)

    def _read_messages(self) -> bool:
        """Take in what the child says about its load; true when it has nothing more to say."""
        channel = self._process.channel
        more = channel.fill()
        while (message := channel.pop()) is not None:
            if isinstance(message, Progress):
                self._tell(message.line)
            elif isinstance(message, Failure):
                self._failure = ServingError(Code(message.code), message.message)
                return True
            elif isinstance(message, Loaded):
                self._loading = False
                self._ready(message)
                return True  # from here on the channel belongs to those who call
        return not more

    def _part(self, turn: threading.Lock) -> bool:
        """Let the process end: after the call that is under way, if that does not take too long."""
        if not self._loading and turn.acquire(timeout=GRACE_S):
            self._process.channel.finish()
            turn.release()
            self._deadline = time.monotonic() + GRACE_S
        else:
            self._process.kill()
        return True
