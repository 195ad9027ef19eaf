"""Start what is measured, with all that it starts; read what it takes, process by process; leave none of it behind.

Servers fork, daemonise, change sessions, ignore SIGTERM. So a group is more than a process group of the kernel: to it
belongs whoever descends from its first process, shares its process group, was seen in it before, or carries its mark
in the environment. Before the group is killed it is frozen, so that nobody forks meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from servable.core.errors import failed_precondition
from servable.lab.result import ServerCost, ServerProcess

MARK = "SERVABLE_LAB_GROUP"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36
LAST_THREADS_S = 5.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told from later ones with its number by when it began (clock ticks since boot)."""

    pid: int
    began: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process took since it began. ``ended_s`` is the CPU time of its children that have ended."""

    name: str
    user_s: float
    system_s: float
    ended_s: float
    peak_bytes: int

    @property
    def cpu_s(self) -> float:
        """All of its CPU time."""
        return self.user_s + self.system_s + self.ended_s


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    group: int
    state: str
    began: int
    user: int
    system: int
    ended: int


class ProcessGroup:
    """A running command. ``log`` takes what all of it prints. Leaving the ``with`` block ends it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        cores: Sequence[int] = (),
        directory: Path | None = None,
    ) -> None:
        self.log = log
        self._mark = uuid.uuid4().hex
        self._known: set[Process] = set()
        words = ["taskset", "-c", ",".join(map(str, cores)), *command] if cores else list(command)
        given = {**os.environ, **(environment or {}), MARK: self._mark}
        adopt_orphans()
        try:
            with log.open("ab") as output:
                self._leader = subprocess.Popen(  # noqa: S603  # to run a command is what this class is for
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=given,
                    cwd=directory,
                    start_new_session=True,
                )
        except OSError as error:
            raise failed_precondition(f"cannot start {words[0]}: {error.strerror}") from error
        self.pid = self._leader.pid
        self.members()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def exit_code(self) -> int | None:
        """Return how the first process ended, ``None`` while it runs."""
        return self._leader.poll()

    def members(self) -> list[Process]:
        """Return all processes of the group that have not ended."""
        table = _process_table()
        live = {Process(pid, stat.began) for pid, stat in table.items() if stat.state not in "ZX"}
        found = {process for process in live if process in self._known or self._belongs(process.pid, table)}
        while True:
            parents = {process.pid for process in found}
            born = {process for process in live - found if table[process.pid].parent in parents}
            if not born:
                break
            found |= born
        self._known |= found
        return sorted(found, key=lambda process: process.pid)

    def usage(self, *, known: bool = False) -> dict[Process, Usage]:
        """Return what each process of the group has taken so far; with ``known`` without a look for new ones."""
        found = {}
        for process in list(self._known) if known else self.members():
            usage = _usage(process)
            if usage is not None:
                found[process] = usage
        return found

    def wants_cpu(self) -> bool:
        """Return whether a thread of the group runs, or waits for its turn to."""
        for process in self._known:
            for path in Path(f"/proc/{process.pid}/task").glob("*/stat"):
                with contextlib.suppress(OSError):
                    if path.read_text(errors="replace").rpartition(")")[2].split(None, 1)[0] == "R":
                        return True
        return False

    def pause(self) -> None:
        """Stop the group where it is: it takes no CPU time until ``resume``. Nobody escapes by forking meanwhile."""
        stopped: set[Process] = set()
        while fresh := [process for process in self.members() if process not in stopped]:
            _signal(fresh, signal.SIGSTOP)
            stopped.update(fresh)

    def resume(self) -> None:
        """Let a paused group go on."""
        _signal(self.members(), signal.SIGCONT)

    def end(self, grace_s: float = 5.0) -> None:
        """Ask all of it to end, wait that long for it, then kill what is left. Safe to call twice."""
        limit = time.monotonic() + grace_s
        try:
            asked = self.members()
            _signal(asked, signal.SIGTERM)
            _signal(asked, signal.SIGCONT)
            while self.members() and time.monotonic() < limit:
                self._reap()
                time.sleep(0.01)
        finally:
            # Also when the asking or the wait is interrupted: whoever presses Ctrl-C twice still has no process left.
            while self.members():
                self.pause()
                _signal(self.members(), signal.SIGKILL)
                self._reap()
            # A process whose first thread has ended looks dead, but has no exit code before its last thread has too.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._leader.wait(LAST_THREADS_S)
            self._reap()

    def tail(self, lines: int = 8) -> str:
        """Return the last lines that the group has printed."""
        try:
            text = self.log.read_bytes()[-20_000:].decode(errors="replace")
        except OSError:
            return ""
        return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-lines:])

    def _belongs(self, pid: int, table: Mapping[int, _Stat]) -> bool:
        return pid == self.pid or table[pid].group == self.pid or self._is_marked(pid)

    def _is_marked(self, pid: int) -> bool:
        try:
            return f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def _reap(self) -> None:
        """Take the exit codes of the first process and of orphans that became ours."""
        self._leader.poll()
        for process in self._known:
            if process.pid != self.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)


def adopt_orphans() -> None:
    """Have orphaned descendants become children of this process, where they are found, not of the machine's init."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def server_cost(
    before: Mapping[Process, Usage], after: Mapping[Process, Usage], *, wall_s: float, requests: int
) -> ServerCost:
    """Say what a group took between two looks at it. Who began in between counts from its begin."""
    processes = []
    for process, now in after.items():
        then = before.get(process)
        cpu_s = now.cpu_s - (then.cpu_s if then is not None else 0.0)
        processes.append(ServerProcess(process.pid, now.name, cpu_s, cpu_s / wall_s, now.peak_bytes))
    processes.sort(key=lambda process: -process.cpu_s)
    cpu_s = sum(process.cpu_s for process in processes)
    return ServerCost(
        tuple(processes),
        cpu_s,
        cpu_s / wall_s,
        sum(process.rss_bytes for process in processes),
        cpu_s / requests * 1e6 if requests else 0.0,
    )


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface that nobody has now."""
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in found]


def _signal(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        stat = _stat(process.pid)
        if stat is not None and stat.began == process.began:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _process_table() -> dict[int, _Stat]:
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # a Path for each of hundreds of entries is half of the time
        if name.isdecimal():
            stat = _stat(int(name))
            if stat is not None:
                found[int(name)] = stat
    return found


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold spaces and brackets itself.
    fields = text.rpartition(")")[2].split()
    ticks = [int(fields[index]) for index in (11, 12, 13, 14)]
    return _Stat(int(fields[1]), int(fields[2]), fields[0], int(fields[19]), ticks[0], ticks[1], ticks[2] + ticks[3])


def _usage(process: Process) -> Usage | None:
    stat = _stat(process.pid)
    if stat is None or stat.began != process.began:
        return None
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(errors="replace")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    peak = int(lines.get("VmHWM", "0 kB").split()[0]) * 1024
    user, system, ended = (count / _TICKS_PER_S for count in (stat.user, stat.system, stat.ended))
    return Usage(_name(process.pid) or lines["Name"].strip(), user, system, ended, peak)


def _name(pid: int) -> str:
    """Return what tells a process from its siblings: the program, and for an interpreter the script or module."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return ""
    names = [word.rpartition("/")[2] for word in words]
    if names[0].startswith("python") and len(names) > 1:
        if "-m" in words[:4]:
            return " ".join(names[words.index("-m") + 1 :][:1])
        scripts = [name for name in names[1:] if name.endswith(".py")]
        return scripts[0] if scripts else " ".join(names)[:40]
    return names[0][:40]
