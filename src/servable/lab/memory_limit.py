"""Holding a group of processes to an amount of memory: by a control group where we may make one, else by looking.

A control group (version 2) is exact: the kernel refuses the page too many. Where no group can be made, a watchdog adds
up what the processes hold and ends them when that is too much. Both say so; neither waits for the machine to swap.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from servable.core.errors import failed_precondition
from servable.lab.limits import Limits, size
from servable.lab.processes import Process, ProcessGroup

POLL_S = 0.02
_LOOKS = 10
"""The watchdog looks for new processes each so many polls: that costs a walk through all of the machine's."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PERIOD_US = 100_000
_REMOVE_S = 2.0
_numbers = count(1)


class ControlGroup:
    """A control group of our own for one server. ``wrap`` makes a command start inside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def create(cls, limits: Limits, parents: Sequence[Path] | None = None) -> ControlGroup | None:
        """Make a group with these limits; ``None`` where that is not allowed."""
        wanted = {"memory"} if limits.memory_bytes is not None else set()
        wanted |= {"cpu"} if limits.shares_time else set()
        for parent in own_groups() if parents is None else parents:
            try:
                if wanted <= set((parent / "cgroup.subtree_control").read_text().split()):
                    folder = parent / f"servable-{os.getpid()}-{next(_numbers)}"
                    folder.mkdir()
                    made = cls(folder)
                    made.limit(limits)
                    return made
            except OSError:
                continue
        return None

    def limit(self, limits: Limits) -> None:
        """Hold the group to the limits."""
        try:
            if limits.memory_bytes is not None:
                (self._folder / "memory.max").write_text(str(limits.memory_bytes))
                with contextlib.suppress(OSError):
                    (self._folder / "memory.swap.max").write_text("0")
            if limits.shares_time and limits.cpus is not None:
                (self._folder / "cpu.max").write_text(f"{round(limits.cpus * _PERIOD_US)} {_PERIOD_US}")
        except OSError:
            self.remove()
            raise

    def wrap(self, words: Sequence[str]) -> list[str]:
        """Return the command with a first step that enters the group."""
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self._folder), *words]

    def killed(self) -> bool:
        """Return whether the kernel has ended a process of the group for want of memory."""
        with contextlib.suppress(OSError):
            events = dict(line.split() for line in (self._folder / "memory.events").read_text().splitlines())
            return int(events.get("oom_kill", "0")) > 0
        return False

    def remove(self) -> None:
        """Remove the group; its last processes may take a moment to go."""
        limit = time.monotonic() + _REMOVE_S
        while self._folder.exists():
            try:
                self._folder.rmdir()
            except OSError:
                if time.monotonic() > limit:
                    return
                time.sleep(POLL_S)


def own_groups(mounts: Path = Path("/proc/self/mounts"), membership: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """Return where this process might make control groups: in its own, or beside it."""
    try:
        roots = [Path(line.split()[1]) for line in mounts.read_text().splitlines() if line.split()[2] == "cgroup2"]
        inside = [line[3:] for line in membership.read_text().splitlines() if line.startswith("0::/")]
    except (OSError, IndexError):
        return []
    if not roots or not inside:
        return []
    own = roots[0] / inside[0].lstrip("/")
    return [own, own.parent] if own != roots[0] else [own]


@dataclass(slots=True)
class MemoryWatch:
    """Looks at what a group of processes holds, and ends the group when that is above ``limit_bytes``."""

    limit_bytes: int
    peak_bytes: int = 0
    verdict: str = ""
    """Why the group was ended; empty while it was not."""

    async def follow(self, group: Callable[[], ProcessGroup | None], on_kill: Callable[[], None]) -> None:
        """Look until cancelled; ``group`` may not be there yet."""
        began, known = time.monotonic(), list[Process]()
        for number in count():
            found = group()
            if found is not None and not self.verdict:
                if number % _LOOKS == 0 or not known:
                    known = found.members()
                if self._is_too_much(known):
                    after_s = time.monotonic() - began
                    self.verdict = (
                        f"out of memory: {size(self.peak_bytes)} of {size(self.limit_bytes)} after {after_s:.1f} s"
                    )
                    found.end(grace_s=0.0)
                    on_kill()
            await asyncio.sleep(POLL_S)

    def _is_too_much(self, processes: Sequence[Process]) -> bool:
        held = sum(resident_bytes(process.pid) for process in processes)
        if held > self.limit_bytes and len(processes) > 1:
            # Pages that several of them share are counted once for each above; the exact sum takes longer to get.
            held = sum(proportional_bytes(process.pid) for process in processes)
        self.peak_bytes = max(self.peak_bytes, held)
        return held > self.limit_bytes


def resident_bytes(pid: int) -> int:
    """Return what a process holds in memory now; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def proportional_bytes(pid: int) -> int:
    """Return that, with shared pages divided among those who share them."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return resident_bytes(pid)


def require_share(limits: Limits) -> None:
    """Refuse a share of a core where there is no control group to hold anybody to it."""
    if limits.shares_time:
        raise failed_precondition(
            f"--cpus {limits.cpus:g} needs a control group, and this process may not make one: "
            "give a whole number of CPUs, or run it under systemd-run --scope"
        )
