"""Servers within limits: each case starts its servers, loads all of them at the same time and verifies every answer.

What runs is ordinary ``servable serve``, asked through its socket. Cores are held by affinity, memory by a control
group or a watchdog. A server that needs more memory than it may have is ended, and that is its row.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from servable.core.errors import ServingError, invalid_argument
from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.lab import machine
from servable.lab.comparison import Block, Conditions
from servable.lab.contender import Contender
from servable.lab.contestants import Ours
from servable.lab.control_group import ControlGroup, require_share
from servable.lab.limits import Case, Limits
from servable.lab.memory_limit import MemoryWatch
from servable.lab.peers import Command, Placement
from servable.lab.restriction import Restriction, Row
from servable.lab.subject import Subject

_PROTOCOL = "gRPC"


@dataclass(frozen=True)
class Plan:
    """What to measure: every case with the same model, load and requests."""

    cases: Sequence[Case]
    subject: Subject
    concurrency: int = 4
    block_s: float = 5.0
    warmup_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what would measure nothing."""
        if not self.cases:
            raise invalid_argument("there is no case to measure")
        if self.concurrency < 1 or not self.block_s > 0:
            raise invalid_argument("a load has 1 request in flight or more, for more than 0 s")


async def restrict(plan: Plan, report: Progress = unheard) -> Restriction:
    """Measure all cases, one after the other; no process is left in any case."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    rows: list[Row] = []
    for case in plan.cases:
        report(f"{case.title}: {case.lacking or 'starting'}")
        rows += [Row(case.title, "", (), reason=case.lacking)] if case.lacking else await _measure(case, plan)
        for row in rows[-len(case.servers) or -1 :]:
            report(f"{case.title}, {row.server}: {_told(row)}")
    return Restriction(
        plan.subject.model,
        tuple(rows),
        plan.concurrency,
        plan.block_s,
        started=started,
        command=tuple(sys.argv),
        machine=machine.describe(),
        versions={**machine.versions(), **Ours().versions()},
    )


def _told(row: Row) -> str:
    if row.throughput_per_s is None:
        return row.reason
    return f"{row.throughput_per_s:,.1f}/s, p99 {row.p99_ms:.3g} ms" + (f"; {row.reason}" if row.reason else "")


async def _measure(case: Case, plan: Plan) -> list[Row]:
    taken = {core for _, limits in case.servers for core in limits.cores}
    usable = os.sched_getaffinity(0)
    free = tuple(sorted(usable - taken)) or tuple(sorted(usable))
    async with contextlib.AsyncExitStack() as open_now:
        folder = open_now.enter_context(scratch())
        servers = [
            await open_now.enter_async_context(_Server(name, limits, plan, free, folder / name))
            for name, limits in case.servers
        ]
        for server in servers:
            await server.start()
        await asyncio.gather(*(server.load(plan.concurrency) for server in servers))
        return [server.row(case.title) for server in servers]


class _Limited(Ours):
    """Ordinary ``servable serve``, started inside a control group where there is one."""

    def __init__(self, name: str, subject: Subject, control: ControlGroup | None) -> None:
        super().__init__()
        self.label = name
        self.artifact = next(iter(subject.artifacts), "onnx")
        self._control = control

    def command(self, placement: Placement) -> Command:
        made = super().command(placement)
        return made if self._control is None else replace(made, words=self._control.wrap(made.words))


class _Server:
    """One server of a case, with what holds it to its limits."""

    def __init__(self, name: str, limits: Limits, plan: Plan, client_cores: tuple[int, ...], folder: Path) -> None:
        self._name, self._limits, self._client_cores = name, limits, client_cores
        needs_group = limits.memory_bytes is not None or limits.shares_time
        self._control = ControlGroup.create(limits) if needs_group else None
        self._watch: MemoryWatch | None = None
        if self._control is None:
            require_share(limits)
            self._watch = None if limits.memory_bytes is None else MemoryWatch(limits.memory_bytes)
        conditions = Conditions(
            rounds=1,
            block_s=plan.block_s,
            warmup_s=plan.warmup_s,
            threads=len(limits.cores),
            batch_rows=1,
            batch_wait_ms=0.0,
            server_cores=limits.cores,
            client_cores=client_cores,
        )
        self._contender = Contender(
            _Limited(name, plan.subject, self._control), plan.subject, conditions, (_PROTOCOL,), folder
        )
        self._following: asyncio.Task[None] | None = None
        self._block: Block | None = None

    async def __aenter__(self) -> Self:
        if self._watch is not None:
            following = self._watch.follow(lambda: self._contender.group, self._contender.interrupt)
            self._following = asyncio.create_task(following)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self._contender.end()
        if self._control is not None:
            await asyncio.to_thread(self._control.remove)

    async def start(self) -> None:
        await self._contender.start()

    async def load(self, concurrency: int) -> None:
        if self._contender.lives and not self._is_out_of_memory():
            with contextlib.suppress(ServingError):
                self._block = await self._contender.measure(self._contender.lanes[0], concurrency, 0)

    def row(self, case: str) -> Row:
        """Return what came of it."""
        limits = self._limits
        held = ["affinity"]
        if self._control is not None:
            held.append("control group")
        elif self._watch is not None:
            held.append("watchdog")
        row = Row(
            case,
            self._name,
            limits.cores,
            limits.cpus if limits.shares_time else None,
            limits.memory_bytes,
            ", ".join(held),
            self._client_cores,
            reason=self._reason(),
        )
        block = self._block
        if block is None:
            return replace(row, rss_bytes=None if self._watch is None else self._watch.peak_bytes)
        answered = block.ok > 0
        return replace(
            row,
            ok=block.ok,
            errors=block.errors,
            wrong=block.wrong,
            verified=block.verified,
            throughput_per_s=block.throughput_per_s if answered else None,
            p50_ms=block.p50_ms if answered else None,
            p99_ms=block.p99_ms if answered else None,
            cpu_share=sum(process.cpu_share for process in block.processes),
            rss_bytes=block.rss_bytes,
        )

    def _reason(self) -> str:
        if self._watch is not None and self._watch.verdict:
            return self._watch.verdict
        if self._is_out_of_memory() and self._limits.memory_bytes is not None:
            return "out of memory: the kernel ended it at its limit"
        lanes = self._contender.lanes
        return self._contender.reason or (lanes[0].reason if lanes else "")

    def _is_out_of_memory(self) -> bool:
        if self._watch is not None and self._watch.verdict:
            return True
        return self._control is not None and self._control.killed()
