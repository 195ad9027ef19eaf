"""A comparison as a report: who answered rightly, then who was how fast, with intervals, and under what conditions."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

from servable.lab.comparison import Comparison, Row
from servable.lab.page import STEAL_SHARE, machine_facts
from servable.lab.statistics import CONFIDENCE, Estimate
from servable.report.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Interval,
    Notice,
    Report,
    Section,
    Table,
    Tone,
    Toned,
)
from servable.report.plots import Axis, Bar, BarPlot, Mark
from servable.report.units import BYTES, PER_SECOND, RATIO, SECONDS, SHARE, Unit, quantity

_LEAST_SHARE = 0.005


def comparison_report(comparison: Comparison) -> Report:
    """Return the report of one comparison."""
    tone, verdict = _judge(comparison)
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in comparison.rows:
        if row.concurrency:
            groups.setdefault((row.protocol, row.concurrency), []).append(row)
    sections = [_group(protocol, concurrency, rows) for (protocol, concurrency), rows in groups.items()]
    absent = [row for row in comparison.rows if not row.concurrency]
    if absent:
        sections.append(Section("Not measured", (_absent(absent),)))
    names = list(dict.fromkeys(row.contestant for row in comparison.rows))
    made = f", {comparison.started}" if comparison.started else ""
    return Report(
        title=f"{comparison.model}: {' against '.join(names) if len(names) < 3 else f'{len(names)} servers compared'}",
        subtitle=f"{comparison.conditions.rounds} rounds of {comparison.conditions.block_s:g} s{made}",
        verdict=verdict,
        tone=tone,
        lead=tuple(_doubts(comparison)),
        sections=[*sections, *_processes(comparison.rows), _conditions(comparison)],
        footer=f"Made from a {comparison.schema} file.",
    )


def _judge(comparison: Comparison) -> tuple[Tone, str]:
    failing = list(dict.fromkeys(row.contestant for row in comparison.rows if row.failures))
    missing = list(dict.fromkeys(row.contestant for row in comparison.rows if not any(b.ok for b in row.blocks)))
    if not comparison.rows or len(missing) == len({row.contestant for row in comparison.rows}):
        return Tone.BAD, "Nothing was measured"
    if failing:
        return Tone.BAD, f"Failed requests or wrong answers: {', '.join(failing)}"
    if missing:
        return Tone.WARNING, f"Not measured, or not everywhere: {', '.join(missing)}"
    total = sum(block.ok for row in comparison.rows for block in row.blocks)
    verified = sum(block.verified for row in comparison.rows for block in row.blocks)
    if not verified:
        return Tone.WARNING, f"All {total:,} requests succeeded; no answer was compared with what was expected"
    return Tone.GOOD, f"All {total:,} requests succeeded; {verified:,} answers were compared, all right"


def _doubts(comparison: Comparison) -> Iterator[Notice]:
    for row in comparison.rows:
        if row.failures:
            total = row.failures + sum(block.ok for block in row.blocks)
            wrong = sum(block.wrong for block in row.blocks)
            said = f", {wrong:,} by a wrong answer" if wrong else ""
            share = quantity(row.failures / total, SHARE)
            yield Notice(f"{_name(row)}: {share} of {total:,} requests failed{said}.", Tone.BAD)
    reasons: dict[tuple[str, str], list[Row]] = {}
    for row in comparison.rows:
        if row.reason:
            reasons.setdefault((row.contestant, row.reason), []).append(row)
    for (contestant, reason), rows in reasons.items():
        everywhere = len(rows) == sum(row.contestant == contestant for row in comparison.rows)
        where = "" if everywhere else " (" + "; ".join(f"{row.protocol}, {row.concurrency}" for row in rows) + ")"
        yield Notice(f"{contestant}{where}: {reason}")
    limited = [_name(row) for row in comparison.rows if any(block.client_bottleneck for block in row.blocks)]
    if limited:
        yield Notice(f"The client was the bottleneck, and the server could do more: {'; '.join(limited)}.")
    steal = [max((block.cpu_steal_share or 0.0 for block in row.blocks), default=0.0) for row in comparison.rows]
    disturbed = [_name(row) for row, share in zip(comparison.rows, steal, strict=True) if share > STEAL_SHARE]
    if disturbed:
        text = f"The hypervisor took up to {quantity(max(steal), SHARE)} of the CPU time in a round"
        yield Notice(f"{text}: {'; '.join(disturbed)}.")
    if comparison.interrupted:
        yield Notice("The comparison was stopped by hand: there are fewer rounds than asked.")
    if comparison.conditions.rounds < 3:
        yield Notice("Fewer than three rounds: there are no intervals to tell a difference from noise by.")


def _name(row: Row) -> str:
    return f"{row.contestant}, {row.protocol}, {row.concurrency} in flight"


def comparison_table(rows: Sequence[Row], *, every: bool = True) -> Table:
    """Return the numbers of rows; ``every`` adds the columns that tell rows of several groups apart."""
    wanted: list[tuple[Column, list[Cell]]] = [
        (Column("server"), [row.contestant for row in rows]),
        (Column("wire"), [row.wire for row in rows]),
        (Column("right answers", PER_SECOND), [_cell(row.throughput_per_s) for row in rows]),
        (Column("failures"), [_failures(row) for row in rows]),
        (Column("rate ratio", RATIO), [_cell(row.throughput_ratio) for row in rows]),
        (Column("p50", SECONDS), [_cell(row.p50_ms, 1e-3) for row in rows]),
        (Column("p99", SECONDS), [_cell(row.p99_ms, 1e-3) for row in rows]),
        (Column("p99 ratio", RATIO), [_cell(row.p99_ratio) for row in rows]),
        (Column("server CPU a request", SECONDS), [_cell(row.cpu_us_per_request, 1e-6) for row in rows]),
        (Column("memory", BYTES), [row.rss_bytes for row in rows]),
        (Column("compared"), [sum(block.verified for block in row.blocks) for row in rows]),
        (Column("why not"), [row.reason for row in rows]),
    ]
    if every:
        wanted[1:1] = [
            (Column("protocol"), [row.protocol for row in rows]),
            (Column("in flight"), [row.concurrency for row in rows]),
        ]
    elif len({row.wire for row in rows}) < 2:
        del wanted[1]
    kept = [(column, cells) for column, cells in wanted if any(cell not in (None, "") for cell in cells)]
    return Table([column for column, _ in kept], list(zip(*(cells for _, cells in kept), strict=True)))


def _absent(rows: Sequence[Row]) -> Table:
    columns = [Column("server"), Column("protocol"), Column("why not")]
    return Table(columns, [(row.contestant, row.protocol or "all", row.reason) for row in rows])


def _processes(rows: Sequence[Row]) -> Iterator[Section]:
    """Say who of a server's processes worked, where there is more than one."""
    found: list[tuple[Cell, ...]] = []
    for row in rows:
        shares: dict[str, float] = {}
        for process in (process for block in row.blocks for process in block.processes):
            shares[process.name] = shares.get(process.name, 0.0) + process.cpu_share / len(row.blocks)
        if len(shares) > 1:
            told = sorted(((share, name) for name, share in shares.items() if share >= _LEAST_SHARE), reverse=True)
            text = ", ".join(f"{name} {quantity(share, SHARE, 2)}" for share, name in told)
            found.append((row.contestant, row.protocol, row.concurrency, text))
    if found:
        columns = [Column("server"), Column("protocol"), Column("in flight"), Column("share of a core")]
        yield Section("CPU time by process", (Table(columns, found),), "Of servers with several processes.")


def _cell(estimate: Estimate | None, factor: float = 1.0) -> Cell:
    if estimate is None:
        return None
    if estimate.low is None or estimate.high is None:
        return estimate.value * factor
    return Interval(estimate.value * factor, estimate.low * factor, estimate.high * factor)


def _failures(row: Row) -> Cell:
    if not row.blocks:
        return ""
    return Toned(row.failures, Tone.BAD) if row.failures else 0


def _group(protocol: str, concurrency: int, rows: Sequence[Row]) -> Section:
    reference = next((row.reference for row in rows if row.reference), "")
    plots: list[Block] = [
        _bars("Right answers", "Longer is better.", PER_SECOND, rows, lambda row: row.throughput_per_s),
        _bars("99th percentile", "Shorter is better.", SECONDS, rows, lambda row: row.p99_ms, 1e-3),
        _bars("Server CPU a request", "Shorter is better.", SECONDS, rows, lambda row: row.cpu_us_per_request, 1e-6),
    ]
    if reference:
        note = f"How many times the rate of {reference}, paired by round."
        one = Mark(1.0, reference, across=False)
        plots.insert(1, _bars("Rate as a ratio", note, RATIO, rows, lambda row: row.throughput_ratio, mark=one))
    drawn = [plot for plot in plots if isinstance(plot, BarPlot) and any(bar.value is not None for bar in plot.bars)]
    wires = ", ".join(dict.fromkeys(row.wire for row in rows))
    note = f"Over {wires}. Brackets and whiskers are {CONFIDENCE:.0%} confidence intervals over the rounds."
    return Section(f"{protocol}, {concurrency} in flight", (comparison_table(rows, every=False), *drawn), note)


def _bars(
    title: str,
    note: str,
    unit: Unit,
    rows: Sequence[Row],
    read: Callable[[Row], Estimate | None],
    factor: float = 1.0,
    mark: Mark | None = None,
) -> BarPlot:
    several = len({row.wire for row in rows}) > 1 and len({row.contestant for row in rows}) < len(rows)
    bars = []
    for row in rows:
        estimate = read(row)
        if mark is not None and not row.reference and not row.reason:
            continue
        label = f"{row.contestant} {row.wire}" if several else row.contestant
        value, low, high = (None if part is None else part * factor for part in _parts(estimate))
        bars.append(Bar(label, value, low, high, bad=bool(row.failures), reason=_why(row, value)))
    return BarPlot(title, Axis(title[0].lower() + title[1:], unit), bars, note, mark)


def _parts(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def _why(row: Row, value: float | None) -> str:
    if value is None:
        return row.reason or "not measured"
    return f"{row.failures:,} failures" if row.failures else ""


def _conditions(comparison: Comparison) -> Section:
    done = comparison.conditions
    each = f"{done.rounds} rounds of {done.block_s:g} s, after {done.warmup_s:g} s of warm-up; contestants alternate"
    cores = [("server", done.server_cores), ("client", done.client_cores)]
    pinned = "; ".join(f"{name} on {', '.join(map(str, numbers))}" for name, numbers in cores if numbers)
    pairs = [
        ("Model", comparison.model),
        ("Rounds", each),
        ("Servers", "started for each block" if done.fresh else "kept, and stopped while another is measured"),
        ("Engine threads", str(done.threads)),
        ("Batching of peers", f"up to {done.batch_rows} rows, waiting at most {done.batch_wait_ms:g} ms"),
        ("Cores", pinned or "not pinned"),
        ("Different requests", f"{done.samples:,}"),
        *machine_facts(comparison.machine),
        ("Begun", comparison.started),
        ("Took", quantity(comparison.duration_s, SECONDS)),
    ]
    pairs += [
        (f"Versions, {name}", ", ".join(f"{library} {version}" for library, version in sorted(found.items())))
        for name, found in comparison.versions.items()
    ]
    blocks: list[Block] = [Facts([(name, value) for name, value in pairs if value])]
    if comparison.command:
        blocks.append(Facts([("Command", shlex.join(comparison.command))], code=True))
    return Section("Conditions", blocks)
