"""What a process takes while it works: CPU, memory, threads, and the graphics processors' share, if there are any."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from servable.forge.apart import family

INTERVAL_S: Final = 0.05
GPU_INTERVAL_S: Final = 0.5
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_GPU_QUERY: Final = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")
_GPU_TIMEOUT_S: Final = 5.0


class Gpu(NamedTuple):
    """All graphics processors together: the mean of how busy they are (0 to 1), and the memory in use."""

    busy: float
    memory_bytes: int


class Usage(NamedTuple):
    """One look at a process and its children. ``cores`` is CPU seconds a second since the look before."""

    at: float
    cores: float
    rss_bytes: int
    threads: int
    gpu: Gpu | None = None


class Phase(NamedTuple):
    """A part of a process's life; times of ``time.monotonic()``."""

    name: str
    began: float
    ended: float


class _Totals(NamedTuple):
    at: float
    cpu_s: float
    rss_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a phase took: means and most over its samples; ``cores`` is exact, from first to last."""

    phase: str
    seconds: float
    samples: int
    cores: float | None
    rss_mean: float | None
    rss_most: int | None
    threads: int | None
    gpu_busy: float | None = None
    gpu_memory: int | None = None


class Sampler:
    """Looks at this process from a thread of its own, until it is stopped."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.samples: list[Usage] = []
        self.phases: list[Phase] = []
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._pid = os.getpid()
        self._last = _totals(self._pid)
        self._gpu: Gpu | None = None
        self._gpu_at = -GPU_INTERVAL_S
        self._has_gpu = shutil.which("nvidia-smi") is not None
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look once more, and no more."""
        self._ended.set()
        self._thread.join()
        self._look()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Say what is done meanwhile."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases.append(Phase(name, began, time.monotonic()))
            if not self.samples or self.samples[-1].at <= began:  # it was shorter than the interval
                self._look()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._look()

    def _look(self) -> None:
        with self._looking:
            now = _totals(self._pid)
            if self._has_gpu and now.at - self._gpu_at >= GPU_INTERVAL_S:
                self._gpu, self._gpu_at = ask_gpu(), now.at
            elapsed = now.at - self._last.at
            if elapsed > 0:
                cores = max(0.0, now.cpu_s - self._last.cpu_s) / elapsed
                self.samples.append(Usage(now.at, cores, now.rss_bytes, now.threads, self._gpu))
                self._last = now


def summarize(phases: Sequence[Phase], samples: Sequence[Usage]) -> list[Summary]:
    """Say what each phase took, by the samples that fall into it."""
    found = []
    for phase in phases:
        # A sample speaks of the time since the one before it.
        mine = [sample for sample in samples if phase.began < sample.at <= phase.ended + INTERVAL_S]
        gpus = [sample.gpu for sample in mine if sample.gpu is not None]
        found.append(
            Summary(
                phase.name,
                phase.ended - phase.began,
                len(mine),
                sum(one.cores for one in mine) / len(mine) if mine else None,
                sum(one.rss_bytes for one in mine) / len(mine) if mine else None,
                max((one.rss_bytes for one in mine), default=None),
                max((one.threads for one in mine), default=None),
                sum(one.busy for one in gpus) / len(gpus) if gpus else None,
                max((one.memory_bytes for one in gpus), default=None),
            )
        )
    return found


def ask_gpu() -> Gpu | None:
    """Ask ``nvidia-smi``; ``None`` if it cannot tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603  # found on the path; the arguments are ours
            [program, *_GPU_QUERY], capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return read_gpu(answer.stdout)


def read_gpu(text: str) -> Gpu | None:
    """Read lines of utilization in percent and memory in MiB, one for each processor; ``None`` if there are none."""
    busy, memory = [], 0
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        try:
            busy.append(float(words[0]) / 100)
            memory += int(float(words[1]) * 2**20)
        except (ValueError, IndexError):
            continue  # "[N/A]": a processor that does not tell
    return Gpu(sum(busy) / len(busy), memory) if busy else None


def as_json(sample: Usage) -> dict[str, Any]:
    """Return one look as JSON."""
    found: dict[str, Any] = {
        "at_s": sample.at,
        "cores": sample.cores,
        "rss_bytes": sample.rss_bytes,
        "threads": sample.threads,
    }
    return (
        found if sample.gpu is None else {**found, "gpu": sample.gpu.busy, "gpu_memory_bytes": sample.gpu.memory_bytes}
    )


def _totals(pid: int) -> _Totals:
    """Read what a process and its descendants have taken so far."""
    cpu_s, rss, threads = 0.0, 0, 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        cpu_s += (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / _TICKS_PER_S
        rss += int(fields[21]) * _PAGE
        threads += int(fields[17])
    return _Totals(time.monotonic(), cpu_s, rss, threads)
