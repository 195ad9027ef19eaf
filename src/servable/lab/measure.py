"""A plan carried out: requests made, answers expected, loads held, an objective searched, a result written down."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from servable.core.errors import ServingError, invalid_argument
from servable.core.signatures import Signature
from servable.lab import expectations, machine, result
from servable.lab.asking import Asker, wire_for
from servable.lab.exchange import Prepared, Sample, Wire
from servable.lab.histogram import Histogram, require_coding
from servable.lab.objective import Objective, RateSearch, judge
from servable.lab.plan import SCENARIO_NOTES, Plan
from servable.lab.result import Part, Result, Step
from servable.lab.schedule import Schedule
from servable.lab.server_watch import ServerWatch, listener_of
from servable.lab.session import Load, OnProgress, Session, Watch, share_heads
from servable.lab.sources import read_samples
from servable.lab.synthesis import Wanted, synthesise
from servable.lab.target import parse_endpoint
from servable.lab.wires.http import Http, Template
from servable.transport.exchange import RequestHead

_MOST_SAMPLES = 1024
_GUESS_IN_FLIGHT = 64
_EXPLORED_IN_FLIGHT = 32
_LAST_TRIES = 10
_STEP_DOWN = 0.9


@dataclass(slots=True)
class _Requests:
    """One variant's requests."""

    wire: Wire
    prepared: tuple[Prepared, ...]
    label: str


class Measurement:
    """One run of a plan. ``stop`` ends it early: what was measured until then is the result."""

    def __init__(self, plan: Plan, *, on_progress: OnProgress = lambda _: None, watch: Watch | None = None) -> None:
        require_coding()
        self._plan = plan
        self._endpoint = parse_endpoint(plan.url, plan.wire).with_version(plan.version)
        self._tls = plan.tls if self._endpoint.secure else None
        self._on_progress = on_progress
        self._watch = watch
        self._stop = asyncio.Event()
        self._steps: list[Step] = []
        self._search: result.Search | None = None
        self._signature: Signature | None = None
        self._connections = 0
        self._samples = 0
        self._notes: list[str] = []

    def stop(self) -> None:
        """End early; thread-safe only through the loop."""
        self._stop.set()

    async def run(self) -> Result:
        """Measure. ``ServingError`` says why nothing could be measured."""
        started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        plan = self._plan
        if self._watch is None:
            self._watch = self._local_server()
        for wanted in plan.variants:
            if self._stop.is_set():
                break
            try:
                await self._measure(wanted)
            except ServingError as error:
                if not self._steps:
                    raise
                self._notes.append(f"What came after these steps could not be measured: {error.message}")
                break
        return self._result(started)

    async def _measure(self, wanted: Wanted) -> None:
        plan = self._plan
        requests = await self._requests(wanted)
        self._samples = max(self._samples, len(requests.prepared))
        async with self._session(requests) as session:
            for load in plan.loads:
                if self._stop.is_set():
                    break
                await self._step(session, load, requests)
            if plan.objective is not None and plan.searches:
                await self._find_rate(session, plan.objective, requests)
            elif not plan.loads:
                await self._explore(session, requests)

    # --- requests

    async def _requests(self, wanted: Wanted) -> _Requests:
        plan, endpoint = self._plan, self._endpoint
        asker = Asker(endpoint, self._tls, plan.client.timeout_s)
        if endpoint.wire == "http":
            wire: Wire = Http(
                plan.template or Template(path=endpoint.path), endpoint.authority, endpoint.scheme, seed=wanted.seed
            )
            samples = self._http_samples(wanted)
        else:
            if self._signature is None:
                self._signature = await asker.signature(plan.signature)
            wire = wire_for(endpoint, plan.signature, self._signature)
            samples = self._samples_of(wanted, self._signature)
            if plan.expect and plan.expect != expectations.FIRST:
                samples = await self._expecting(samples, wanted.batch)
        prepared = [_timed(wire, sample) for sample in samples]
        if plan.headers:
            prepared = [replace(one, head=_with_fields(one.head, plan.headers)) for one in prepared]
        if plan.expect == expectations.FIRST:
            prepared = await expectations.first_answers(asker, wire, prepared)
        elif endpoint.wire == "http" and plan.expect:
            prepared = [replace(one, expected=_bytes(Path(plan.expect))) for one in prepared]
        return _Requests(wire, share_heads(prepared), _variant_label(plan.variants, wanted))

    def _samples_of(self, wanted: Wanted, signature: Signature) -> list[Sample]:
        if self._plan.data is None:
            return synthesise(signature, wanted)
        return read_samples(self._plan.data, signature, wanted.batch, _MOST_SAMPLES)

    def _http_samples(self, wanted: Wanted) -> list[Sample]:
        if self._plan.data is None:
            return [Sample({}) for _ in range(wanted.samples)]
        return read_samples(self._plan.data, None, wanted.batch, _MOST_SAMPLES)

    async def _expecting(self, samples: list[Sample], batch: int) -> list[Sample]:
        expect = self._plan.expect
        if "://" in expect:
            return await expectations.from_server(expect, samples, self._plan.signature, self._plan.tls)
        return expectations.from_file(Path(expect), samples, batch, self._signature)

    # --- loads

    @contextlib.asynccontextmanager
    async def _session(self, requests: _Requests) -> AsyncIterator[Session]:
        options = replace(self._plan.client, tls=self._tls)
        session = Session(
            self._endpoint.address,
            requests.wire,
            requests.prepared,
            options,
            watch=self._watch,
            on_progress=self._on_progress,
        )
        session.stop = self._stop
        async with session:
            yield session

    async def _step(self, session: Session, load: Load, requests: _Requests) -> Step:
        self._connections = max(self._connections, session.connections(load))
        step = await session.step(load)
        label = f"{step.label}{requests.label}"
        objective = self._plan.objective
        held = None if objective is None else judge(objective, [step], _overdue(session, objective)).held
        step = replace(
            step, label=label, slo_held=held, split=replace(step.split, encode=_encode_part(requests.prepared))
        )
        self._steps.append(step)
        return step

    async def _explore(self, session: Session, requests: _Requests) -> None:
        """Measure the most that the server does, then the latencies that users meet at half of that."""
        bounds = self._bounds()
        most = await self._step(session, replace(bounds, concurrency=_EXPLORED_IN_FLIGHT), requests)
        if most.ok and not self._stop.is_set():
            rate = float(f"{most.throughput_per_s / 2:.3g}")
            load = self._at_rate(rate, bounds)
            if bounds.count is not None:
                load = replace(load, count=bounds.count, duration_s=max(load.duration_s, 2 * bounds.count / rate))
            await self._step(session, load, requests)

    def _bounds(self) -> Load:
        """Return how long steps last whose load is not known before."""
        return self._plan.trial or Load(concurrency=1, duration_s=5.0, warmup_s=1.0)

    async def _find_rate(self, session: Session, objective: Objective, requests: _Requests) -> None:
        trial = self._bounds()
        most_s = min(1.0, trial.duration_s)
        guess = await session.step(Load(concurrency=_GUESS_IN_FLIGHT, duration_s=most_s, warmup_s=most_s / 2))
        if self._stop.is_set():
            return
        search = RateSearch(objective, guess.throughput_per_s)
        while search.next_rate is not None and not self._stop.is_set():
            step = await self._step(session, self._at_rate(search.next_rate, trial), requests)
            if not self._stop.is_set():
                search.tell(step, _overdue(session, objective))
        best = search.held
        for _ in range(_LAST_TRIES):
            # The search has tried many rates and kept the best: luck included. The last word is a step by itself.
            if best is None or self._stop.is_set():
                break
            step = await self._step(
                session, self._at_rate(best, replace(trial, duration_s=trial.duration_s * 2)), requests
            )
            search.trials += 1
            if step.slo_held or self._stop.is_set():
                break
            search.missed, best = best, float(f"{best * _STEP_DOWN:.3g}")
        else:
            best = None
        self._search = result.Search(objective.text, best, search.missed, search.trials)
        if not search.sure:
            self._notes.append(
                "Some trials were too short to be sure with 95 of 100: give them longer with --duration."
            )

    def _at_rate(self, rate: float, trial: Load) -> Load:
        seed = self._plan.variants[0].seed
        schedule = Schedule("poisson" if self._plan.poisson else "constant", rate, seed=seed)
        return Load(schedule=schedule, duration_s=trial.duration_s, warmup_s=trial.warmup_s)

    def _local_server(self) -> Watch | None:
        pid = self._plan.server_pid or listener_of(self._endpoint.address)
        return None if pid is None else ServerWatch(pid)

    # --- the result

    def _result(self, started: str) -> Result:
        plan, endpoint = self._plan, self._endpoint
        notes = [SCENARIO_NOTES[plan.scenario]] if plan.scenario in SCENARIO_NOTES else []
        return Result(
            target=result.Target(plan.url, endpoint.wire, endpoint.model.name, endpoint.model.version, plan.signature),
            scenario=self._scenario(),
            steps=tuple(self._steps),
            started=started,
            command=plan.command,
            machine=machine.describe(),
            versions=machine.versions(),
            ok=sum(step.ok for step in self._steps),
            errors=sum(step.errors for step in self._steps),
            wrong=sum(step.wrong for step in self._steps),
            search=self._search,
            interrupted=self._stop.is_set(),
            notes=(*notes, *self._notes),
        )

    def _scenario(self) -> result.Scenario:
        plan = self._plan
        first = plan.loads[0] if plan.loads else self._at_rate(1.0, self._bounds())
        wanted = plan.variants[0]
        return result.Scenario(
            name="slo" if plan.searches and plan.scenario == "load" else plan.scenario,
            arrivals="closed" if first.schedule is None else first.schedule.arrivals,
            duration_s=None if first.count is not None else first.duration_s,
            count=first.count,
            warmup_s=self._steps[0].warmup_s if self._steps else 0.0,
            seed=wanted.seed,
            processes=plan.client.processes,
            connections=self._connections,
            timeout_s=plan.client.timeout_s,
            data=str(plan.data) if plan.data is not None else "made up from the signature",
            samples=self._samples,
            expect=plan.expect,
        )


async def measure(plan: Plan, *, on_progress: OnProgress = lambda _: None, watch: Watch | None = None) -> Result:
    """Carry out a plan. Cancel the task to give up; use ``Measurement`` to stop early and keep what was measured."""
    return await Measurement(plan, on_progress=on_progress, watch=watch).run()


def _timed(wire: Wire, sample: Sample) -> Prepared:
    begin = time.monotonic_ns()
    prepared = wire.prepare(sample)
    return replace(prepared, encode_ns=time.monotonic_ns() - begin)


def _encode_part(prepared: Sequence[Prepared]) -> Part:
    histogram = Histogram()
    histogram.record([one.encode_ns for one in prepared])
    p50, p99 = histogram.percentiles((50, 99))
    return Part(histogram.mean(), p50, p99)


def _with_fields(head: RequestHead, headers: Sequence[tuple[str, str]]) -> RequestHead:
    fields = tuple((name.lower().encode(), value.encode()) for name, value in headers)
    names = {name for name, _ in fields}
    kept = tuple(field for field in head.fields if field[0] not in names)
    return RequestHead(
        head.method, head.target, (*kept, *fields), authority=head.authority, scheme=head.scheme, version=head.version
    )


def _overdue(session: Session, objective: Objective) -> int:
    limit_ns = max(limit.limit_ms for limit in objective.limits) * 1e6
    return sum(age > limit_ns for age in session.ages_ns)


def _variant_label(variants: Sequence[Wanted], wanted: Wanted) -> str:
    """Say what sets a variant apart from the others."""
    found = ""
    if len({one.batch for one in variants}) > 1:
        found += f", batch {wanted.batch}"
    if len({one.free_size for one in variants}) > 1:
        found += f", free size {wanted.free_size}"
    if len({one.string_bytes for one in variants}) > 1:
        found += f", strings of {wanted.string_bytes} bytes"
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise invalid_argument(f"cannot read {path}: {error.strerror}") from None
