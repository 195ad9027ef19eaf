"""``servable`` with a look, a thousand times a second of CPU, at which of its modules is at work.

    python -m bench.sampler COUNTS.json serve ...

SIGUSR1 begins anew, so that the start does not count. Written at the end: samples by module, each taken for the
innermost frame of Servable's own; what is beneath it (C code, other packages) counts as its. Time in which no callback
runs is the loop's: system calls, waiting, other threads.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import NoReturn

INTERVAL_S = 0.001
LOOP = "(event loop, system calls, engine threads)"
_PACKAGE = "/servable/"


def module_of(frame: FrameType | None) -> str:
    while frame is not None:
        _, found, rest = frame.f_code.co_filename.rpartition(_PACKAGE)
        if found and not rest.startswith(("cli/", "app/", "__main__")):
            return rest.removesuffix(".py")
        frame = frame.f_back
    return LOOP


def main() -> None:
    counts: Counter[str] = Counter()

    def look(_number: int, frame: FrameType | None) -> None:
        counts[module_of(frame)] += 1

    def begin(_number: int, _frame: FrameType | None) -> None:
        counts.clear()

    def leave(code: int) -> NoReturn:
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write_text(json.dumps(counts))
        end(code)

    out = Path(sys.argv[1])
    end, os._exit = os._exit, leave  # type: ignore[assignment]  # the way a server with busy threads ends
    sys.argv[:] = ["servable", *sys.argv[2:]]
    signal.signal(signal.SIGPROF, look)
    signal.signal(signal.SIGUSR1, begin)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        runpy.run_module("servable", run_name="__main__", alter_sys=True)
    finally:
        leave(0)


if __name__ == "__main__":
    main()
