"""What the processes that the forge starts have in common: their ends, and how they answer.

A child leads a group of its own, so that nothing it starts outlives it, and dies with its parent. It answers in lines
of JSON on what was standard output; what frameworks print there goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import traceback
from pathlib import Path
from typing import IO, Any, Final, TextIO

from servable.core.errors import Code, ServingError

_PR_SET_PDEATHSIG: Final = 1
_LONGEST_MESSAGE: Final = 600


def end_group(process: subprocess.Popen[Any]) -> None:
    """Kill a child and all that it started, unless that was done; nothing is left to wait for then."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def last_words(said: IO[bytes], lines: int) -> str:
    """Return the last lines that a child wrote to its standard error, in one; empty if it wrote nothing."""
    said.seek(0)
    found = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(found[-lines:])


def answering(parent: int) -> TextIO | None:
    """Return where the child's answers go, ``None`` if its parent is gone already. Called first of all."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return None
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return answers


def family(pid: int) -> list[int]:
    """Return a process and all that it started, and they, that run now."""
    found, at = [pid], 0
    while at < len(found):
        for path in Path(f"/proc/{found[at]}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                found += [int(word) for word in path.read_text().split()]
        at += 1
    return found


def failure(error: Exception) -> dict[str, str]:
    """Return what went wrong in the child as ``code`` and ``message``; the traceback of a surprise is printed."""
    if isinstance(error, ServingError):
        return {"code": error.code.name, "message": error.message}
    if isinstance(error, MemoryError):
        return {"code": Code.RESOURCE_EXHAUSTED.name, "message": "there is not enough memory"}
    if isinstance(error, OSError):
        return {"code": Code.FAILED_PRECONDITION.name, "message": str(error)}
    traceback.print_exception(error)
    said = " ".join(str(error).split())[:_LONGEST_MESSAGE]
    return {"code": Code.INTERNAL.name, "message": f"{type(error).__name__}: {said}"}
