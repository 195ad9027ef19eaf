"""Contestants in turn, under the same load, in one run.

Rounds go through all of them forwards, then backwards (A B B A): a machine that grows slower or faster favours nobody.
Servers run for the whole comparison, and are stopped (SIGSTOP) while others are measured; or, ``fresh``, are started
for each block. Every answer is compared with the right one. What fails is a row with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from servable.core.errors import ServingError, invalid_argument
from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.lab import machine
from servable.lab.comparison import Block, Comparison, Conditions, Row, row_of, with_ratios
from servable.lab.contender import Contender, Lane
from servable.lab.contestants import Contestant
from servable.lab.subject import Subject

PROTOCOLS = ("gRPC", "REST")


@dataclass(frozen=True)
class Plan:
    """What to compare and how."""

    contestants: Sequence[Contestant]
    subject: Subject
    conditions: Conditions
    concurrencies: Sequence[int] = (1, 32)
    protocols: Sequence[str] = PROTOCOLS
    command: Sequence[str] = field(default_factory=lambda: tuple(sys.argv))

    def __post_init__(self) -> None:
        """Refuse what would measure nothing."""
        if not self.contestants:
            raise invalid_argument("there is nobody to compare")
        labels = [contestant.label for contestant in self.contestants]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise invalid_argument(f"each contestant takes part once, and {', '.join(twice)} is there twice")
        if self.conditions.rounds < 1 or not self.concurrencies or min(self.concurrencies) < 1:
            raise invalid_argument("a comparison takes at least one round, and concurrencies of 1 or more")


def turns(count: int, rounds: int) -> list[list[int]]:
    """Return for each round the order of the contestants: forwards, backwards, forwards, ..."""
    forwards = list(range(count))
    return [forwards if number % 2 == 0 else forwards[::-1] for number in range(rounds)]


async def compare(plan: Plan, report: Progress = unheard) -> Comparison:
    """Run a comparison. SIGINT and SIGTERM end it early, with what was measured; no process is left in any case."""
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with scratch() as folder:
        run = _Run(plan, folder, report)
        with _until_signalled(run.interrupt), _on_cores(plan.conditions.client_cores):
            try:
                await run.go()
            finally:
                await run.end()
    return Comparison(
        plan.subject.model,
        with_ratios(run.rows()),
        plan.conditions,
        started=started,
        duration_s=time.monotonic() - began,
        command=tuple(plan.command),
        machine=machine.describe(),
        versions={"lab": machine.versions(), **{one.label: one.versions() for one in plan.contestants}},
        interrupted=run.interrupted,
    )


def prepare(contestants: Sequence[Contestant], report: Progress) -> dict[str, str]:
    """Let each get what it needs, before anything is measured; return the reasons of those that could not."""
    reasons = {}
    for contestant in contestants:
        try:
            contestant.prepare(report)
        except ServingError as error:
            reasons[contestant.label] = error.message
            report(f"{contestant.label}: {error.message}")
    return reasons


class _Run:
    """One comparison under way."""

    def __init__(self, plan: Plan, folder: Path, report: Progress) -> None:
        self._plan = plan
        self._report = report
        self.interrupted = False
        self._contenders = [
            Contender(contestant, plan.subject, plan.conditions, plan.protocols, folder / str(place))
            for place, contestant in enumerate(plan.contestants)
        ]

    def interrupt(self) -> None:
        """End as soon as possible."""
        self.interrupted = True
        for contender in self._contenders:
            contender.interrupt()

    async def go(self) -> None:
        """Do all rounds."""
        reasons = await asyncio.to_thread(prepare, self._plan.contestants, self._report)
        for contender in self._contenders:
            contender.reason = reasons.get(contender.contestant.label, "")
        failed_to_prepare = set(reasons)
        if not self._plan.conditions.fresh:
            for contender in self._contenders:
                if contender.contestant.label not in failed_to_prepare and not self.interrupted:
                    await self._start(contender)
                    contender.pause()
        for number, order in enumerate(turns(len(self._contenders), self._plan.conditions.rounds)):
            for place in order:
                contender = self._contenders[place]
                if not self.interrupted and contender.contestant.label not in failed_to_prepare:
                    await self._turn(contender, number)

    async def end(self) -> None:
        """End all processes, even if those of one contestant make trouble."""
        ends = await asyncio.gather(*(contender.end() for contender in self._contenders), return_exceptions=True)
        for failure in ends:
            if isinstance(failure, BaseException):
                raise failure

    def rows(self) -> Iterator[Row]:
        """Return a row for each contestant, protocol and concurrency, or for why there is none."""
        for contender in self._contenders:
            label = contender.contestant.label
            measured = False
            for lane in contender.lanes:
                for concurrency in self._plan.concurrencies:
                    if blocks := lane.blocks.get(concurrency):
                        measured = True
                        yield row_of(label, lane.door.protocol, lane.door.wire, concurrency, blocks, lane.reason)
                if lane.reason and not lane.blocks:
                    measured = True
                    yield row_of(label, lane.door.protocol, lane.door.wire, 0, (), lane.reason)
            if not measured:
                reason = contender.reason or ("the comparison was stopped" if self.interrupted else "was not measured")
                yield row_of(label, "", "", 0, (), reason)

    async def _start(self, contender: Contender) -> None:
        label = contender.contestant.label
        self._report(f"{label}: starting")
        began = time.monotonic()
        await contender.start()
        if self.interrupted:
            contender.interrupt()
        reasons = [
            contender.reason,
            *(f"{lane.door.protocol}: {lane.reason}" for lane in contender.lanes if lane.reason),
        ]
        for reason in filter(None, reasons):
            self._report(f"{label}: {reason}")
        if contender.lives:
            self._report(f"{label}: answers rightly after {time.monotonic() - began:.1f} s")

    async def _turn(self, contender: Contender, number: int) -> None:
        """Measure one contestant in one round."""
        if self._plan.conditions.fresh:
            await self._start(contender)
        if not contender.lives:
            return
        await contender.resume()
        cells = [(lane, concurrency) for lane in contender.lanes for concurrency in self._plan.concurrencies]
        for lane, concurrency in cells if number % 2 == 0 else cells[::-1]:
            if lane.reason or self.interrupted:
                continue
            block = await contender.measure(lane, concurrency, number)
            self._report(self._line(contender, lane, concurrency, number, block))
        if self._plan.conditions.fresh:
            await contender.end()
        else:
            contender.pause()

    def _line(self, contender: Contender, lane: Lane, concurrency: int, number: int, block: Block | None) -> str:
        head = f"[{number + 1}/{self._plan.conditions.rounds}] {contender.contestant.label} {lane.door.protocol}"
        if block is None:
            return f"{head}, {concurrency} in flight: {lane.reason or 'stopped'}"
        failed = f", {block.errors + block.wrong} FAILED" if block.errors + block.wrong else ""
        return (
            f"{head}, {concurrency} in flight: {block.throughput_per_s:,.0f}/s, "
            f"p50 {block.p50_ms:.3g} ms, p99 {block.p99_ms:.3g} ms{failed}"
        )


@contextlib.contextmanager
def _until_signalled(interrupt: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process away from the servers' cores too."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
