"""What a comparison found: values only, with a versioned form as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import msgspec

from servable.core.errors import invalid_argument, not_found
from servable.lab.result import ErrorKind, Machine, ServerProcess, Step
from servable.lab.statistics import Estimate, geometric_mean, ratio

SCHEMA = "servable.compare/1"
_ENOUGH_CYCLES = 50
"""From here on an answer more or less at the edges of a block is within 2 %."""


def _says(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


@dataclass(frozen=True, slots=True)
class Block:
    """One contestant under one load for a few seconds, in one round."""

    round: int
    duration_s: float
    ok: int
    errors: int
    wrong: int
    verified: int
    throughput_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_us_per_request: Annotated[float | None, _says("user and system time of all of the server's processes")] = None
    processes: Annotated[tuple[ServerProcess, ...], _says("those of the server that took CPU time")] = ()
    rss_bytes: Annotated[int | None, _says("sum over the server's processes of the most each ever held")] = None
    client_cpu_share: float = 0.0
    client_bottleneck: bool = False
    cpu_steal_share: float | None = None
    error_kinds: tuple[ErrorKind, ...] = ()
    rate_from: Annotated[str, _says("count: right answers over time; latency: in flight over mean latency")] = "count"


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant, one way to ask it, one concurrency. Ratios are to ``reference``, paired by round."""

    contestant: str
    protocol: Annotated[str, _says("gRPC or REST")]
    wire: str
    concurrency: int
    blocks: tuple[Block, ...] = ()
    throughput_per_s: Estimate | None = None
    p50_ms: Estimate | None = None
    p99_ms: Estimate | None = None
    cpu_us_per_request: Estimate | None = None
    rss_bytes: int | None = None
    reference: Annotated[str, _says("whom the ratios are to; empty for that one itself")] = ""
    throughput_ratio: Estimate | None = None
    p50_ratio: Estimate | None = None
    p99_ratio: Estimate | None = None
    cpu_ratio: Estimate | None = None
    reason: Annotated[str, _says("why there are no numbers, or fewer than planned")] = ""

    @property
    def failures(self) -> int:
        """Return how many requests were answered wrongly, with an error, or not."""
        return sum(block.errors + block.wrong for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Conditions:
    """How it was done."""

    rounds: int
    block_s: float
    warmup_s: float
    threads: Annotated[int, _says("of each engine")]
    batch_rows: Annotated[int, _says("the most that peers with dynamic batching join")]
    batch_wait_ms: Annotated[float, _says("the longest that they wait for it")]
    server_cores: tuple[int, ...] = ()
    client_cores: tuple[int, ...] = ()
    samples: int = 0
    fresh: Annotated[bool, _says("servers were started for each block, not stopped and continued")] = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """A whole comparison on one model."""

    model: str
    rows: tuple[Row, ...]
    conditions: Conditions
    schema: str = SCHEMA
    started: Annotated[str, _says("ISO 8601, UTC")] = ""
    duration_s: float = 0.0
    command: tuple[str, ...] = ()
    machine: Machine = field(default_factory=Machine)
    versions: Annotated[Mapping[str, Mapping[str, str]], _says("by contestant; the lab's own under 'lab'")] = field(
        default_factory=dict
    )
    interrupted: bool = False


def block_of(step: Step, number: int) -> Block:
    """Keep of a step what a comparison needs.

    A server that answers in batches of seconds has one or two of them in a block, which makes a count worth little. In
    a closed loop, requests in flight over mean latency is the same rate, and does not depend on where the block ends.
    """
    server, latency = step.server, step.latency
    rate, rate_from = step.throughput_per_s, "count"
    if step.concurrency and 0 < step.ok < _ENOUGH_CYCLES * step.concurrency and not step.errors + step.wrong:
        rate, rate_from = step.concurrency / latency.mean_ms * 1e3, "latency"
    processes = () if server is None else tuple(one for one in server.processes if one.cpu_s > 0)
    return Block(
        round=number,
        duration_s=step.duration_s,
        ok=step.ok,
        errors=step.errors,
        wrong=step.wrong,
        verified=step.verified,
        throughput_per_s=rate,
        rate_from=rate_from,
        p50_ms=latency.p50_ms,
        p90_ms=latency.p90_ms,
        p99_ms=latency.p99_ms,
        max_ms=latency.max_ms,
        cpu_us_per_request=None if server is None or not step.ok else server.cpu_us_per_request,
        processes=processes,
        rss_bytes=None if server is None else server.rss_bytes,
        client_cpu_share=step.client.cpu_share,
        client_bottleneck=step.client.bottleneck,
        cpu_steal_share=step.cpu_steal_share,
        error_kinds=step.error_kinds,
    )


def row_of(
    contestant: str, protocol: str, wire: str, concurrency: int, blocks: Iterable[Block], reason: str = ""
) -> Row:
    """Summarise blocks. Those without a right answer have no rate; they show in the failures."""
    kept = tuple(sorted(blocks, key=lambda block: block.round))
    good = [block for block in kept if block.ok]
    memory = [block.rss_bytes for block in kept if block.rss_bytes is not None]
    if kept and not good:
        kinds = {f"{kind.code}: {kind.message}" for block in kept for kind in block.error_kinds}
        wrong = sum(block.wrong for block in kept)
        why = "; ".join(sorted(kinds)) or (f"{wrong} were wrong" if wrong else "none came in time")
        reason = reason or f"no right answer: {why}"
    return Row(
        contestant,
        protocol,
        wire,
        concurrency,
        kept,
        throughput_per_s=_mean([block.throughput_per_s for block in good]),
        p50_ms=_mean([block.p50_ms for block in good]),
        p99_ms=_mean([block.p99_ms for block in good]),
        cpu_us_per_request=_mean([block.cpu_us_per_request for block in good]),
        rss_bytes=max(memory, default=None),
        reason=reason,
    )


def with_ratios(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Add ratios to the first contestant: to its row of the same protocol and concurrency, else to its first."""
    rows = tuple(rows)
    if not rows:
        return rows
    first = rows[0].contestant
    references = {(row.protocol, row.concurrency): row for row in reversed(rows) if row.contestant == first}
    fallback = {row.concurrency: row for row in reversed(rows) if row.contestant == first}
    found = []
    for row in rows:
        reference = references.get((row.protocol, row.concurrency)) or fallback.get(row.concurrency)
        if row.contestant == first or reference is None or not row.blocks:
            found.append(row)
        else:
            found.append(_with_ratio(row, reference))
    return tuple(found)


def _with_ratio(row: Row, reference: Row) -> Row:
    theirs = {block.round: block for block in reference.blocks if block.ok}
    pairs = [(block, theirs[block.round]) for block in row.blocks if block.ok and block.round in theirs]

    def of(name: str) -> Estimate | None:
        values = [(getattr(one, name), getattr(other, name)) for one, other in pairs]
        usable = [(one, other) for one, other in values if one and other]
        return ratio([one for one, _ in usable], [other for _, other in usable]) if usable else None

    return replace(
        row,
        reference=f"{reference.contestant} {reference.protocol}",
        throughput_ratio=of("throughput_per_s"),
        p50_ratio=of("p50_ms"),
        p99_ratio=of("p99_ms"),
        cpu_ratio=of("cpu_us_per_request"),
    )


def encode(comparison: Comparison) -> bytes:
    """Return it as JSON."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=1) + b"\n"


def is_comparison(path: Path) -> bool:
    """Return whether a file says that it is a comparison; one that is neither is judged by who reads results."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, OSError):
        return False
    schema = document.get("schema") if isinstance(document, dict) else None
    return isinstance(schema, str) and schema.startswith(SCHEMA.partition("/")[0] + "/")


def read(path: Path) -> Comparison:
    """Read what ``encode`` wrote; INVALID_ARGUMENT says what is wrong with the file."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Comparison)
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise invalid_argument(f"{path} is no comparison: {error}") from None
    if found.schema != SCHEMA:
        raise invalid_argument(f"{path} has the form {found.schema!r}; expected {SCHEMA!r}")
    return found


def _mean(values: Iterable[float | None]) -> Estimate | None:
    known = [value for value in values if value]
    return geometric_mean(known) if known else None
