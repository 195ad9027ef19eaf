"""Holding a server to memory and to a share of a core by control groups, where this process may make them.

They are exact: the kernel refuses the page too many. Version 2 has one group for all limits, the first version one in
each controller's own hierarchy; machines that mount both have each controller in one of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from servable.core.errors import failed_precondition
from servable.lab.limits import Limits

_NAME: Final = "servable-"
_PERIOD_US: Final = 100_000
_POLL_S: Final = 0.02
_REMOVE_S: Final = 2.0
_ENTER: Final = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 126; shift; done; shift; exec "$@"'
"""Shell: enter each group that is named before ``--``, then become the command behind it."""
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups might be made: the folder of each controller, "" for all of version 2."""

    folders: Mapping[str, Path]

    def parents(self, wanted: set[str]) -> Mapping[str, Path] | None:
        """Return the folder to make a group in for each controller; ``None`` if one of them is not to be had."""
        if "" not in self.folders:
            return {name: self.folders[name] for name in wanted} if wanted <= self.folders.keys() else None
        folder = self.folders[""]
        return (
            dict.fromkeys(wanted, folder) if wanted <= set(_read(folder / "cgroup.subtree_control").split()) else None
        )


class ControlGroup:
    """A control group of our own for one server. ``wrap`` makes a command start inside."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    @classmethod
    def create(cls, limits: Limits, places: Sequence[Place] | None = None) -> ControlGroup | None:
        """Make a group with these limits; ``None`` where that is not allowed."""
        wanted = {"memory"} if limits.memory_bytes is not None else set()
        wanted |= {"cpu"} if limits.shares_time else set()
        for place in own_places() if places is None else places:
            parents = place.parents(wanted)
            if parents is None:
                continue
            name = f"{_NAME}{os.getpid()}-{next(_numbers)}"
            made = cls({controller: folder / name for controller, folder in parents.items()})
            try:
                for folder in set(parents.values()):
                    _sweep(folder)
                    (folder / name).mkdir()
                made.limit(limits)
            except OSError:
                made.remove()
                continue
            return made
        return None

    def limit(self, limits: Limits) -> None:
        """Hold the group to the limits; ``OSError`` if the kernel refuses."""
        if limits.memory_bytes is not None:
            _limit_memory(self._folders["memory"], limits.memory_bytes)
        if limits.shares_time and limits.cpus is not None:
            _limit_cpus(self._folders["cpu"], limits.cpus)

    def wrap(self, words: Sequence[str]) -> list[str]:
        """Return the command with a first step that enters the group."""
        folders = sorted({str(folder) for folder in self._folders.values()})
        return ["sh", "-c", _ENTER, "servable", *folders, "--", *words]

    def killed(self) -> bool:
        """Return whether the kernel has ended a process of the group for want of memory."""
        folder = self._folders.get("memory")
        return folder is not None and any(
            line.startswith("oom_kill ") and line.split()[1] != "0"
            for name in ("memory.events", "memory.oom_control")
            for line in _read(folder / name).splitlines()
        )

    def remove(self) -> None:
        """Remove the group; its last processes may take a moment to go."""
        limit = time.monotonic() + _REMOVE_S
        for folder in self._folders.values():
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > limit:
                        break
                    time.sleep(_POLL_S)


def own_places(
    mounts: Path = Path("/proc/self/mountinfo"), membership: Path = Path("/proc/self/cgroup")
) -> list[Place]:
    """Return where this process might make groups: version 2 in its own or beside it, the first version in its own."""
    hierarchies = _hierarchies(_read(mounts))
    second: list[Place] = []
    first: dict[str, Path] = {}
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller not in hierarchies:
                continue
            root, mounted = hierarchies[controller]
            if not Path(path).is_relative_to(root):
                continue  # what is mounted here is another part of the hierarchy than ours
            own = mounted / Path(path).relative_to(root)
            if controller:
                first[controller] = own
            else:
                second = [Place({"": one}) for one in ([own] if own == mounted else [own, own.parent])]
    return [*second, Place(first)] if first else second


def require_share(limits: Limits) -> None:
    """Refuse a share of a core where there is no control group to hold anybody to it."""
    if limits.shares_time:
        raise failed_precondition(
            f"--cpus {limits.cpus:g} needs a control group, and this process may not make one: "
            "give a whole number of CPUs, or run it under systemd-run --scope"
        )


def _hierarchies(mountinfo: str) -> dict[str, tuple[str, Path]]:
    """Return each controller's part of the hierarchy that is mounted, and where; "" is version 2."""
    found: dict[str, tuple[str, Path]] = {}
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        fields, kind = mount.split(), source.split()
        if kind[:1] == ["cgroup2"]:
            found.setdefault("", (fields[3], Path(fields[4])))
        elif kind[:1] == ["cgroup"]:
            for option in kind[-1].split(","):
                found.setdefault(option, (fields[3], Path(fields[4])))
    return found


def _limit_memory(folder: Path, most_bytes: int) -> None:
    if (folder / "memory.limit_in_bytes").exists():  # the first version
        (folder / "memory.limit_in_bytes").write_text(str(most_bytes))
        swap = {"memory.swappiness": "0", "memory.memsw.limit_in_bytes": str(most_bytes)}
    else:
        (folder / "memory.max").write_text(str(most_bytes))
        swap = {"memory.swap.max": "0"}
    for name, value in swap.items():
        with contextlib.suppress(OSError):  # a machine without swap has no such files
            (folder / name).write_text(value)


def _limit_cpus(folder: Path, cpus: float) -> None:
    quota_us = round(cpus * _PERIOD_US)
    if (folder / "cpu.cfs_quota_us").exists():
        (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
    else:
        (folder / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")


def _sweep(parent: Path) -> None:
    """Remove groups that killed processes have left; one in which somebody still runs cannot be removed."""
    for left in parent.glob(f"{_NAME}*-*"):
        if not Path("/proc", left.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                left.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
