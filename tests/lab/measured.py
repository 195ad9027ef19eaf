"""Results of measurements that never happened, the same each time, for tests of what is made of results."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from servable.lab.comparison import Block, Comparison, Conditions, row_of, with_ratios
from servable.lab.histogram import Histogram
from servable.lab.result import (
    ClientCost,
    ErrorKind,
    Machine,
    Part,
    Result,
    Scenario,
    Search,
    Second,
    ServerCost,
    ServerProcess,
    Split,
    Step,
    Target,
)

MACHINE = Machine("EXAMPLE 9000 @ 3.2 GHz", 2, 8 << 30, "Linux 6.18, Debian 12", "host-1")
VERSIONS = {"servable": "0.1.0", "python": "3.11.7", "numpy": "2.4.6", "uvloop": "0.23.0"}


def step(
    label: str, rate: float, median_ms: float, *, seconds: int = 20, seed: int = 1, errors: int = 0, wrong: int = 0
) -> Step:
    """Return a step whose latencies are log-normal around a median, with a pause of the server in the middle."""
    random = np.random.default_rng(seed)
    count = int(rate * seconds)
    values = np.exp(random.normal(np.log(median_ms), 0.25, count)) * 1e6
    values[: count // 200] *= 8
    counted = Histogram()
    counted.record(values.astype(np.int64))
    kinds = (ErrorKind("UNAVAILABLE", "connection refused", errors),) if errors else ()
    each = [
        Second(
            float(index),
            int(rate * (0.4 if index == seconds // 2 else 1 + 0.05 * float(random.normal()))),
            errors // seconds,
            wrong // seconds,
            median_ms * (1 + 0.04 * float(random.normal())),
            median_ms * (9 if index == seconds // 2 else 2.2),
        )
        for index in range(seconds)
    ]
    corrected = Histogram()
    corrected.record((values * 1.3).astype(np.int64))
    return Step(
        label,
        count,
        errors,
        wrong,
        concurrency=int(label.split()[0]) if "in flight" in label else None,
        duration_s=float(seconds),
        warmup_s=2.0,
        throughput_per_s=float(rate),
        rows_per_s=float(rate),
        verified=count // 10,
        error_kinds=kinds,
        latency=counted.summary(),
        corrected=corrected.summary(),
        split=Split(
            encode=Part(0.004, 0.004, 0.009),
            send=Part(0.01, 0.01, 0.02),
            wait=Part(median_ms, median_ms, median_ms * 2),
            queue=Part(median_ms * 0.3, median_ms * 0.2, median_ms),
            compute=Part(median_ms * 0.5, median_ms * 0.5, median_ms * 0.7),
            decode=Part(0.006, 0.006, 0.02),
        ),
        seconds=tuple(each),
        client=ClientCost(min(0.99, rate / 20000), 26.0),
        server=ServerCost((ServerProcess(7, "servable", 18.0, 0.9, 140 << 20),), 18.0, 0.9, 140 << 20, 0.9e6 / rate),
        cpu_steal_share=0.004,
        steady=True,
    )


def result(*steps: Step, **changes: object) -> Result:
    """Return a result with these steps."""
    made = Result(
        Target("grpc://127.0.0.1:8500", "tfserving-grpc", "text_cnn_small", 3, "serving_default"),
        Scenario(
            duration_s=20.0,
            warmup_s=2.0,
            seed=7,
            connections=8,
            data="server metadata",
            samples=64,
            expect="expected.npz",
        ),
        steps,
        started="2026-11-21T12:00:00Z",
        command=("servable", "bench", "grpc://127.0.0.1:8500", "--concurrency", "1,2,4"),
        machine=MACHINE,
        versions=VERSIONS,
        ok=sum(s.ok for s in steps),
        errors=sum(s.errors for s in steps),
        wrong=sum(s.wrong for s in steps),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def sweep() -> Result:
    """Return a run over rising concurrency."""
    loads = ((1, 1900, 0.52), (2, 3300, 0.6), (4, 4600, 0.85), (8, 5100, 1.5), (16, 5200, 3.0), (32, 5150, 6.1))
    return result(*(step(f"{n} in flight", rate, ms, seconds=10, seed=n) for n, rate, ms in loads))


def failing() -> Result:
    """Return a run in which one load failed, one was answered wrongly, and one was limited by the client."""
    limited = replace(
        step("4 in flight", 4600, 0.85, seconds=5),
        client=ClientCost(0.99, 80.0, None, True, "99 % of its core"),
        steady=False,
        cpu_steal_share=0.09,
    )
    return result(
        step("1 in flight", 1900, 0.52, seconds=5),
        limited,
        step("16 in flight", 5200, 3.0, seconds=5, errors=2600),
        step("32 in flight", 9000, 1.0, seconds=5, wrong=35),
        search=Search("p99=5ms", 4600.0, 5200.0, 9),
        interrupted=True,
    )


def empty() -> Result:
    """Return a run that nobody answered."""
    return result(Step("1 in flight", 0, 12, 0, error_kinds=(ErrorKind("UNAVAILABLE", "nobody listens", 12),)))


def block(number: int, rate: float, median_ms: float, *, errors: int = 0) -> Block:
    """Return one block of a comparison; rounds differ a little."""
    drift = 1 + 0.02 * math.sin(number * 1.7 + rate)
    processes = (ServerProcess(7, "server", 4.5, 0.9, 140 << 20),)
    cpu = 0.9e6 / rate
    return Block(
        number,
        5.0,
        int(5 * rate * drift),
        errors,
        0,
        500,
        rate * drift,
        median_ms / drift,
        median_ms * 1.5 / drift,
        median_ms * (2.2 + 0.2 * drift),
        median_ms * 9,
        cpu * drift,
        processes,
        140 << 20,
        0.4,
        cpu_steal_share=0.002,
    )


SERVERS = (("servable", 5000, 0), ("tensorflow_model_server", 2600, 0), ("flask + gunicorn", 900, 7))


def comparison() -> Comparison:
    """Return a comparison in which one server fails a little and one was not there."""
    rows = []
    for protocol, wire, factor in (("gRPC", "tfserving-grpc", 1.0), ("REST", "tfserving-rest", 0.8)):
        for concurrency in (1, 32):
            for name, rate, errors in (
                ("servable", 5000, 0),
                ("tensorflow_model_server", 2600, 0),
                ("flask + gunicorn", 900, 7),
            ):
                speed = rate * factor * (1 if concurrency == 32 else 0.4)
                blocks = [block(number, speed, 1e3 * concurrency / speed, errors=errors) for number in range(5)]
                rows.append(row_of(name, protocol, wire, concurrency, blocks))
            rows.append(row_of("mosec", protocol, wire, concurrency, (), "cannot be installed: no such version"))
    return Comparison(
        "text_cnn_small",
        with_ratios(rows),
        Conditions(5, 5.0, 1.0, 1, 32, 1.0, (0,), (1,), 64),
        started="2026-11-21T12:00:00Z",
        duration_s=312.0,
        command=("servable", "bench", "compare", "servable", "flask"),
        machine=MACHINE,
        versions={"lab": VERSIONS, "flask + gunicorn": {"flask": "3.1.0"}},
    )
