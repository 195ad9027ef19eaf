"""Load from other people's programs (h2load, wrk, grpcio, grpc-js), each pinned to the loader's core."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import LOADER_CORE, pinned

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Load:
    """What a loader saw: requests answered, seconds, and latency in µs. ``failed`` counts everything that is not OK."""

    requests: int
    seconds: float
    failed: int
    p50_us: float
    p99_us: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def h2load(port: int, path: str, bodies: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """One h2load process for each body, which share the connections, so that bodies vary within the run."""
    with tempfile.TemporaryDirectory() as folder:
        commands = []
        for index, body in enumerate(bodies):
            share = connections // len(bodies) + (index < connections % len(bodies))
            if not share:
                continue
            data, times = Path(folder, f"body{index}"), Path(folder, f"times{index}")
            data.write_bytes(body)
            commands.append(
                [
                    "h2load", "-c", str(share), "-m", "1", "-D", f"{seconds:.0f}", "--warm-up-time", "1",
                    "-d", str(data), "-H", "content-type: application/grpc", "-H", "te: trailers",
                    "--log-file", str(times), f"http://127.0.0.1:{port}{path}",
                ]
            )  # fmt: skip
        loaders = [
            subprocess.Popen(pinned(LOADER_CORE, command), stdout=subprocess.PIPE, text=True) for command in commands
        ]
        outputs = [loader.communicate()[0] for loader in loaders]
        requests = failed = 0
        for output in outputs:
            counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", output)
            if counts is None:
                raise RuntimeError(f"h2load said: {output}")
            requests += int(counts[2])
            failed += int(counts[1]) - int(counts[2])
        micros = sorted(
            int(line.split()[2]) for times in Path(folder).glob("times*") for line in times.read_text().splitlines()
        )
    return Load(requests, seconds, failed, *percentiles(micros))


def wrk(port: int, path: str, bodies: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "load.lua")
        texts = ",\n".join(json.dumps(body.decode()) for body in bodies)
        script.write_text(
            f"local bodies = {{{texts}}}\nlocal n = 0\n"
            'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
            "request = function() n = n + 1; return wrk.format(nil, nil, nil, bodies[n % #bodies + 1]) end\n"
        )
        output = subprocess.run(
            pinned(
                LOADER_CORE,
                [
                    "wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds:g}s", "--latency", "-s", str(script),
                    f"http://127.0.0.1:{port}{path}",
                ],
            ),
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    counts = re.search(r"(\d+) requests in ([\d.]+)(m?s)", output)
    if counts is None:
        raise RuntimeError(f"wrk said: {output}")
    bad = sum(int(found) for found in re.findall(r"Non-2xx or 3xx responses: (\d+)", output))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    bad += sum(map(int, errors.groups())) if errors else 0
    measured = float(counts[2]) * (0.001 if counts[3] == "ms" else 1)
    return Load(int(counts[1]), measured, bad, _wrk_latency(output, "50%"), _wrk_latency(output, "99%"))


def _wrk_latency(output: str, which: str) -> float:
    found = re.search(rf"{which}\s+([\d.]+)(us|ms|s)\b", output)
    assert found is not None, output
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]]


def grpcio_client(port: int, body_files: Sequence[Path], *, in_flight: int, seconds: float) -> Load:
    return _json_client(
        [sys.executable, str(HERE / "clients" / "grpcio_client.py")], port, body_files, in_flight, seconds
    )


def grpc_js_client(port: int, body_files: Sequence[Path], *, in_flight: int, seconds: float) -> Load:
    return _json_client(["node", str(HERE / "clients" / "grpc_js_client.js")], port, body_files, in_flight, seconds)


def _json_client(command: list[str], port: int, files: Sequence[Path], in_flight: int, seconds: float) -> Load:
    """A client that calls Predict with a deadline each and prints its counts and latencies as JSON."""
    output = subprocess.run(
        pinned(LOADER_CORE, [*command, str(port), str(in_flight), f"{seconds:g}", *map(str, files)]),
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = json.loads(output)
    return Load(found["ok"], found["seconds"], found["failed"], found["p50_us"], found["p99_us"])


def percentiles(sorted_micros: Sequence[float]) -> tuple[float, float]:
    if len(sorted_micros) < 2:
        return (0.0, 0.0)
    cuts = statistics.quantiles(sorted_micros, n=100, method="inclusive")
    return cuts[49], cuts[98]
