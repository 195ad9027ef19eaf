"""A function of the forge in a process of its own: frameworks stay out of ours, and what crashes costs one step.

``run_apart`` is the parent's side, ``python -m servable.forge.worker`` the child's. The function is given by name and
takes JSON; big arrays go through files. Lines of progress come while it runs. What the frameworks print is kept, and
shown only if the process ends without an answer. The child dies with its parent, and with it all that it started.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

from servable.core.errors import Code, ServingError, internal
from servable.core.scratch import scratch

_PR_SET_PDEATHSIG: Final = 1
_LAST_LINES: Final = 5


def run_apart(
    function: str,
    arguments: Mapping[str, Any],
    report: Callable[[str], None] = lambda _line: None,
    *,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    cpus: frozenset[int] | None = None,
) -> Any:
    """Call ``module:function(report=..., **arguments)`` in a new process and return its JSON answer.

    ``function`` takes ``report``, a callable for lines of progress. ``python`` is another environment's interpreter
    if need be; ``cpus`` pins the process. Raises what the function raised if that was a ``ServingError``, INTERNAL
    with its last words otherwise. Ctrl-C and whatever else ends the wait kill the process and its group.
    """
    words = {"function": function, "arguments": dict(arguments), "parent": os.getpid()}
    with scratch() as folder, (folder / "said").open("w+") as said:
        process = subprocess.Popen(  # noqa: S603  # our own module
            [python, "-m", "servable.forge.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
            # What frameworks leave among temporary files goes with the folder, also when the worker is killed.
            env={**os.environ, "TMPDIR": str(folder), **(environment or {})},
        )
        try:
            if cpus is not None:
                os.sched_setaffinity(process.pid, cpus)
            answer = _converse(process, words, report)
        finally:
            _end(process)
        if answer is None:
            said.seek(0)
            lines = [line.strip() for line in said.read().splitlines() if line.strip()][-_LAST_LINES:]
            raise internal(f"{function} ended with {_ending(process.returncode)}: {' | '.join(lines) or 'no word'}")
    if "error" in answer:
        raise ServingError(Code[answer["error"]["code"]], answer["error"]["message"])
    return answer["result"]


def _converse(
    process: subprocess.Popen[str], words: Mapping[str, Any], report: Callable[[str], None]
) -> dict[str, Any] | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(words))
        process.stdin.close()
    answer: dict[str, Any] | None = None
    for line in process.stdout:
        message = json.loads(line)
        if "progress" in message:
            report(message["progress"])
        else:
            answer = message
    process.wait()
    return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the whole group: nothing that the function started may stay."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """Be the child: a JSON object on standard input; lines of JSON on what was standard output."""
    words = json.loads(sys.stdin.read())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != words["parent"]:
        return
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what frameworks print is not our protocol
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def tell(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    module, _, name = words["function"].partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
        result = found(**words["arguments"], report=lambda line: tell({"progress": line}))
        tell({"result": result})
    except ServingError as error:
        tell({"error": {"code": error.code.name, "message": error.message}})
    except MemoryError:
        tell({"error": {"code": "RESOURCE_EXHAUSTED", "message": f"{name}: there is not enough memory"}})
    except OSError as error:
        tell({"error": {"code": "FAILED_PRECONDITION", "message": f"{name}: {error}"}})
    except Exception as error:  # noqa: BLE001  # frameworks raise what they like
        traceback.print_exc()
        last = " ".join(str(error).split())[:600]
        tell({"error": {"code": "INTERNAL", "message": f"{type(error).__name__}: {last}"}})
    answers.flush()
    os._exit(0)  # frameworks' threads and finalizers have nothing left to say


if __name__ == "__main__":
    main()
