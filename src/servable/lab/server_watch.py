"""What a server on this machine takes while it is measured: CPU time and memory, by process."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

from servable.core.errors import not_found
from servable.lab.result import ServerCost, ServerProcess
from servable.transport.address import Address


class ServerWatch:
    """Looks at a process and all its descendants, without their help."""

    def __init__(self, pid: int) -> None:
        import psutil

        try:
            self._root = psutil.Process(pid)
        except psutil.NoSuchProcess:
            raise not_found(f"there is no process {pid}") from None
        self._before: dict[int, float] = {}
        self._after: dict[int, tuple[str, float, int]] = {}
        self._began = self._ended = 0.0

    def begin(self) -> None:
        """Note what each process has taken so far."""
        self._before = {pid: cpu for pid, (_, cpu, _) in self._look().items()}
        self._began = time.monotonic()

    def end(self) -> None:
        """Note it again."""
        self._after = self._look()
        self._ended = time.monotonic()

    def cost(self, requests: int) -> ServerCost | None:
        """Return the difference; ``None`` if the window was never closed."""
        elapsed = self._ended - self._began
        if not self._after or elapsed <= 0:
            return None
        found = []
        for pid, (name, cpu, rss) in self._after.items():
            spent = cpu - self._before.get(pid, 0.0)
            found.append(ServerProcess(pid, name, spent, spent / elapsed, rss))
        spent = sum(one.cpu_s for one in found)
        rss = sum(one.rss_bytes for one in found)
        return ServerCost(tuple(found), spent, spent / elapsed, rss, spent * 1e6 / max(requests, 1))

    def _look(self) -> dict[int, tuple[str, float, int]]:
        import psutil

        found: dict[int, tuple[str, float, int]] = {}
        try:
            processes: list[Any] = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return found
        for process in processes:
            try:
                times = process.cpu_times()
                found[process.pid] = (process.name(), times.user + times.system, process.memory_info().rss)
            except psutil.Error:  # it ended meanwhile
                continue
        return found


def listener_of(address: Address) -> int | None:
    """Return the process that listens at an address of this machine; ``None`` if it cannot be told."""
    try:
        import psutil
    except ImportError:
        return None
    if address.path is not None or not _is_loopback(address.host):
        return None
    try:
        connections: list[Any] = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    listening = [one for one in connections if one.status == psutil.CONN_LISTEN and one.laddr]
    pids = [one.pid for one in listening if one.laddr[1] == address.port and one.pid is not None]
    return min(pids) if pids else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
