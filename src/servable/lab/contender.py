"""One contestant while it runs: started, checked, stopped while others are measured, measured, ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from servable.core.errors import ServingError, failed_precondition
from servable.lab.asking import wire_for
from servable.lab.comparison import Block, Conditions, block_of
from servable.lab.contestants import Contestant
from servable.lab.exchange import Wire
from servable.lab.peers import Door, Placement
from servable.lab.peers.base import HOST
from servable.lab.processes import Process, ProcessGroup, Usage, free_ports, server_cost
from servable.lab.result import ServerCost, Step
from servable.lab.session import ClientOptions, Load, Session
from servable.lab.subject import Subject
from servable.lab.target import parse_endpoint

TIMEOUT_S = 60.0
_POLL_S = 0.05
_SETTLE_S = 30.0
"""How long a server that says it is ready may still answer with errors."""
_END_S = 5.0
_QUIET_SHARE = 0.25
_QUIET_LIMIT_S = 10.0
_LONGEST_WARMUP_S = 10.0
_LONGEST_BLOCK_S = 30.0


@dataclass
class Lane:
    """One way to ask a contestant: its client process stays for the whole comparison."""

    door: Door
    session: Session
    answer_s: float = 0.0
    """What one request took alone, when the lane was checked."""
    blocks: dict[int, list[Block]] = field(default_factory=dict)
    """By concurrency."""
    reason: str = ""


class Contender:
    """A contestant and the processes that it takes."""

    def __init__(
        self, contestant: Contestant, subject: Subject, conditions: Conditions, protocols: Sequence[str], folder: Path
    ) -> None:
        self.contestant = contestant
        self.reason = ""
        self.lanes: list[Lane] = []
        self._subject = subject
        self._conditions = conditions
        self._protocols = protocols
        self._folder = folder
        self._group: ProcessGroup | None = None
        self._open = contextlib.AsyncExitStack()

    @property
    def group(self) -> ProcessGroup | None:
        """Its processes, once they were started; ``None`` for one that somebody else has started."""
        return self._group

    @property
    def lives(self) -> bool:
        """Return whether there is still something to measure."""
        return not self.reason and any(not lane.reason for lane in self.lanes)

    async def start(self) -> None:
        """Start it and ask each sample on each lane. What fails becomes a reason, of a lane or of all of it."""
        self.reason = ""
        try:
            await self._start()
        except ServingError as error:
            self.reason = self._with_log(error.message)
            await self.end()

    async def measure(self, lane: Lane, concurrency: int, number: int) -> Block | None:
        """Hold a load for one block; ``None`` if it failed, with the reason on the lane."""
        one_after_the_other_s = concurrency * lane.answer_s
        load = Load(
            concurrency=concurrency,
            duration_s=min(_LONGEST_BLOCK_S, max(self._conditions.block_s, 1.25 * one_after_the_other_s)),
            warmup_s=min(_LONGEST_WARMUP_S, max(self._conditions.warmup_s, 1.1 * one_after_the_other_s)),
        )
        try:
            step = await lane.session.step(load)
        except ServingError as error:
            lane.reason = self._with_log(error.message)
            return None
        if lane.session.stop.is_set() and not step.ok:
            return None
        block = block_of(step, number)
        lane.blocks.setdefault(concurrency, []).append(block)
        if not step.ok and step.errors + step.wrong:
            lane.reason = self._with_log(_complaint(step))
        await self._quiet(lane.answer_s, concurrency)
        return block

    def pause(self) -> None:
        """Stop its processes where they are."""
        if self._group is not None:
            self._group.pause()

    async def resume(self) -> None:
        """Let them go on, and make up for what they think they missed: timers that came due meanwhile."""
        if self._group is not None:
            self._group.resume()
            await self._quiet(max((lane.answer_s for lane in self.lanes), default=0.0), 1)

    def interrupt(self) -> None:
        """End a step that is under way early."""
        for lane in self.lanes:
            lane.session.stop.set()

    async def end(self) -> None:
        """End client and server processes."""
        try:
            await self._open.aclose()
        finally:
            if self._group is not None:
                # In a thread: the loop has others to look after, and this may take seconds.
                await asyncio.to_thread(self._group.end, _END_S)

    async def _start(self) -> None:
        contestant, subject = self.contestant, self._subject
        refused = contestant.refuses(subject.model)
        if refused:
            raise failed_precondition(refused)
        self._folder.mkdir(parents=True, exist_ok=True)
        kind = contestant.artifact
        artifact = Path() if kind is None else await asyncio.to_thread(subject.artifact, kind)
        first, second, third = free_ports(3)
        placement = Placement(
            subject.model,
            artifact,
            self._folder,
            (first, second, third),
            threads=self._conditions.threads,
            batch_rows=self._conditions.batch_rows,
            batch_wait_ms=self._conditions.batch_wait_ms,
            outputs=dict(subject.signature.outputs),
        )
        limit = time.monotonic() + contestant.start_limit_s
        command = contestant.command(placement)
        if command is not None:
            self._group = ProcessGroup(
                command.words,
                log=self._folder / "log",
                environment=command.environment,
                cores=self._conditions.server_cores,
                directory=command.directory,
            )
        await self._wait_until_ready(contestant.ready_url(placement), first, limit, started=command is not None)
        await self._open_lanes(contestant.doors(placement))

    async def _wait_until_ready(self, url: str | None, port: int, limit: float, *, started: bool) -> None:
        if not started:
            return
        what = url or f"port {port}"
        while not await (_is_open(port) if url is None else asyncio.to_thread(_answers, url)):
            self._check_alive()
            if time.monotonic() > limit:
                raise failed_precondition(f"was not ready after {self.contestant.start_limit_s:g} s ({what})")
            await asyncio.sleep(_POLL_S)

    async def _open_lanes(self, doors: Sequence[Door]) -> None:
        wanted = [door for door in doors if door.protocol in self._protocols]
        if not wanted:
            raise failed_precondition(f"does not speak {' or '.join(self._protocols)}")
        known = {lane.door.wire: lane for lane in self.lanes}
        lanes = []
        for door in wanted:
            session = await self._open.enter_async_context(self._session(door))
            # Started anew for the next block: its numbers go on where they were.
            earlier = known.get(door.wire)
            lane = Lane(door, session) if earlier is None else Lane(door, session, blocks=earlier.blocks)
            lanes.append(lane)
        self.lanes = lanes
        for lane in lanes:
            await self._check(lane)

    def _session(self, door: Door) -> Session:
        wire = self._wire(door)
        endpoint = parse_endpoint(door.url, door.wire)
        watch = None if self._group is None else GroupWatch(self._group)
        options = ClientOptions(cores=self._conditions.client_cores, timeout_s=TIMEOUT_S)
        prepared = [wire.prepare(sample) for sample in self._subject.samples]
        return Session(endpoint.address, wire, prepared, options, watch=watch)

    def _wire(self, door: Door) -> Wire:
        if door.speaks is not None:
            return door.speaks
        return wire_for(parse_endpoint(door.url, door.wire), "", self._subject.signature)

    async def _check(self, lane: Lane) -> None:
        """Ask every sample once; an error may pass while the server settles, a wrong answer will not."""
        count = len(self._subject.samples)
        settled = time.monotonic() + _SETTLE_S
        while True:
            try:
                step = await lane.session.step(Load(concurrency=1, count=count, duration_s=TIMEOUT_S, warmup_s=0.0))
            except ServingError as error:
                complaint = error.message
            else:
                if step.wrong:
                    lane.reason = f"answered wrongly: {step.wrong} of {count} answers are not the model's"
                    return
                if step.ok == count:
                    lane.answer_s = step.latency.p50_ms / 1e3
                    return
                complaint = _complaint(step)
            if lane.session.stop.is_set() or time.monotonic() > settled:
                lane.reason = self._with_log(complaint)
                return
            self._check_alive()
            await asyncio.sleep(_POLL_S)

    def _check_alive(self) -> None:
        code = None if self._group is None else self._group.exit_code()
        if code is not None:
            raise failed_precondition(f"ended with exit code {code}")

    async def _quiet(self, answer_s: float, concurrency: int) -> None:
        """Wait until the server has done what nobody waits for any more, so that it is in nobody's way."""
        if self._group is None:
            return
        limit = time.monotonic() + max(_QUIET_LIMIT_S, 2 * concurrency * answer_s)
        last, at = _cpu_s(self._group), time.monotonic()
        while time.monotonic() < limit:
            await asyncio.sleep(max(0.1, 2 * answer_s))
            spent, now = _cpu_s(self._group), time.monotonic()
            # On a machine with other work, who wants the CPU may not get it: that is not quiet.
            if spent - last < _QUIET_SHARE * (now - at) and not self._group.wants_cpu():
                return
            last, at = spent, now

    def _with_log(self, reason: str) -> str:
        tail = self._group.tail() if self._group is not None else ""
        return f"{reason}\n{tail}" if tail else reason


class GroupWatch:
    """What a session asks about the server's processes."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._before: dict[Process, Usage] = {}
        self._after: dict[Process, Usage] = {}
        self._began = self._ended = 0.0

    def begin(self) -> None:
        """Look."""
        self._before, self._began = self._group.usage(known=True), time.monotonic()

    def end(self) -> None:
        """Look again; the moment comes first, because looking for new processes takes a while."""
        self._ended = time.monotonic()
        self._after = self._group.usage()

    def cost(self, requests: int) -> ServerCost:
        """Return the difference."""
        wall_s = max(self._ended - self._began, 1e-9)
        return server_cost(self._before, self._after, wall_s=wall_s, requests=requests)


def _cpu_s(group: ProcessGroup) -> float:
    return sum(usage.cpu_s for usage in group.usage(known=True).values())


def _complaint(step: Step) -> str:
    kinds = "; ".join(f"{kind.code}: {kind.message}"[:300] for kind in step.error_kinds[:3])
    return f"answered {step.errors} requests with errors: {kinds}" if kinds else "answered nothing"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # our own, to the loopback interface
            return True
    except (urllib.error.URLError, OSError, ValueError):
        return False


async def _is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
