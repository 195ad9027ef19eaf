"""A function of the forge in a process of its own: frameworks stay out of ours, and what crashes costs one step.

``run_apart`` is the parent's side, ``python -m servable.forge.worker`` the child's. The function is given by name and
takes JSON; big arrays go through files. Lines of progress come while it runs. What the frameworks print is kept, and
shown only if the process ends without an answer. The child dies with its parent, and with it all that it started.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from servable.core.errors import Code, ServingError, internal
from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.forge.apart import answering, end_group, failure, last_words

_LAST_LINES: Final = 5


def run_apart(
    function: str,
    arguments: Mapping[str, Any],
    report: Progress = unheard,
    *,
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    path: Sequence[str] = (),
    cpus: frozenset[int] | None = None,
) -> Any:
    """Call ``module:function(report=..., **arguments)`` in a new process and return its JSON answer.

    ``function`` takes ``report``, a callable for lines of progress. ``python`` is another environment's interpreter
    if need be, and ``path`` the folders that it finds behind its own packages; ``cpus`` pins the process. Raises what
    the function raised if that was a ``ServingError``, INTERNAL
    with its last words otherwise. Ctrl-C and whatever else ends the wait kill the process and its group.
    """
    order = {"function": function, "arguments": dict(arguments), "parent": os.getpid()}
    with scratch() as folder, (folder / "said").open("w+b") as said:
        process = subprocess.Popen(  # noqa: S603  # our own module
            _command(python, path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
            # What frameworks leave among temporary files goes with the folder, also when the worker is killed.
            env={**(_neutral(os.environ) if path else os.environ), "TMPDIR": str(folder), **(environment or {})},
        )
        try:
            if cpus is not None:
                os.sched_setaffinity(process.pid, cpus)
            answer = _converse(process, order, report)
        finally:
            end_group(process)
        if answer is None:
            words = last_words(said, _LAST_LINES) or "no word"
            raise internal(f"{function} ended with {_ending(process.returncode)}: {words}")
        if "error" in answer:
            raise ServingError(Code[answer["error"]["code"]], answer["error"]["message"])
    return answer["result"]


def _command(python: str, path: Sequence[str]) -> list[str]:
    if not path:
        return [python, "-m", "servable.forge.worker"]
    # Behind its own packages, and without the folder that we happen to be in.
    code = f"import sys; sys.path += {list(path)!r}; from servable.forge.worker import main; main()"
    return [python, "-P", "-c", code]


def _neutral(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those that put our packages before another environment's."""
    return {name: value for name, value in environment.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


def _converse(process: subprocess.Popen[str], order: Mapping[str, Any], report: Progress) -> dict[str, Any] | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order))
        process.stdin.close()
    answer: dict[str, Any] | None = None
    for line in process.stdout:
        message = json.loads(line)
        if "progress" in message:
            report(message["progress"])
        else:
            answer = message
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its id is its group's, and stays taken until that ends
    return answer


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "SIGKILL, perhaps for want of memory"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def function_named(text: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names; its module is imported now."""
    module, _, name = text.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def main() -> None:
    """Be the child: a JSON object on standard input; lines of JSON on what was standard output."""
    order = json.loads(sys.stdin.read())
    answers = answering(order["parent"])
    if answers is None:
        return

    def tell(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        result = function_named(order["function"])(**order["arguments"], report=lambda line: tell({"progress": line}))
        tell({"result": result})
    except Exception as error:  # noqa: BLE001  # frameworks raise what they like
        tell({"error": failure(error)})
    answers.flush()
    os._exit(0)  # frameworks' threads and finalizers have nothing left to say


if __name__ == "__main__":
    main()
