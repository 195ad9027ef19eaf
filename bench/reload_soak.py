"""What clients notice of changes under load: nothing may fail, nothing may be wrong, memory must stay.

    python -m bench.reload_soak [--seconds 60] [--every 3] [--share 0.8] [--no-report]

An ordinary ``servable serve`` on one core, with three models in ONNX whose versions have weights of their own, so that
every version has another answer to every request. From the other core requests of 1 to 4 rows come at a fixed rate, 0.8
of what 32 in flight got before; seven of eight over gRPC, one over REST. Meanwhile something changes every 3 s: a
version is renamed into place, a label is moved by HandleReloadConfigRequest, a model is added, the version is taken
away, the label is moved back, the model is removed; then anew, with a version that was not there before.

Every row of every answer is compared with what the version that answered must say: it is the one that the reply names
(over REST, one of those that it may be). While a change is under way that is the one before or the one after; once
the change is settled (the RPC was answered, the status says AVAILABLE), requests sent from then on must get the one
after. A model that comes and goes is asked from the answer to the RPC that brings it until the RPC that takes it away.
Memory is the most that was held after any change of the last whole round of changes, compared with the first. Exit
code 1 if a request failed or was wrong, or memory grew by more than 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf import text_format

from bench.processes import LOADER_CORE, cpu_seconds, resident_mb, servable_server
from bench.questions import close
from bench.reload_models import AT_FIRST, answers, config_of, samples, write_version
from bench.run import REPORTS, conditions, steal_ticks
from servable.client.channel import Channel, open_channel
from servable.core.errors import ServingError
from servable.core.messages import InferRequest, ModelRef
from servable.core.status import VersionState
from servable.core.tensors import Array
from servable.protos import serving

IN_FLIGHT, MOST_IN_FLIGHT = 32, 512
CONNECTIONS = 4
TICK_S = 0.004
ALLOWED_GROWTH = 0.05
SETTLED_WITHIN_S = 30.0
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
CHANGES = ("version comes", "label moves", "model comes", "version goes", "label moves back", "model goes")


# -- what is asked, and what may be answered ---------------------------------------------------------------------------


@dataclass
class Target:
    """A model as clients ask for it. ``allowed`` are the versions that may answer now; none: do not ask."""

    model: ModelRef
    allowed: frozenset[int] = frozenset()
    asked: int = 0
    """Requests that are not answered yet."""


@dataclass
class Seen:
    """What happened between two changes. Latencies are in ms."""

    change: str
    settled_s: float = float("nan")
    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0
    held_back: int = 0
    resident_mb: float = 0.0
    busy: float = float("nan")
    """CPU time that the server used in each second, of its one core."""


class Load:
    """Requests over all connections, and the judgement of their answers."""

    def __init__(self, port: int) -> None:
        self._grpc = [open_channel(f"grpc://127.0.0.1:{port}") for _ in range(CONNECTIONS)]
        self._rest = open_channel(f"http://127.0.0.1:{port}")
        self._questions = samples()
        self._expected: dict[tuple[str, int], list[Array]] = {}
        for name, version in AT_FIRST:
            self.expect(name, version)
        self._numbers = itertools.count()
        self.targets = [
            Target(ModelRef("moving"), frozenset({1})),
            Target(ModelRef("labelled", label="stable"), frozenset({1})),
            Target(ModelRef("guest")),
        ]
        self.seen = Seen("(none, to measure what it can do)")
        self.complaints: list[str] = []
        self.asked = 0

    def expect(self, model: str, version: int) -> None:
        """Know what a version answers."""
        self._expected[model, version] = answers(model, version, self._questions)

    async def status(self, model: str) -> dict[int, VersionState]:
        return {each.version: each.state for each in await self._grpc[0].statuses(ModelRef(model), 10)}

    async def ask(self) -> None:
        """Send the next request and judge its answer."""
        number = next(self._numbers)
        target = next(each for each in itertools.chain(self._order(number), self.targets) if each.allowed)
        which = number % len(self._questions)
        over_rest = number % 8 == 7
        channel: Channel = self._rest if over_rest else self._grpc[number % CONNECTIONS]
        seen, before = self.seen, target.allowed
        self.asked += 1
        target.asked += 1
        begin = time.perf_counter()
        try:
            response = await channel.predict(InferRequest(target.model, {"x": self._questions[which]}), 20)
        except ServingError as error:
            seen.failed += 1
            self._complain(f"{target.model}: {error.code.name}: {error.message}")
        else:
            seen.latencies.append((time.perf_counter() - begin) * 1e3)
            allowed = before | target.allowed
            named = allowed if over_rest else allowed & {response.model.version}
            name, found = target.model.name, response.outputs["y"]
            if not any(close(found, self._expected[name, version][which]) for version in named):
                seen.wrong += 1
                self._complain(f"{target.model}: version {response.model.version} answered, {set(allowed)} may")
        finally:
            self.asked -= 1
            target.asked -= 1

    def _order(self, number: int) -> Iterator[Target]:
        moving, labelled, guest = self.targets
        yield (moving, labelled, moving, labelled, guest)[number % 5]

    def _complain(self, text: str) -> None:
        if len(self.complaints) < 20:
            self.complaints.append(text)

    async def closed(self, seconds: float) -> float:
        """Keep requests in flight; return how many were answered a second."""
        end = time.perf_counter() + seconds

        async def keep_asking() -> None:
            while time.perf_counter() < end:
                await self.ask()

        before = len(self.seen.latencies)
        await asyncio.gather(*(keep_asking() for _ in range(IN_FLIGHT)))
        return (len(self.seen.latencies) - before) / seconds

    async def open(self, rate: float, stop: asyncio.Event) -> None:
        """Send at this rate, whether answers come or not, until ``stop``."""
        begin, sent = time.perf_counter(), 0
        running: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            due = int((time.perf_counter() - begin) * rate)
            for _ in range(due - sent):
                if self.asked >= MOST_IN_FLIGHT:
                    self.seen.held_back += 1
                    continue
                task = asyncio.create_task(self.ask())
                running.add(task)
                task.add_done_callback(running.discard)
            sent = due
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*running)

    async def close(self) -> None:
        for channel in (*self._grpc, self._rest):
            await channel.close()


# -- changes -----------------------------------------------------------------------------------------------------------


class Changes:
    """One after the other, for ever; each returns when it is settled."""

    def __init__(self, folder: Path, load: Load, port: int, rounds: int) -> None:
        self._folder = folder
        self._load = load
        self._moving, self._labelled, self._guest = load.targets
        self._newest = 1
        self._label = 1
        self._with_guest = False
        for version in range(2, 2 + rounds):
            write_version(folder / "ready" / str(version), "moving", version)
            load.expect("moving", version)
        self._rpc = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(
            RELOAD, serving.ReloadConfigRequest.SerializeToString, serving.ReloadConfigResponse.FromString
        )
        comes = (self._version_comes, self._label_moves, self._guest_comes)
        self._steps = itertools.cycle((*comes, self._version_goes, self._label_moves, self._guest_goes))

    def next(self) -> Callable[[], Awaitable[None]]:
        return next(self._steps)

    async def _reload(self) -> None:
        config = config_of(self._folder, self._label, with_guest=self._with_guest)
        await asyncio.to_thread(self._rpc, serving.ReloadConfigRequest(config=config), timeout=SETTLED_WITHIN_S)

    async def _until(self, version: int, state: VersionState) -> None:
        end = time.perf_counter() + SETTLED_WITHIN_S
        while (await self._load.status("moving")).get(version) is not state:
            if time.perf_counter() > end:
                raise RuntimeError(f"version {version} was not {state.name} after {SETTLED_WITHIN_S:g} s")
            await asyncio.sleep(0.02)

    async def _version_comes(self) -> None:
        self._newest += 1
        self._moving.allowed = frozenset({1, self._newest})
        (self._folder / "ready" / str(self._newest)).rename(self._folder / "moving" / str(self._newest))
        await self._until(self._newest, VersionState.AVAILABLE)
        self._moving.allowed = frozenset({self._newest})

    async def _version_goes(self) -> None:
        self._moving.allowed = frozenset({1, self._newest})
        gone = self._folder / "moving" / str(self._newest)
        gone.rename(self._folder / f"gone_{self._newest}")
        await self._until(self._newest, VersionState.END)
        self._moving.allowed = frozenset({1})

    async def _label_moves(self) -> None:
        self._label = 3 - self._label
        self._labelled.allowed = frozenset({1, 2})
        await self._reload()
        self._labelled.allowed = frozenset({self._label})

    async def _guest_comes(self) -> None:
        self._with_guest = True
        await self._reload()
        self._guest.allowed = frozenset({1})

    async def _guest_goes(self) -> None:
        self._guest.allowed = frozenset()
        while self._guest.asked:
            await asyncio.sleep(TICK_S)
        self._with_guest = False
        await self._reload()


async def soak(load: Load, changes: Changes, pid: int, arguments: argparse.Namespace) -> tuple[float, list[Seen]]:
    """Return what it can do, in requests a second, and what was seen after each change."""
    await load.closed(2.0)
    used, begin = cpu_seconds(pid), time.perf_counter()
    capacity = await load.closed(5.0)
    load.seen.busy = (cpu_seconds(pid) - used) / (time.perf_counter() - begin)
    found = [load.seen]
    load.seen.resident_mb = resident_mb(pid)
    stop = asyncio.Event()
    sending = asyncio.create_task(load.open(capacity * arguments.share, stop))
    try:
        for number in range(int(arguments.seconds / arguments.every)):
            begin = time.perf_counter()
            load.seen = Seen(CHANGES[number % len(CHANGES)])
            found.append(load.seen)
            await changes.next()()
            load.seen.settled_s = time.perf_counter() - begin
            await asyncio.sleep(max(0.0, arguments.every - load.seen.settled_s))
            load.seen.resident_mb = resident_mb(pid)
    finally:
        stop.set()
        await sending
    return capacity, found


# -- what is said of it ------------------------------------------------------------------------------------------------


def growth_of(found: list[Seen]) -> float:
    """Return by which share the most memory of the last whole round of changes is above that of the first."""
    held = [seen.resident_mb for seen in found[1:]]
    most = [max(held[begin : begin + len(CHANGES)]) for begin in range(0, len(held) - len(CHANGES) + 1, len(CHANGES))]
    return most[-1] / most[0] - 1 if len(most) > 1 else float("nan")


def page(capacity: float, found: list[Seen], arguments: argparse.Namespace, steal: int) -> str:
    lines = ["# Changes under load", "", (__doc__ or "").strip(), ""]
    columns = (
        "change",
        "settled s",
        "answers",
        "p50 ms",
        "p99 ms",
        "max ms",
        "failed",
        "wrong",
        "not sent",
        "memory MB",
    )
    lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for seen in found[1:]:
        sorted_ms = sorted(seen.latencies) or [float("nan")]
        cells = (
            seen.change, f"{seen.settled_s:.2f}", f"{len(seen.latencies):,}", f"{statistics.median(sorted_ms):.1f}",
            f"{sorted_ms[int(len(sorted_ms) * 0.99)]:.1f}", f"{sorted_ms[-1]:.0f}", str(seen.failed), str(seen.wrong),
            str(seen.held_back), f"{seen.resident_mb:.1f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    grown = growth_of(found)
    growth = "not compared: two whole rounds are needed" if math.isnan(grown) else f"{grown:+.1%}"
    total = sum(len(seen.latencies) for seen in found[1:])
    done = (
        f"{IN_FLIGHT} in flight got {capacity:,.0f} answers a second, the server's core {found[0].busy:.0%} busy; "
        f"{capacity * arguments.share:,.0f} were sent. {total:,} answers, {sum(seen.failed for seen in found)} failed, "
        f"{sum(seen.wrong for seen in found)} wrong. Memory {growth}. "
        f"A request is not sent when {MOST_IN_FLIGHT} wait."
    )
    made = (
        f"Command: `python -m bench.reload_soak --seconds {arguments.seconds:g} --every {arguments.every:g} "
        f"--share {arguments.share:g}`. {conditions()} CPU time stolen during the run: {steal} ticks."
    )
    lines += ["", done, "", made, ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="changes under load: nothing may fail, be wrong, or stay in memory")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two changes")
    parser.add_argument("--share", type=float, default=0.8, help="of what it can do")
    parser.add_argument("--no-report", action="store_true", help="print the report only")
    arguments = parser.parse_args()
    with suppress(OSError):
        os.sched_setaffinity(0, {int(LOADER_CORE)})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        capacity, found, complaints, steal = asyncio.run(_run(folder, arguments))
    text = page(capacity, found, arguments, steal)
    if not arguments.no_report:
        (REPORTS / "reload_soak.md").write_text(text)
    print(text)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    bad = sum(seen.failed + seen.wrong for seen in found)
    return 1 if bad or growth_of(found) > ALLOWED_GROWTH else 0


async def _run(folder: Path, arguments: argparse.Namespace) -> tuple[float, list[Seen], list[str], int]:
    steal = steal_ticks()
    rounds = math.ceil(arguments.seconds / arguments.every / len(CHANGES))
    for name, version in AT_FIRST:
        write_version(folder / name / str(version), name, version)
    file = folder / "models.config"
    file.write_text(text_format.MessageToString(config_of(folder, 1, with_guest=False)))
    with servable_server("--model_config_file", str(file), "--file_system_poll_wait_seconds", "0.5") as (pid, port):
        load = Load(port)
        try:
            capacity, found = await soak(load, Changes(folder, load, port, rounds), pid, arguments)
        finally:
            await load.close()
    return capacity, found, load.complaints, steal_ticks() - steal


if __name__ == "__main__":
    sys.exit(main())
