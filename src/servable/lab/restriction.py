"""What servers did within their limits: values only, with a versioned form as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from servable.lab.result import Machine

SCHEMA = "servable.restrict/1"


def _says(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


@dataclass(frozen=True, slots=True)
class Row:
    """One server in one case. Without numbers, ``reason`` says why."""

    case: str
    server: str
    cores: tuple[int, ...]
    cpus: Annotated[float | None, _says("cores' worth of time, where that is less than the cores")] = None
    memory_limit_bytes: int | None = None
    held_by: Annotated[str, _says("affinity, and control group or watchdog")] = "affinity"
    client_cores: Annotated[tuple[int, ...], _says("those of the load generator")] = ()
    ok: int = 0
    errors: int = 0
    wrong: int = 0
    verified: int = 0
    throughput_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_share: Annotated[float | None, _says("CPU time over wall time: 1 is a whole core")] = None
    rss_bytes: Annotated[int | None, _says("the most that it held")] = None
    reason: str = ""

    @property
    def out_of_memory(self) -> bool:
        """Whether its memory limit ended it."""
        return self.reason.startswith("out of memory")


@dataclass(frozen=True, slots=True)
class Restriction:
    """A whole run."""

    model: str
    rows: tuple[Row, ...]
    concurrency: int
    block_s: float
    schema: str = SCHEMA
    started: Annotated[str, _says("ISO 8601, UTC")] = ""
    command: tuple[str, ...] = ()
    machine: Machine = field(default_factory=Machine)
    versions: Mapping[str, str] = field(default_factory=dict)


def encode(found: Restriction) -> bytes:
    """Return it as JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
