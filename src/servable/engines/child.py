"""Any model in a process of its own: for frameworks that stall a process that serves, and for code that may crash.

``load_in_child`` starts ``python -m servable.engines.child`` (exec; no fork of a process with threads in it) and
returns a ``Model`` that computes there. The halves:

* ``child_model``, ``child_keeper``, ``child_process``: the parent's side;
* ``child_loop``: the child's side, around an ordinary engine;
* ``child_messages``, ``child_memory``: the messages in pipes, the tensors in shared memory;
* ``child_restart``: when to restart, and which calls not to try again.

Guarantees beyond those of every engine:

1. No child outlives its parent, however the parent ends; nothing stays behind in ``/dev/shm``.
2. A child that ends while it computes costs the calls that it had (UNAVAILABLE, at once) and nobody else's. It is
   started again with growing pauses; until then calls get UNAVAILABLE.
3. A call that ended a child twice is refused (INVALID_ARGUMENT) from then on.
4. What the model or its framework prints goes to the log ``servable.child``, line by line.
"""

from __future__ import annotations

import os
import signal
import sys
from ctypes import CDLL
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from servable.engines.base import Artifact, EngineOptions, Model

_PR_SET_PDEATHSIG = 1


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
    """Be the child: ``LABEL PARENT_PID READ_FD WRITE_FD REQUESTS_FD ANSWERS_FD``. The label is for ``ps`` to show."""
    parent, *fds = map(int, arguments[2:])
    _follow(parent)
    from servable.engines.child_loop import serve

    serve(*fds)


def _follow(parent: int) -> None:
    """End with the parent, also when it is killed; leave its signals to it."""
    CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked to be told
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main(sys.argv)
