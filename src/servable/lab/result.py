"""What a measurement found: the versioned schema of the lab's result files. Values only; nothing here measures.

Latencies are in milliseconds, rates per second, sizes in bytes, shares from 0 to 1 (of one core where a CPU is meant).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from servable.core.errors import invalid_argument, not_found

SCHEMA = "servable.bench/1"
"""The version in the name changes when a field changes its meaning or goes away; new fields do not change it."""


def _says(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the load was made."""

    cpu: Annotated[str, _says("the processor's model name")] = ""
    cores: Annotated[int, _says("processors that this process may use")] = 0
    memory_bytes: int = 0
    system: Annotated[str, _says("kernel and distribution")] = ""
    host: str = ""
    cpu_quota: Annotated[float | None, _says("cores that a control group allows, if it limits them")] = None


@dataclass(frozen=True, slots=True)
class Target:
    """What was measured."""

    url: str
    wire: Annotated[str, _says("tfserving-grpc, tfserving-rest, kserve-grpc, kserve-rest, kserve-binary or http")]
    model: str = ""
    version: int | None = None
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How the load was made, as it was asked for."""

    name: Annotated[str, _says("load, single-stream, multi-stream, server, offline or slo")] = "load"
    arrivals: Annotated[Literal["closed", "constant", "poisson", "trace"], _says("when requests begin")] = "closed"
    duration_s: Annotated[float | None, _says("length of each step, if time bounds it")] = None
    count: Annotated[int | None, _says("requests of each step, if their number bounds it")] = None
    warmup_s: float = 0.0
    seed: int = 0
    processes: Annotated[int, _says("client processes")] = 1
    connections: Annotated[int, _says("connections of all client processes together")] = 1
    timeout_s: float = 0.0
    data: Annotated[str, _says("where the requests' tensors are from")] = ""
    samples: Annotated[int, _says("different requests that took turns")] = 0
    expect: Annotated[str, _says("what answers were compared with; empty: only checked for success")] = ""


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of requests that were answered rightly, from when each should have begun (open loop) or began (closed)."""

    count: int = 0
    mean_ms: float = 0.0
    min_ms: float = 0.0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0
    histogram: Annotated[
        str, _says("HdrHistogram V2, compressed, base64; in nanoseconds, 3 significant digits, up to one hour")
    ] = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a request's time."""

    mean_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Split:
    """Where a request's time went; parts that nobody told are null."""

    encode: Annotated[Part | None, _says("tensors to bytes, before the run: it delays no request")] = None
    send: Annotated[Part | None, _says("from when a request should have begun until its bytes were handed over")] = None
    wait: Annotated[Part | None, _says("from there until the whole reply was there")] = None
    decode: Annotated[Part | None, _says("reply to tensors and their comparison, after the latency's end")] = None
    queue: Annotated[Part | None, _says("told by the server: before its engine began")] = None
    compute: Annotated[Part | None, _says("told by the server: in its engine")] = None


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """Failures that are alike."""

    code: Annotated[str, _says("a gRPC code's name, HTTP and the status, or what became of the connection")]
    message: Annotated[str, _says("the first such failure's text")]
    count: int


@dataclass(frozen=True, slots=True)
class Second:
    """What ended in one second of a step. ``p50_ms`` and ``p99_ms`` are null where nothing was right."""

    at_s: Annotated[float, _says("begin of the second, from the measured window's begin")]
    ok: int
    errors: int
    wrong: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class ClientCost:
    """What the load generator itself took, and whether that spoiled the numbers."""

    cpu_share: Annotated[float, _says("CPU time over wall time of the busiest client process: 1 is a whole core")] = 0.0
    cpu_us_per_request: float = 0.0
    late_p99_ms: Annotated[
        float | None, _says("open loop: how late requests began, 99th percentile; it is part of their latency")
    ] = None
    bottleneck: Annotated[bool, _says("the client, not the server, limited what was measured")] = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """One process of the server."""

    pid: int
    name: str
    cpu_s: float
    cpu_share: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class ServerCost:
    """What the server took during the measured window, by process."""

    processes: tuple[ServerProcess, ...]
    cpu_s: float
    cpu_share: float
    rss_bytes: int
    cpu_us_per_request: float


@dataclass(frozen=True, slots=True)
class Step:
    """One load held for a while. ``ok`` + ``errors`` + ``wrong`` requests ended in the measured window."""

    label: Annotated[str, _says("what sets this step apart: 32 in flight, 500/s, batch 8")]
    ok: int
    errors: Annotated[int, _says("answered with an error, or not answered")]
    wrong: Annotated[int, _says("answered, but not what was expected")]
    offered_rate_per_s: Annotated[float | None, _says("open loop: requests meant to begin, per second")] = None
    concurrency: Annotated[int | None, _says("closed loop: requests in flight at any time")] = None
    batch: Annotated[int, _says("rows of a request; of the first sample, if they differ")] = 1
    request_bytes: Annotated[float, _says("mean size of a request's body")] = 0.0
    reply_bytes: Annotated[float, _says("mean size of a right reply's body")] = 0.0
    duration_s: Annotated[float, _says("the measured window")] = 0.0
    warmup_s: Annotated[float, _says("what came before the window and is counted nowhere")] = 0.0
    throughput_per_s: Annotated[float, _says("right answers per second")] = 0.0
    rows_per_s: float = 0.0
    verified: Annotated[int, _says("answers compared with what was expected")] = 0
    unfinished: Annotated[int, _says("requests without an answer when the step ended; counted nowhere else")] = 0
    error_kinds: tuple[ErrorKind, ...] = ()
    latency: Latency = field(default_factory=Latency)
    corrected: Annotated[
        Latency | None, _says("closed loop: what clients with a schedule would have seen (coordinated omission)")
    ] = None
    split: Split = field(default_factory=Split)
    seconds: tuple[Second, ...] = ()
    client: ClientCost = field(default_factory=ClientCost)
    server: Annotated[ServerCost | None, _says("known only where the server's processes were named")] = None
    cpu_steal_share: Annotated[float | None, _says("CPU time that a hypervisor kept from this machine")] = None
    steady: Annotated[bool | None, _says("rate and median kept within bounds; null: too short to tell")] = None
    slo_held: Annotated[bool | None, _says("with an objective: whether this step held it")] = None
    notes: Annotated[tuple[str, ...], _says("what a reader of these numbers must know")] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """The highest rate that held an objective."""

    objective: Annotated[str, _says("as given: p99=50ms")]
    rate_per_s: Annotated[float | None, _says("highest rate that held; null: none did")]
    failed_rate_per_s: Annotated[float | None, _says("lowest rate above it that did not; null: none was tried")]
    trials: int
    confidence: Annotated[float, _says("of each trial's verdict")] = 0.95


@dataclass(frozen=True, slots=True)
class Result:
    """A whole measurement, as ``servable bench URL`` writes it."""

    target: Target
    scenario: Scenario
    steps: tuple[Step, ...]
    schema: Annotated[str, _says("name and version of this form")] = SCHEMA
    started: Annotated[str, _says("ISO 8601, UTC")] = ""
    command: Annotated[tuple[str, ...], _says("the words that made this result")] = ()
    machine: Machine = field(default_factory=Machine)
    versions: Annotated[dict[str, str], _says("of servable, Python and the libraries on the path of a request")] = (
        field(default_factory=dict)
    )
    ok: Annotated[int, _says("right answers of all steps")] = 0
    errors: Annotated[int, _says("failures of all steps")] = 0
    wrong: Annotated[int, _says("wrong answers of all steps")] = 0
    search: Search | None = None
    interrupted: Annotated[bool, _says("stopped by hand: the last step is shorter than asked")] = False
    notes: tuple[str, ...] = ()


def encode(result: Result) -> bytes:
    """Return the result as JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def decode(text: bytes | str, where: str = "the result") -> Result:
    """Read what ``encode`` wrote; INVALID_ARGUMENT names the field that is wrong, or the version that is not ours."""
    try:
        version = msgspec.json.decode(text, type=_Versioned).schema
        if version != SCHEMA:
            raise invalid_argument(f"{where} has the form {version!r}; expected {SCHEMA!r}")
        return msgspec.json.decode(text, type=Result)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise invalid_argument(f"{where} is no result of a measurement: {error}") from None


def read(path: Path) -> Result:
    """Read a result file."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of result files."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Result)}


@dataclass(frozen=True, slots=True)
class _Versioned:
    schema: str
