"""One artifact, loaded under one configuration in a fresh process: it is timed there, and asked, and then killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from servable.core.errors import Code, ServingError, internal
from servable.core.scratch import scratch
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array, dtype_named
from servable.engines.base import Artifact
from servable.engines.plan import choose
from servable.engines.tuned_plan import Setting
from servable.forge import arrays
from servable.forge.apart import end_group, family, last_words
from servable.forge.arrays import Tensors
from servable.forge.verify import Question

LOAD_TIMEOUT_S: Final = 300.0
_SLACK_S: Final = 120.0
"""What a batch may take beyond its budget before the process is given up."""
_LAST_LINES: Final = 3
_KIB: Final = 1024


class Probe:
    """A child process with one candidate. Use it in ``with``; every method raises ``ServingError`` if it ends.

    ``cpus`` pins it. ``as_served`` gives an engine that wants a process of its own one, as a server does; else this
    process is the one. It lives until the ``with`` ends, and never longer than this process.
    """

    def __init__(
        self,
        artifact: Artifact,
        setting: Setting,
        *,
        cpus: Collection[int] | None = None,
        as_served: bool = False,
        saved_model_tags: Sequence[str] = ("serve",),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.artifact = artifact
        self.setting = setting
        self._cpus = frozenset(cpus) if cpus else None
        self._as_served = as_served
        self._tags = list(saved_model_tags)
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._over: ServingError | None = None
        self._said: Any = None
        self._folder: Path | None = None
        self._held = contextlib.ExitStack()
        self.signatures: dict[str, Signature] = {}
        """What the artifact can be asked, once it is loaded. Of defaults only the names are known."""

    def __enter__(self) -> Self:
        """Start the process; it has loaded nothing yet."""
        self._folder = self._held.enter_context(scratch())
        self._said = self._held.enter_context((self._folder / "said").open("w+b"))
        self._process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-P", "-m", "servable.forge.probe_child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self._folder), **self._environment},
        )
        try:
            if self._cpus is not None:
                os.sched_setaffinity(self._process.pid, self._cpus)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it and what it started."""
        self._kill()
        self._held.close()

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._running().pid

    def load(self, timeout_s: float = LOAD_TIMEOUT_S) -> dict[str, Any]:
        """Load the artifact; return ``engine``, ``load_s``, ``user_s``, ``system_s`` and ``baseline_bytes``."""
        setting = self.setting
        choice = choose(self.artifact, setting.engine or None, setting.precision)
        options = {
            "intra_op_threads": setting.intra_op_threads,
            "inter_op_threads": setting.inter_op_threads,
            "streams": setting.streams,
            "saved_model_tags": self._tags,
        }
        found: dict[str, Any] = self._order(
            "load",
            timeout_s,
            artifact=[self.artifact.kind, str(self.artifact.path), str(self.artifact.settings or "")],
            options=options,
            choice=[choice.engine, choice.precision],
            as_served=self._as_served,
        )
        self.signatures = {one[0]: _signature(one) for one in found.pop("signatures")}
        return found

    def feed(self, rows: Tensors | None = None, signature: str = "") -> None:
        """Give it the rows that batches are cut from, for a signature (default: the main one). ``None``: made up."""
        path = ""
        if rows is not None:
            path = str(self._file("rows.npz"))
            arrays.save(Path(path), [rows])
        self._order("feed", LOAD_TIMEOUT_S, path=path, signature=signature)

    def first_run(self, rows: int) -> float:
        """Run one batch once, warm or not; return the seconds."""
        return float(self._order("first", LOAD_TIMEOUT_S, rows=rows)["seconds"])

    def time(self, rows: int, budget_s: float, *, least: int = 3, most: int = 2000) -> list[float]:
        """Run batches of one size for so long, after one that does not count; return the seconds of each."""
        order = {"rows": rows, "budget_s": budget_s, "least": least, "most": most}
        return list(self._order("time", 4 * budget_s + _SLACK_S, **order)["seconds"])

    def answers(self, asked: Sequence[Question]) -> list[Tensors]:
        """Return what the model answers to each question."""
        questions, answered = self._file("asked.npz"), self._file("answered.npz")
        arrays.save(questions, [question.inputs for question in asked])
        self._order(
            "answer",
            LOAD_TIMEOUT_S,
            asked=str(questions),
            signatures=[question.signature for question in asked],
            answered=str(answered),
            probes=[question.probe for question in asked],
        )
        return list(arrays.load(answered))

    def memory(self) -> int:
        """Return the resident bytes of the process and of those that it started."""
        return sum(_status(pid, "VmRSS:") for pid in family(self.pid))

    def peak_memory(self) -> int:
        """Return the most that each of them had, together, in bytes."""
        return sum(_status(pid, "VmHWM:") for pid in family(self.pid))

    def _order(self, order: str, timeout_s: float, **words: Any) -> Any:
        process = self._running()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"order": order, **words}).encode() + b"\n")
        line = self._read_line(process, timeout_s)
        if not line:
            raise self._ended(process)
        answer = json.loads(line)
        if "ok" in answer:
            return answer["ok"]
        raise ServingError(Code[answer["code"]], answer["message"])

    def _read_line(self, process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        if not poll.poll(1000 * timeout_s):
            self._kill()
            self._over = ServingError(Code.DEADLINE_EXCEEDED, f"it took longer than {timeout_s:g} s and was ended")
            raise self._over
        # The child writes whole lines: once one has begun, the rest is on its way.
        parts: list[bytes] = []
        while chunk := process.stdout.read(1 << 16):
            parts.append(chunk)
            if chunk.endswith(b"\n"):
                break
        line = b"".join(parts)
        return line if line.endswith(b"\n") else b""

    def _ended(self, process: subprocess.Popen[bytes]) -> ServingError:
        self._kill()
        code = process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", perhaps for want of memory"
        said = last_words(self._said, _LAST_LINES)[:400]
        self._over = internal(f"its process {how}" + (f": {said}" if said else ""))
        return self._over

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise internal("the probe was not started")
        if self._over is not None:
            raise self._over
        return self._process

    def _kill(self) -> None:
        if self._process is not None:
            end_group(self._process)

    def _file(self, name: str) -> Path:
        assert self._folder is not None, "the probe was not started"
        return self._folder / name


def _signature(described: Sequence[Any]) -> Signature:
    name, inputs, outputs, given, streamed = described
    sides = [
        {
            word: TensorSpec(word, dtype_named(dtype), None if shape is None else tuple(shape), node)
            for word, dtype, shape, node in specs
        }
        for specs in (inputs, outputs)
    ]
    defaults: dict[str, Array] = {word: np.empty(0) for word in given}
    return Signature(name, sides[0], sides[1], defaults=defaults, streamed=streamed)


def _status(pid: int, key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * _KIB
    return 0
