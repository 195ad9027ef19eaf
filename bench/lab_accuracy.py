"""Whether the lab's own numbers can be believed, and what it costs to get them: python -m bench.lab_accuracy

**What a load costs.** The lab, h2load and wrk take turns against servers in C (nghttpd for gRPC, nginx for REST), which
have one core; the load has the other. "per core" is what one core of the client could send: a second over its CPU time
for a request; the rate itself is also the server's. The lab verifies every answer, the others only look at the status.

**What it says.** A stub of known behaviour answers; beside what the lab found stands what was true: the stub's own log
of its delays and failures, and for the stall (100 ms in which nothing happens, once a second) what arithmetic says of
arrivals at a constant rate: the wait, and then the median of those that did not wait. Both processes
run with real-time priority, if that is permitted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.loads import h2load, wrk
from bench.processes import LOADER_CORE, SERVER_CORE, free_port, pinned, running, wait_until_open
from bench.questions import PREDICT
from bench.run import REPORTS, conditions, steal_ticks
from servable.core.messages import InferResponse, ModelRef
from servable.lab.asking import wire_for
from servable.lab.exchange import Prepared, Sample
from servable.lab.result import Step
from servable.lab.schedule import Schedule
from servable.lab.session import ClientOptions, Load, Session
from servable.lab.target import parse_endpoint
from servable.wire import tfserving_grpc

STUB = Path(__file__).parent.parent / "tests" / "lab" / "stub_server.py"
SCORES = np.array([[0.25, 0.75]], np.float32)
SETTLE_S = 0.5
NGINX = """daemon off; pid {folder}/pid; worker_processes 1; error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/bodies;
server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json;
return 200 '{{"predictions": [[0.25, 0.75]]}}'; }} }} }}
"""


@dataclass(frozen=True)
class Cost:
    over: str
    load: str
    in_flight: int
    rate: float
    cpu_us: float
    per_core: float
    p50_us: float
    verified: int
    failed: int


@dataclass(frozen=True)
class Check:
    stub: str
    over: str
    load: str
    what: str
    found: float
    true: float

    @property
    def off(self) -> str:
        return f"{abs(self.found - self.true) / self.true:.1%}" if self.true else f"{self.found - self.true:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    steal = steal_ticks()
    costs = [*grpc_costs(arguments.seconds, arguments.repeats), *rest_costs(arguments.seconds, arguments.repeats)]
    checks = middle_checks([accuracy(arguments.seconds) for _ in range(arguments.repeats)])
    page = report(costs, checks, arguments, steal_ticks() - steal)
    (REPORTS / "lab.md").write_text(page)
    print(page)


# --- cost


def grpc_costs(seconds: float, repeats: int) -> list[Cost]:
    with nghttpd() as port:
        url = f"grpc://127.0.0.1:{port}/noop"
        bodies = [one.body for one in requests(url)]

        def once(in_flight: int) -> list[Cost]:
            def by_h2load() -> Any:
                return h2load(port, PREDICT, bodies[:in_flight], connections=in_flight, seconds=seconds)

            name = f"h2load, {in_flight} connection{'s' * (in_flight > 1)}"
            return [lab_cost(url, in_flight, seconds), timed("grpc", name, in_flight, by_h2load)]

        return [*medians([once(1) for _ in range(repeats)]), *medians([once(32) for _ in range(repeats)])]


def rest_costs(seconds: float, repeats: int) -> list[Cost]:
    with nginx() as port:
        url = f"http://127.0.0.1:{port}/noop"
        bodies = [one.body for one in requests(url)]
        path = "/v1/models/noop:predict"

        def once(in_flight: int) -> list[Cost]:
            def by_wrk() -> Any:
                return wrk(port, path, bodies, connections=in_flight, seconds=seconds)

            return [
                lab_cost(url, in_flight, seconds),
                timed("rest", "wrk", in_flight, by_wrk),
                h2load_h1(port, path, bodies[0], in_flight, seconds),
            ]

        return [*medians([once(1) for _ in range(repeats)]), *medians([once(32) for _ in range(repeats)])]


def medians(rounds: Sequence[Sequence[Cost]]) -> list[Cost]:
    return [median([one[place] for one in rounds]) for place in range(len(rounds[0]))]


def lab_cost(url: str, in_flight: int, seconds: float) -> Cost:
    step = steps(url, [Load(concurrency=in_flight, duration_s=seconds, warmup_s=SETTLE_S)], cores=(int(LOADER_CORE),))[
        0
    ]
    cpu_us = step.client.cpu_us_per_request
    over = url.split(":", 1)[0].replace("http", "rest")
    return Cost(
        over, "servable bench", in_flight, step.throughput_per_s, cpu_us, 1e6 / cpu_us,
        step.latency.p50_ms * 1000, step.verified, step.errors + step.wrong,
    )  # fmt: skip


def timed(over: str, name: str, in_flight: int, run: Callable[[], Any]) -> Cost:
    before = os.times()
    found = run()
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    # h2load warms up for a second, which is load as well.
    requests_made = found.requests * (1 + (1 / found.seconds if "h2load" in name else 0))
    cpu_us = spent / requests_made * 1e6
    return Cost(over, name, in_flight, found.rate, cpu_us, 1e6 / cpu_us, found.p50_us, 0, found.failed)


def h2load_h1(port: int, path: str, body: bytes, in_flight: int, seconds: float) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        data, times = Path(folder, "body"), Path(folder, "times")
        data.write_bytes(body)
        before = os.times()
        command = ["h2load", "--h1", "-c", str(in_flight), "-m", "1", "-D", f"{seconds:.0f}", "--warm-up-time", "1"]
        files = ["-d", str(data), "--log-file", str(times), f"http://127.0.0.1:{port}{path}"]
        output = subprocess.run(
            pinned(LOADER_CORE, [*command, *files]), check=True, capture_output=True, text=True
        ).stdout
        after = os.times()
        counts = re.search(r"(\d+) done, (\d+) succeeded", output)
        assert counts is not None, output
        micros = [int(line.split()[2]) for line in times.read_text().splitlines()]
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    done = int(counts[1])
    cpu_us = spent / (done * (1 + 1 / seconds)) * 1e6
    return Cost(
        "rest", "h2load --h1", in_flight, done / seconds, cpu_us, 1e6 / cpu_us, statistics.median(micros), 0,
        done - int(counts[2]),
    )  # fmt: skip


def median(costs: Sequence[Cost]) -> Cost:
    def middle(name: str) -> float:
        return float(statistics.median(getattr(cost, name) for cost in costs))

    first = costs[0]
    return Cost(
        first.over, first.load, first.in_flight, middle("rate"), middle("cpu_us"), middle("per_core"), middle("p50_us"),
        sum(cost.verified for cost in costs), sum(cost.failed for cost in costs),
    )  # fmt: skip


@contextlib.contextmanager
def nghttpd() -> Iterator[int]:
    """A gRPC server in C: the same PredictResponse for every request."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, PREDICT[1:])
        file.parent.mkdir()
        response = InferResponse(ModelRef("noop", 1), "serving_default", {"scores": SCORES})
        file.write_bytes(tfserving_grpc.encode_predict_response(response, framed=True))
        command = [program("nghttpd"), "--no-tls", "-d", folder, "--trailer", "grpc-status: 0", str(port)]
        with running(command) as process:
            wait_until_open(port, process)
            yield port


@contextlib.contextmanager
def nginx() -> Iterator[int]:
    """A REST server in C: the same predictions for every request."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "nginx.conf")
        configuration.write_text(NGINX.format(folder=folder, port=port))
        with running([program("nginx"), "-c", str(configuration)]) as process:
            wait_until_open(port, process)
            yield port


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit(f"{name} is not there: apt-get install nghttp2-server nginx-light nghttp2-client wrk")
    return found


def requests(url: str, expect: str = "") -> list[Prepared]:
    """Small requests that differ, with the right answer."""
    endpoint = parse_endpoint(url)
    wire = wire_for(endpoint)
    expected = {"scores" if endpoint.wire.endswith("grpc") else "predictions": SCORES}
    tokens = [np.arange(at, at + 50, dtype=np.int32).reshape(1, 50) for at in range(8)]
    return [wire.prepare(Sample({"tokens": row}, expected)) for row in tokens]


def steps(url: str, loads: Sequence[Load], **options: Any) -> list[Step]:
    endpoint = parse_endpoint(url)

    async def run() -> list[Step]:
        async with Session(endpoint.address, wire_for(endpoint), requests(url), ClientOptions(**options)) as session:
            return [await session.step(load) for load in loads]

    return asyncio.run(run())


# --- accuracy


@contextlib.contextmanager
def stub() -> Iterator[dict[str, int]]:
    command = pinned(SERVER_CORE, [sys.executable, str(STUB)])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()


def accuracy(seconds: float) -> list[Check]:
    with contextlib.suppress(PermissionError):
        # What other programs do to the scheduler is not what is measured here.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    checks = []
    for over in ("grpc", "rest"):
        with stub() as ports:
            checks += delays(over, ports, seconds)
            checks += failures(over, ports, seconds)
        with stub() as ports:
            checks += stalls(over, ports, seconds)
    return checks


def middle_checks(rounds: Sequence[Sequence[Check]]) -> list[Check]:
    """Return the median of each row: what one hiccup of the machine does to a p99 of 500 requests is not the lab's."""
    return [
        replace(
            same[0],
            found=float(statistics.median(check.found for check in same)),
            true=float(statistics.median(check.true for check in same)),
        )
        for same in zip(*rounds, strict=True)
    ]


def delays(over: str, ports: dict[str, int], seconds: float) -> list[Check]:
    """A server that takes 50 ms, asked on a schedule and by four who wait."""
    checks = []
    for name, load in (
        ("delay50", Load(schedule=Schedule("constant", 100), duration_s=seconds, warmup_s=1)),
        ("delay50-", Load(concurrency=4, duration_s=seconds, warmup_s=1)),
    ):
        (step,) = steps(url_of(over, ports, name), [load], cores=(int(LOADER_CORE),))
        took = truth(over, ports, name)["took_ms"][-step.ok :]  # without the warm-up's
        label = load.label
        rate = 100.0 if load.schedule is not None else 4 / (statistics.fmean(took) / 1000)
        checks.append(Check("50 ms", over, label, "rate (1/s)", step.throughput_per_s, rate))
        for percent, found in ((50, step.latency.p50_ms), (90, step.latency.p90_ms), (99, step.latency.p99_ms)):
            at = float(np.percentile(took, percent))
            checks.append(Check("50 ms", over, label, f"p{percent} (ms)", found, at))
    return checks


def failures(over: str, ports: dict[str, int], seconds: float) -> list[Check]:
    """Every 10th fails, every 7th of the others is wrong; and HTTP 200 with a grpc-status that is not 0."""
    count = int(200 * seconds)
    step = steps(url_of(over, ports, "error10-wrong7"), [Load(concurrency=1, count=count, warmup_s=0)])[0]
    errors = count // 10
    wrong = sum(1 for at in range(1, count + 1) if at % 10 and at % 7 == 0)
    checks = [
        Check("errs and lies", over, "1 in flight", "errors", step.errors, errors),
        Check("errs and lies", over, "1 in flight", "wrong", step.wrong, wrong),
        Check("errs and lies", over, "1 in flight", "ok", step.ok, count - errors - wrong),
    ]
    if over == "grpc":
        step = steps(url_of(over, ports, "status4"), [Load(concurrency=1, count=count, warmup_s=0)])[0]
        checks.append(Check("200 with grpc-status 8", over, "1 in flight", "errors", step.errors, count // 4))
    return checks


def stalls(over: str, ports: dict[str, int], seconds: float) -> list[Check]:
    """100 ms a second: a tenth of all arrivals wait evenly 0 to 100 ms, so 1 of 100 waits 90 ms, and is then served.

    How long serving takes tell those that no stall held up, which are the median. A rate that is no whole number
    meets each stall at another moment of it.
    """
    whole = float(max(2, round(seconds)))
    closed, opened = steps(
        url_of(over, ports, "stall"),
        [
            Load(concurrency=1, duration_s=whole, warmup_s=1),
            Load(schedule=Schedule("constant", 97.3), duration_s=2 * whole, warmup_s=1),
        ],
        cores=(int(LOADER_CORE),),
    )
    assert closed.corrected is not None
    return [
        Check("stall", over, "97.3/s constant", "rate (1/s)", opened.throughput_per_s, 97.3),
        Check("stall", over, "97.3/s constant", "p99 (ms)", opened.latency.p99_ms, 90 + opened.latency.p50_ms),
        Check("stall", over, "97.3/s constant", "max (ms)", opened.latency.max_ms, 100 + opened.latency.p50_ms),
        Check("stall", over, "1 in flight, corrected", "p99 (ms)", closed.corrected.p99_ms, 90 + closed.latency.p50_ms),
    ]


def url_of(over: str, ports: dict[str, int], name: str) -> str:
    return f"{'grpc' if over == 'grpc' else 'http'}://127.0.0.1:{ports[over]}/{name}"


def truth(over: str, ports: dict[str, int], name: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['rest']}/truth", timeout=10) as reply:
        found = json.load(reply)
    return dict(found[name if over == "grpc" else f"/v1/models/{name}:predict"])


# --- the page


def report(costs: Sequence[Cost], checks: Sequence[Check], arguments: argparse.Namespace, steal: int) -> str:
    lines = ["# The lab itself", "", (__doc__ or "").partition("\n")[2].strip(), "", "## What a load costs", ""]
    lines += [
        "| over | load | in flight | rate (1/s) | CPU (µs a request) | per core (1/s) | p50 (µs) | verified | failed |"
    ]
    lines += ["|" + " --- |" * 9]
    lines += [
        f"| {one.over} | {one.load} | {one.in_flight} | {one.rate:,.0f} | {one.cpu_us:.1f} | {one.per_core:,.0f} "
        f"| {one.p50_us:.0f} | {one.verified:,} | {one.failed} |"
        for one in costs
    ]
    lines += ["", "## What it says", "", "| stub | over | load | what | found | true | off |", "|" + " --- |" * 7]
    lines += [
        f"| {one.stub} | {one.over} | {one.load} | {one.what} | {one.found:.4g} | {one.true:.4g} | {one.off} |"
        for one in checks
    ]
    command = f"python -m bench.lab_accuracy --seconds {arguments.seconds:g} --repeats {arguments.repeats}"
    made = f"Command: `{command}`. Medians of the repeats. {conditions()}"
    return "\n".join([*lines, "", f"{made} CPU time stolen during the run: {steal} ticks.", ""])


if __name__ == "__main__":
    main()
