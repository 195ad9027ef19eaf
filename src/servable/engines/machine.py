"""What this process may use of the machine: CPUs and memory, as affinity, cpusets and cgroups leave them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

MEMBERSHIPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
CPUINFO = Path("/proc/cpuinfo")
UNLIMITED_V1 = 1 << 60
"""The first version of cgroups writes a number near 2**63 for no limit."""

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Cpus:
    """``online`` CPUs of the machine, those this process may run on (a cpuset counts), and its quota in CPUs."""

    online: int
    usable: tuple[int, ...]
    quota: float | None

    @property
    def threads(self) -> int:
        """How many threads can compute at once: usable CPUs, cut by the quota.

        A fraction of a CPU is left to the threads that feed the engine; there is always one.
        """
        count = len(self.usable)
        return count if self.quota is None else max(1, min(count, int(self.quota)))

    def __str__(self) -> str:
        """Return it for people."""
        quota = "" if self.quota is None else f", quota {self.quota:g}"
        return f"{len(self.usable)} of {self.online} CPUs{quota}"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: what the cgroups allow (``None`` is no limit), and what could be had now."""

    limit: int | None
    available: int | None


def cpus(memberships: Path = MEMBERSHIPS, cgroups: Path = CGROUPS) -> Cpus:
    """Return the CPUs this process may use."""
    usable = tuple(sorted(os.sched_getaffinity(0)))
    found = _each_group(memberships, cgroups, "cpu", _quota_v2, _quota_v1)
    return Cpus(os.cpu_count() or len(usable), usable, min(found, default=None))


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """Return what the processor calls itself; the architecture where it has no name."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.machine()


def cpu_threads(memberships: Path = MEMBERSHIPS, cgroups: Path = CGROUPS) -> int:
    """Return how many threads can compute at once here."""
    return cpus(memberships, cgroups).threads


def memory(memberships: Path = MEMBERSHIPS, cgroups: Path = CGROUPS, meminfo: Path = MEMINFO) -> Memory:
    """Return the memory this process may use: the least of the machine's and of each cgroup around it."""
    found = _each_group(memberships, cgroups, "memory", _memory_v2, _memory_v1)
    free = [limit - used for limit, used in found]
    in_machine = _available(meminfo)
    if in_machine is not None:
        free.append(in_machine)
    return Memory(min((limit for limit, _ in found), default=None), max(0, min(free)) if free else None)


def _each_group(
    memberships: Path,
    cgroups: Path,
    controller: str,
    v2: Callable[[Path], Found | None],
    v1: Callable[[Path], Found | None],
) -> list[Found]:
    """Return what this process's cgroups, and those around them, say of one controller."""
    try:
        lines = memberships.read_text().splitlines()
    except OSError:
        return []
    found: list[Found] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _on_path(cgroups, path, v2)
        elif controller in controllers.split(","):
            found += _on_path(cgroups / controller, path, v1)
    return found


def _on_path(root: Path, path: str, read: Callable[[Path], Found | None]) -> list[Found]:
    # Inside a container the path may be the host's, which is not mounted here: then only the root's own files count.
    inside = PurePosixPath(path.lstrip("/"))
    groups = [root / parent for parent in (inside, *inside.parents)]
    found = [read(group) for group in groups if group.is_dir()]
    return [one for one in found if one is not None]


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None


def _memory_v2(group: Path) -> tuple[int, int] | None:
    limit = _number(group / "memory.max")  # "max" is no number
    return None if limit is None else (limit, _number(group / "memory.current") or 0)


def _memory_v1(group: Path) -> tuple[int, int] | None:
    limit = _number(group / "memory.limit_in_bytes")
    if limit is None or limit >= UNLIMITED_V1:
        return None
    return limit, _number(group / "memory.usage_in_bytes") or 0


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _available(meminfo: Path) -> int | None:
    """Return what the kernel could give without swapping, in bytes."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
