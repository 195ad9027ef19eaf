"""Any model in a process of its own: for frameworks that stall a process that serves, and for code that may crash.

``load_in_child`` starts ``python -m servable.engines.child`` (exec; no fork of a process with threads in it) and
returns a ``Model`` that computes there. The halves:

* ``child_model``, ``child_keeper``, ``child_process``: the parent's side;
* ``child_loop``: the child's side, around an ordinary engine;
* ``child_messages``, ``child_memory``: the messages in pipes, the tensors in shared memory;
* ``child_restart``: when to restart, and which calls not to try again.

Guarantees beyond those of every engine:

1. No child outlives its parent, however the parent ends, nor does what the model started, unless that left the
   child's process group; nothing stays behind in ``/dev/shm``.
2. A child that ends while it computes costs the calls that it had (UNAVAILABLE, at once) and nobody else's. It is
   started again with growing pauses; until then calls get UNAVAILABLE.
3. A call that ended a child twice is refused (INVALID_ARGUMENT) from then on.
4. A call that takes longer than ``child_timeout_s``, or a process that takes more memory than ``child_memory_mb``, ends
   the process; both are options, off by default.
5. What the model or its framework prints goes to the log ``servable.child``, line by line.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from servable.engines.base import Artifact, EngineOptions, Model


def load_in_child(engine_name: str, artifact: Artifact, options: EngineOptions, *, label: str = "") -> Model:
    """Load an artifact with that engine in a new process and return it as a model of this one.

    Blocks until the model is loaded. ``label`` names the model in logs and errors; the default is taken
    from its path. Raises what the engine raises; INTERNAL, with the last lines it printed, if the process ends instead.
    """
    from servable.engines.child_model import ChildModel

    return ChildModel(engine_name, artifact, options, label or label_of(artifact.path))


def label_of(path: Path) -> str:
    """Return what people call the model at a path: its name and version where the path has them."""
    parts = path.parts
    end = next((index + 1 for index in reversed(range(len(parts))) if parts[index].isdecimal()), len(parts))
    return "/".join(parts[max(0, end - 2) : end])


def main(arguments: list[str]) -> None:
    """Be the child: ``LABEL PARENT_PID LIFELINE_FD READ_FD WRITE_FD REQUESTS_FD ANSWERS_FD``; the label is for ``ps``.

    It must lead a process group of its own.
    """
    parent, lifeline, *fds = map(int, arguments[2:])
    _follow(parent, lifeline)
    from servable.engines.child_loop import serve

    serve(*fds)


def _follow(parent: int, lifeline: int) -> None:
    """End with the parent, also when it is killed, with all that this process started; leave its signals to it.

    The lifeline is a pipe of which only the parent has the other end. When that closes, the kernel sends our process
    group SIGKILL in place of SIGIO. (A parent-death signal would reach this process alone.)
    """
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked to be told
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main(sys.argv)
