"""The machine that measures: what it is, how busy it was, and what a hypervisor kept from it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from servable.lab.result import Machine

FULL = 0.97
"""Above this share of all processors nobody had any to spare."""
MUCH_STOLEN = 0.01
_STEAL, _IDLE, _IOWAIT = 7, 3, 4
_LIBRARIES = ("servable", "numpy", "protobuf", "uvloop", "httptools", "orjson", "hdrhistogram")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Ticks of all processors since boot; ``None`` where the system does not tell."""

    total: int
    idle: int
    steal: int
    cores: int


@dataclass(frozen=True, slots=True)
class Busy:
    """How the processors spent a time: shares from 0 to 1."""

    share: float | None = None
    steal_share: float | None = None
    cores: int = 0


def cpu_times() -> CpuTimes | None:
    """Read the processors' times."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    ticks = [int(word) for word in lines[0].split()[1:9]]
    cores = sum(1 for line in lines if re.match(r"cpu\d", line))
    return CpuTimes(sum(ticks), ticks[_IDLE] + ticks[_IOWAIT], ticks[_STEAL], cores)


def busy(before: CpuTimes | None, after: CpuTimes | None) -> Busy:
    """Return how the processors spent the time between."""
    if before is None or after is None or after.total <= before.total:
        return Busy()
    total = after.total - before.total
    return Busy(1 - (after.idle - before.idle) / total, (after.steal - before.steal) / total, after.cores)


def describe() -> Machine:
    """Return what this machine is."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=_system(),
        host=platform.node(),
        cpu_quota=_quota(),
    )


def versions() -> dict[str, str]:
    """Return the versions of what a request passes through on this side."""
    found = {"python": sys.version.split()[0]}
    for library in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    with contextlib.suppress(OSError):
        return f"{platform.system()} {platform.release()}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    return f"{platform.system()} {platform.release()}"


def _quota() -> float | None:
    with contextlib.suppress(OSError, ValueError):
        allowed, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if allowed == "max" else int(allowed) / int(period)
    return None
