"""A server under load: client processes that stay while steps of different loads follow each other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol, Self

from servable.core.errors import invalid_argument
from servable.lab import machine
from servable.lab.exchange import Prepared, Wire, mean_size
from servable.lab.fleet import Fleet, whole_slices
from servable.lab.histogram import Histogram
from servable.lab.judge import Tolerance
from servable.lab.orders import Job, Order
from servable.lab.recorder import SLICE_NS, SLICES_PER_SECOND, Recording, Slice
from servable.lab.result import ServerCost, Step
from servable.lab.schedule import Schedule, share_of
from servable.lab.steps import Asked, build_step, merged, settled
from servable.transport.address import Address
from servable.transport.exchange import RequestHead
from servable.transport.tls import ClientTlsOptions

LONGEST_WARMUP_S = 10.0
_MOVE_SLICES = 2
"""Between the decision that a warm-up was enough and its end: the word must reach all client processes."""
_MOST_MULTIPLEXED = 10_000
_MOST_CONNECTIONS = 512


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """The asking side. ``connections`` is for one client process, of HTTP/2; 0 leaves it to the load."""

    processes: int = 1
    connections: int = 0
    most_in_flight: int = 0
    timeout_s: float = 30.0
    tolerance: Tolerance = field(default_factory=Tolerance)
    tls: ClientTlsOptions | None = None
    cores: tuple[int, ...] = ()
    """Processors for the client processes, which take turns."""


@dataclass(frozen=True, slots=True)
class Load:
    """One step: ``concurrency`` in a closed loop (or in bursts), or a ``schedule``. ``warmup_s`` None: until steady."""

    concurrency: int | None = None
    schedule: Schedule | None = None
    burst: bool = False
    duration_s: float = 10.0
    count: int | None = None
    warmup_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is neither a closed nor an open loop."""
        if (self.concurrency is None) == (self.schedule is None):
            raise invalid_argument("a load has a concurrency or a schedule: one of them")
        if self.concurrency is not None and self.concurrency < 1:
            raise invalid_argument(f"a concurrency of {self.concurrency} sends nothing: expected 1 or more")
        if not self.duration_s > 0 or (self.count is not None and self.count < 1):
            raise invalid_argument("a load needs a duration above 0 s, and a count, if any, of 1 or more")

    @property
    def label(self) -> str:
        """Return what sets this load apart."""
        if self.schedule is not None:
            return f"{self.schedule.mean_rate_per_s:g}/s {self.schedule.arrivals}"
        return f"bursts of {self.concurrency}" if self.burst else f"{self.concurrency} in flight"


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known while a step runs: the last second. Rates per second, latencies in ms.

    ``elapsed_s`` counts from the begin of the warm-up while it lasts, then from the window's.
    """

    label: str
    warming_up: bool
    elapsed_s: float
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    wrong: int


OnProgress = Callable[[Progress], None]


class Watch(Protocol):
    """Looks at the server's processes while they work."""

    def begin(self) -> None:
        """The measured window begins."""

    def end(self) -> None:
        """It ends."""

    def cost(self, requests: int) -> ServerCost | None:
        """Return what the server took between the two; ``None`` if nobody can tell."""


class Session:
    """``async with Session(...) as session: step = await session.step(Load(concurrency=8))``."""

    def __init__(
        self,
        address: Address,
        wire: Wire,
        prepared: Sequence[Prepared],
        options: ClientOptions,
        *,
        watch: Watch | None = None,
        on_progress: OnProgress = lambda _: None,
    ) -> None:
        if not prepared:
            raise invalid_argument("there is nothing to send: no samples")
        self._wire = wire
        self._prepared = share_heads(prepared)
        self._options = options
        self._watch = watch
        self._on_progress = on_progress
        self.stop = asyncio.Event()
        """Set it to end a step early; what was measured until then is its result."""
        self.ages_ns: list[int] = []
        """For how long the requests that the last step left unanswered had waited when it ended."""
        self._fleet = Fleet(
            [
                Job(address, options.tls, wire, self._prepared, options.tolerance, options.timeout_s, core)
                for core in self._cores()
            ]
        )

    async def __aenter__(self) -> Self:
        """Start the client processes."""
        await self._fleet.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        await self._fleet.__aexit__(kind, error, trace)

    async def step(self, load: Load) -> Step:
        """Hold a load and return what it showed; UNAVAILABLE if no connection can be made."""
        orders = self._orders(load)
        await self._fleet.prepare(orders)
        follower = _Follower(self._fleet, load, len(orders), self._on_progress)
        watching: list[asyncio.Task[machine.Busy]] = []

        def started(start_ns: int) -> None:
            follower.start_ns = start_ns
            watching.append(asyncio.create_task(self._watch_window(follower)))

        recordings = await self._fleet.run(len(orders), follower.on_slice, self.stop, started)
        follower.over.set()
        busy = await watching[0]
        return self._built(load, recordings, busy)

    def connections(self, load: Load) -> int:
        """Return how many connections a load opens at the start, in all client processes."""
        orders = self._orders(load)
        if self._wire.multiplexed or load.schedule is not None:
            return sum(min(order.links, order.concurrency) for order in orders)
        return sum(order.concurrency for order in orders)

    def _built(self, load: Load, recordings: Sequence[Recording], busy: machine.Busy) -> Step:
        used = [one for one in recordings if one.end_ns]
        self.ages_ns = [age for one in used for age in one.unfinished]
        asked = Asked(
            label=load.label,
            batch=self._prepared[0].rows,
            request_bytes=mean_size(self._prepared),
            offered_rate_per_s=None if load.schedule is None else load.schedule.mean_rate_per_s,
            concurrency=load.concurrency,
            burst=load.burst,
        )
        step = build_step(asked, used or [Recording(end_ns=1)])
        notes = list(step.notes)
        if busy.share is not None and busy.share > machine.FULL and self._watch is not None:
            notes.append(f"All {busy.cores} processors were busy: client and server took them from each other.")
        if busy.steal_share is not None and busy.steal_share > machine.MUCH_STOLEN:
            notes.append(f"A hypervisor kept {busy.steal_share:.1%} of the CPU time from this machine.")
        cost = None if self._watch is None else self._watch.cost(step.ok + step.errors + step.wrong)
        return replace(step, server=cost, cpu_steal_share=busy.steal_share, notes=tuple(notes))

    def _orders(self, load: Load) -> list[Order]:
        options = self._options
        processes = options.processes
        if load.concurrency is not None:
            processes = 1 if load.burst else min(processes, load.concurrency)
        if load.count is not None:
            processes = min(processes, load.count)
        warmup_s = LONGEST_WARMUP_S if load.warmup_s is None else load.warmup_s
        most = options.most_in_flight or (_MOST_MULTIPLEXED if self._wire.multiplexed else _MOST_CONNECTIONS)
        return [
            Order(
                load="open" if load.schedule is not None else "burst" if load.burst else "closed",
                concurrency=share_of(load.concurrency or most, place, processes),
                links=options.connections or (1 if self._wire.multiplexed else 16),
                warmup_ns=whole_slices(warmup_s),
                duration_ns=round(load.duration_s * 1e9),
                count=None if load.count is None else share_of(load.count, place, processes),
                schedule=load.schedule,
                share=place,
                shares=processes,
            )
            for place in range(processes)
        ]

    def _cores(self) -> list[int | None]:
        cores = self._options.cores
        return [cores[place % len(cores)] if cores else None for place in range(self._options.processes)]

    async def _watch_window(self, follower: _Follower) -> machine.Busy:
        """Look at machine and server when the window begins and when it ends."""
        await _until(follower.begins, follower.over)
        before = machine.cpu_times()
        if self._watch is not None:
            self._watch.begin()
        await _until(follower.ends, follower.over)
        if self._watch is not None:
            self._watch.end()
        return machine.busy(before, machine.cpu_times())


class _Follower:
    """Puts together what client processes say while a step runs; decides when it is warm."""

    def __init__(self, fleet: Fleet, load: Load, processes: int, on_progress: OnProgress) -> None:
        self._fleet = fleet
        self._load = load
        self._slices: list[list[Slice]] = [[] for _ in range(processes)]
        self._on_progress = on_progress
        self._told = 0
        self._moved_to: int | None = None
        self.start_ns = 0
        self.over = asyncio.Event()

    def on_slice(self, place: int, part: Slice) -> None:
        """A client process has closed a slice."""
        self._slices[place].append(part)
        complete = min(map(len, self._slices))
        if complete <= self._told:
            return
        self._told = complete
        known = [slices[:complete] for slices in self._slices]
        if self._load.warmup_s is None and self._moved_to is None and settled(known):
            self._end_warmup(complete)
        self._tell([part for slices in known for part in slices[-SLICES_PER_SECOND:]], complete)

    def begins(self) -> int:
        """Return when the measured window begins, as far as is known."""
        if self._moved_to is not None:
            return self._moved_to
        warmup_s = LONGEST_WARMUP_S if self._load.warmup_s is None else self._load.warmup_s
        return self.start_ns + whole_slices(warmup_s)

    def ends(self) -> int:
        """Return when it ends; a count ends it otherwise."""
        return 2**62 if self._load.count is not None else self.begins() + round(self._load.duration_s * 1e9)

    def _end_warmup(self, complete: int) -> None:
        begin = self.start_ns + (complete + _MOVE_SLICES) * SLICE_NS
        if begin >= self.begins():
            return
        self._moved_to = begin
        end = 2**63 - 1 if self._load.count is not None else begin + round(self._load.duration_s * 1e9)
        self._fleet.move_window(begin, end)

    def _tell(self, last: Sequence[Slice], complete: int) -> None:
        histogram: Histogram = merged(part.latency for part in last)
        p50, p99 = histogram.percentiles((50, 99))
        seconds = min(complete, SLICES_PER_SECOND) / SLICES_PER_SECOND
        everything = [part for slices in self._slices for part in slices]
        now, begins = time.monotonic_ns(), self.begins()
        self._on_progress(
            Progress(
                label=self._load.label,
                warming_up=now < begins,
                elapsed_s=(now - (self.start_ns if now < begins else begins)) / 1e9,
                rate_per_s=sum(part.ok for part in last) / seconds,
                p50_ms=p50,
                p99_ms=p99,
                errors=sum(part.errors for part in everything),
                wrong=sum(part.wrong for part in everything),
            )
        )


async def _until(when: Callable[[], int], over: asyncio.Event) -> None:
    while not over.is_set() and (left := when() - time.monotonic_ns()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left / 1e9, 0.1)):
                await over.wait()


def share_heads(prepared: Sequence[Prepared]) -> tuple[Prepared, ...]:
    """Return the requests with one head for all that are alike: a connection encodes each head once."""
    known: dict[tuple[object, ...], RequestHead] = {}
    found = []
    for one in prepared:
        head = one.head
        key = (head.method, head.target, head.fields, head.authority, head.scheme)
        found.append(replace(one, head=known.setdefault(key, head)))
    return tuple(found)
