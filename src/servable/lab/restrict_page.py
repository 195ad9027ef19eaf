"""What limits cost, as a report: one table, the cases one below the other."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from servable.lab.page import machine_facts
from servable.lab.restriction import Restriction, Row
from servable.report.blocks import Block, Cell, Column, Facts, Notice, Report, Section, Table, Tone, Toned
from servable.report.plots import Axis, Bar, BarPlot
from servable.report.units import BYTES, CORES, PER_SECOND, SECONDS, quantity


def restriction_report(found: Restriction) -> Report:
    """Return the report of one run."""
    tone, verdict = _judge(found.rows)
    conditions = [
        ("Model", found.model),
        ("Load", f"{found.concurrency} in flight at each server for {quantity(found.block_s, SECONDS)}, over gRPC"),
        *machine_facts(found.machine),
        ("Begun", found.started),
        ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(found.versions.items()))),
    ]
    blocks: list[Block] = [Facts([(name, value) for name, value in conditions if value])]
    if found.command:
        blocks.append(Facts([("Command", shlex.join(found.command))], code=True))
    note = "Servers of one case work at the same time. CPU time and memory are those of all of a server's processes."
    return Report(
        title=f"{found.model} within limits",
        subtitle="One process of servable serve for each model",
        verdict=verdict,
        tone=tone,
        lead=tuple(_doubts(found.rows)),
        sections=[
            Section("Cases", (restriction_table(found.rows), *_plots(found.rows)), note),
            Section("Conditions", blocks),
        ],
        footer=f"Made from a {found.schema} file.",
    )


def restriction_table(rows: Sequence[Row]) -> Table:
    """Return a line for each server of each case."""
    columns = (
        Column("case"),
        Column("server"),
        Column("cores"),
        Column("memory allowed", BYTES),
        Column("held by"),
        Column("right answers", PER_SECOND),
        Column("failures"),
        Column("p50", SECONDS),
        Column("p99", SECONDS),
        Column("CPU", CORES),
        Column("memory", BYTES),
        Column("result"),
    )
    return Table(columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[Cell]:
    failures = row.errors + row.wrong
    cores = ", ".join(map(str, row.cores)) + (f" ({row.cpus:g} of {len(row.cores)})" if row.cpus is not None else "")
    result = Toned(row.reason.splitlines()[0], Tone.BAD) if row.reason else "ok"
    return [
        row.case,
        row.server,
        cores,
        "" if row.memory_limit_bytes is None else row.memory_limit_bytes,
        row.held_by if row.cores else "",
        row.throughput_per_s,
        Toned(failures, Tone.BAD) if failures else failures,
        None if row.p50_ms is None else row.p50_ms / 1e3,
        None if row.p99_ms is None else row.p99_ms / 1e3,
        row.cpu_share,
        row.rss_bytes,
        result,
    ]


def _plots(rows: Sequence[Row]) -> list[BarPlot]:
    bars = [
        Bar(f"{row.server}: {row.case}" if row.server else row.case, row.throughput_per_s, reason=_short(row))
        for row in rows
    ]
    return [BarPlot("Right answers", Axis("right answers", PER_SECOND), bars, "Longer is better.")]


def _short(row: Row) -> str:
    return (
        "" if row.throughput_per_s is not None else (row.reason.partition(":")[0].splitlines() or ["not measured"])[0]
    )


def _judge(rows: Sequence[Row]) -> tuple[Tone, str]:
    killed = [row for row in rows if row.out_of_memory]
    if killed:
        return Tone.BAD, f"Out of memory: {', '.join(f'{row.case}, {row.server}' for row in killed)}"
    if any(row.errors + row.wrong for row in rows):
        return Tone.BAD, "There were failed requests or wrong answers"
    if any(row.reason for row in rows):
        return Tone.WARNING, "Not every case could be measured"
    total = sum(row.verified for row in rows)
    return Tone.GOOD, f"All {total:,} answers were compared, all right"


def _doubts(rows: Sequence[Row]) -> Iterator[Notice]:
    for row in rows:
        if row.reason:
            yield Notice(f"{row.case}{', ' if row.server else ''}{row.server}: {row.reason}", Tone.BAD)
    shared = list(dict.fromkeys(row.case for row in rows if set(row.cores) & set(row.client_cores)))
    if shared:
        yield Notice(
            f"The load generator had no core of its own, and took time from the servers: {'; '.join(shared)}.",
            Tone.PLAIN,
        )
