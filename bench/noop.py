"""The no-op figure: what the server itself costs, on a one-layer model, beside two ordinary servers doing the same.

Ordinary ``servable serve`` with metrics on, server on one core, loader on the other, 32 connections, bodies of several
shapes and values, answers verified by a second client in the run. Median of the repeats.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.loads import Load, grpc_js_client, grpcio_client, h2load, wrk
from bench.processes import cpu_seconds, free_port, running, servable_server, wait_until_ok, wait_until_open
from bench.questions import PREDICT, Sample, Verifier, samples
from servable.lab.peers import PEERS, Environment, Placement
from servable.zoo import catalog

MODEL = "noop"
REST_PATH = f"/v1/models/{MODEL}:predict"
ROWS = (1, 1, 2, 1, 1, 3, 1, 1)


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    server: str
    load: str
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    failed: int
    verified: int
    wrong: int


Start = Callable[[], "contextlib.AbstractContextManager[tuple[int, int]]"]
LoadIt = Callable[[int], Load]


def measure(server: str, load: str, start: Start, over: str, run: LoadIt, found: list[Sample], repeats: int) -> Row:
    rows = []
    for _ in range(repeats):
        with start() as (pid, port), Verifier(MODEL, port, over, found) as verifier:
            before = cpu_seconds(pid)
            result = run(port)
            spent = cpu_seconds(pid) - before
        # h2load's warm-up second is load as well: all requests of the window share the CPU time spent in it.
        answered = result.requests * (1 + (1 / result.seconds if load.startswith("h2load") else 0))
        rows.append(
            Row(
                server, load, result.rate, spent / (answered + verifier.right) * 1e6, result.p50_us, result.p99_us,
                result.failed, verifier.right, len(verifier.wrong),
            )
        )  # fmt: skip
        for problem in verifier.wrong[:3]:
            print("  wrong:", problem)
    middle = sorted(rows, key=lambda row: row.rate)[len(rows) // 2]
    return Row(
        server, load, middle.rate, statistics.median(row.cpu_us for row in rows), middle.p50_us, middle.p99_us,
        sum(row.failed for row in rows), sum(row.verified for row in rows), sum(row.wrong for row in rows),
    )  # fmt: skip


def figures(seconds: float, repeats: int) -> list[Row]:
    found = samples(MODEL, ROWS)
    framed = [sample.framed(MODEL) for sample in found]
    json_bodies = [sample.rest_body() for sample in found]
    with tempfile.TemporaryDirectory() as folder:
        model_file = catalog.build(MODEL, Path(folder, "models"), kind="onnx") / "model.onnx"
        body_files = []
        for index, sample in enumerate(found):
            body_files.append(Path(folder, f"request{index}"))
            body_files[-1].write_bytes(sample.grpc_body(MODEL))

        def ours() -> contextlib.AbstractContextManager[tuple[int, int]]:
            return servable_server(str(Path(folder, "models", MODEL)))

        def by_h2load(port: int) -> Load:
            return h2load(port, PREDICT, framed, connections=32, seconds=seconds)

        def by_wrk(port: int) -> Load:
            return wrk(port, REST_PATH, json_bodies, connections=32, seconds=seconds)

        def by_grpcio(port: int) -> Load:
            return grpcio_client(port, body_files, in_flight=32, seconds=seconds)

        def by_grpc_js(port: int) -> Load:
            return grpc_js_client(port, body_files, in_flight=32, seconds=seconds)

        contestants: list[tuple[str, str, Start, str, LoadIt]] = [
            ("servable", "h2load 32x1", ours, "grpc", by_h2load),
            ("servable", "wrk 32", ours, "rest", by_wrk),
            ("servable", "grpcio, deadlines, 32 in flight", ours, "grpc", by_grpcio),
            ("servable", "grpc-js, deadlines, 32 in flight", ours, "grpc", by_grpc_js),
            ("grpcio sync, 8 threads", "h2load 32x1", lambda: peer("grpcio", model_file), "grpc", by_h2load),
            ("flask + gunicorn", "wrk 32", lambda: peer("flask", model_file), "rest", by_wrk),
        ]
        rows = []
        for server, load, start, over, run in contestants:
            print(f"no-op: {server}, {load}", flush=True)
            rows.append(measure(server, load, start, over, run, found, repeats))
            print(f"  {rows[-1]}", flush=True)
    return rows


@contextlib.contextmanager
def peer(name: str, model_file: Path) -> Iterator[tuple[int, int]]:
    """One of the lab's peers, in its own environment."""
    rival = PEERS[name]
    environment = Environment(rival)
    environment.install(print)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        placement = Placement(MODEL, model_file, Path(folder), (port, free_port(), free_port()))
        command = rival.command(environment.python, placement)
        with running(command.words, environment=dict(command.environment)) as process:
            url = rival.ready_url(placement)
            if url is None:
                wait_until_open(port, process)
            else:
                wait_until_ok(url, process)
            yield process.pid, port
