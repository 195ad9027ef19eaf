"""A watchdog over memory, for where no control group can be made: it adds up what processes hold, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from servable.lab.limits import size
from servable.lab.processes import Process, ProcessGroup

POLL_S = 0.02
_LOOKS = 10
"""The watchdog looks for new processes each so many polls: that costs a walk through all of the machine's."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


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
