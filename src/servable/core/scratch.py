"""Folders to work in that do not stay, and an end that lets a command clear up after itself.

Ctrl-C, SIGTERM and a closed terminal unwind the stack. What is killed outright clears up nothing: its folder is locked
while it lives, so whoever works at the same place next sees that nobody does any more, and removes it. A lock, not a
process id, says so: ids come again, and mean nothing to another container that shares the place.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from servable.core.errors import Code, ServingError, failed_precondition

SCRATCH: Final = "servable-scratch-"
"""How folders among the machine's temporary files begin."""
_SCARCE_BYTES: Final = 1 << 20
_ENDINGS: Final = (signal.SIGTERM, signal.SIGHUP)


class EndedError(KeyboardInterrupt):
    """The process was asked to end by a signal other than that of Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def orderly_end() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does; a signal that is ignored (``nohup``) stays ignored.

    Once one came, further ones do not disturb the clearing up. Outside the main thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    ours = [number for number in _ENDINGS if before[number] not in (signal.SIG_IGN, None)]

    def end(number: int, _frame: object) -> None:
        for one in ours:
            signal.signal(one, signal.SIG_IGN)
        raise EndedError(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


@contextlib.contextmanager
def scratch(parent: Path | None = None, prefix: str = SCRATCH) -> Iterator[Path]:
    """Give a new folder in ``parent`` (default: among the machine's temporary files), and remove it in the end.

    Removes what killed processes have left there under the same prefix, too. FAILED_PRECONDITION if none can be made.
    """
    try:
        place = Path(tempfile.gettempdir()) if parent is None else parent
        sweep(place, prefix)
        folder, lock = _locked(place, prefix)
    except OSError as error:
        # gettempdir() itself tries to write, and says in its own words that it cannot.
        where = "" if parent is None and error.filename is None else f"{parent or tempfile.gettempdir()}: "
        raise failed_precondition(f"cannot work in {where}{error.strerror or error}") from None
    try:
        yield folder
    except (ServingError, OSError) as error:
        told = explained(error, place, _free_bytes(folder))
        if told is error:
            raise
        raise told from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def explained(error: ServingError | OSError, place: Path, free_bytes: float) -> ServingError | OSError:
    """Return an error that says so if the disk is full: frameworks then speak of streams, or name no file."""
    if free_bytes >= _SCARCE_BYTES:
        return error
    if isinstance(error, ServingError):
        if error.code not in {Code.INTERNAL, Code.FAILED_PRECONDITION, Code.UNAVAILABLE}:
            return error
        words = error.message
    else:
        words = str(error.args[0][0][2]) if isinstance(error, shutil.Error) else str(error)
    return ServingError(Code.RESOURCE_EXHAUSTED, f"{place} has {free_bytes:,} bytes left on its disk: {words}")


def _free_bytes(folder: Path) -> float:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return math.inf


def sweep(place: Path, prefix: str) -> None:
    """Remove folders of ours with that prefix in which nobody works any more."""
    for left in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _locked(place: Path, prefix: str) -> tuple[Path, int]:
    """Return a new folder and the lock that is held on it; one that a sweep took before the lock did is made again."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = not folder.exists()
        except BlockingIOError:
            taken = True
        except OSError:  # a file system without locks: nobody can sweep there either
            taken = False
        if not taken:
            return folder, lock
        os.close(lock)
