"""A pipeline as a report: which artifact is the best and what it costs, all of them, and what each step did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from servable.forge.comparison.page import disturbed, machine_section
from servable.forge.measure import Measured
from servable.forge.pipeline.optimized import GIVEN, Goal, Optimized, Row, State
from servable.report.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Figure,
    Figures,
    Notice,
    Report,
    Section,
    Table,
    Tone,
    Toned,
)
from servable.report.plots import Axis, LinePlot, Point, Scale, Series
from servable.report.units import BYTES, PER_SECOND, RATIO, SECONDS, SHARE, quantity

_MOST_FACT: Final = 160
_NOTHING: Final[tuple[Any, ...]] = ("", [], {}, None)
_UNSHOWN: Final = frozenset({"notes", "signatures"})


def optimized_report(found: Optimized, goal: Goal) -> Report:
    """Return the report of one pipeline."""
    best = found.best(goal)
    failed = [row for row in found.rows if row.state is State.FAILED]
    tone, verdict = _judge(found, goal, best)
    note = f"Differences are to {found.reference}, over {found.compared_rows} rows: {found.origin}."
    return Report(
        title=f"{_short_name(found.source)}: {len(found.rows) - 1} steps, one artifact each",
        subtitle=f"{found.source} -> {found.out}",
        verdict=verdict,
        tone=tone,
        lead=[*_headline(found, goal, best), *_doubts(found, failed)],
        sections=[
            Section("Artifacts", (artifacts_table(found, goal),), note),
            Section("Size against latency", tuple(_front_plot(found))),
            Section("By batch size", (_batch_table(found), *_batch_plots(found)), "Medians."),
            Section("What each step did", (_steps_table(found), *_step_facts(found))),
            machine_section(found.machine),
            Section("Versions", (Facts(sorted(found.versions.items())),)),
        ],
    )


def artifacts_table(found: Optimized, goal: Goal) -> Table:
    """Return a line for each artifact, or for why there is none."""
    smallest = min(found.batches)
    columns = [
        Column("artifact"),
        Column("kind"),
        Column("engine"),
        Column("size", BYTES),
        Column("size ratio", RATIO),
        Column("load", SECONDS),
        Column("first run", SECONDS),
        Column(f"batch {smallest}", SECONDS),
        Column("times as fast", RATIO),
        Column("most rows", PER_SECOND),
        Column("max |d|"),
        Column("same top class", SHARE),
        *([Column("accuracy", SHARE)] if found.labelled else []),
        Column("result"),
    ]
    best = found.best(goal)
    return Table(columns, [_cells(found, row, smallest, best) for row in found.rows])


def _cells(found: Optimized, row: Row, smallest: int, best: Row | None) -> list[Cell]:
    first = found.rows[0]
    measured, judged = _measured(row), None if row.figures is None else row.figures.judged
    latency, before = _latency(row, smallest), _latency(first, smallest)
    return [
        row.name,
        row.kind,
        "" if measured is None else measured.engine,
        row.disk_bytes,
        row.disk_bytes / first.disk_bytes if row.disk_bytes and first.disk_bytes else None,
        None if measured is None else measured.load_s,
        None if measured is None else measured.first_run_s,
        latency,
        before / latency if before and latency else None,
        None if row.figures is None else row.figures.most_rows_per_s(),
        None if judged is None else judged.max_abs,
        None if judged is None else judged.agreement,
        *([None if judged is None else judged.accuracy] if found.labelled else []),
        _result(row, best),
    ]


def _result(row: Row, best: Row | None) -> Cell:
    if row.state is State.FAILED:
        return Toned("failed", Tone.BAD if row.asked else Tone.WARNING)
    if row.figures is not None and row.figures.reason:
        return Toned("not measured" if row.figures.measured is None else "measured in part", Tone.BAD)
    words = row.state.value if row.asked else f"{row.state.value}, on the way"
    return Toned(f"best, {words}", Tone.GOOD) if best is not None and row.name == best.name else words


def _judge(found: Optimized, goal: Goal, best: Row | None) -> tuple[Tone, str]:
    if best is None:
        return Tone.BAD, "Nothing could be measured"
    if best.name == GIVEN:
        return Tone.WARNING, f"The model as it was given is the best by {goal.name}"
    return Tone.GOOD, f"{best.name} is the best by {goal}"


def _headline(found: Optimized, goal: Goal, best: Row | None) -> Iterator[Figures]:
    first = found.rows[0]
    if best is None:
        return
    smallest = min(found.batches)
    items = [Figure("Best", best.name, str(goal), Tone.GOOD if best.name != GIVEN else Tone.PLAIN)]
    if best.disk_bytes and first.disk_bytes:
        ratio = best.disk_bytes / first.disk_bytes
        items.append(Figure("Size", quantity(best.disk_bytes, BYTES), f"{ratio:.0%} of the given"))
    latency, before = _latency(best, smallest), _latency(first, smallest)
    if latency:
        note = f"{before / latency:.2f} times as fast" if before else "the given one was not measured"
        items.append(Figure(f"Latency, batch {smallest}", quantity(latency, SECONDS), note))
    rate = None if best.figures is None else best.figures.most_rows_per_s()
    given = None if first.figures is None else first.figures.most_rows_per_s()
    if rate:
        note = f"{rate / given:.2f} times the given" if given else ""
        items.append(Figure("Most rows", quantity(rate, PER_SECOND), note))
    lost = found.drop(best)
    if lost is not None:
        what = "of accuracy" if found.labelled else "of the top classes changed"
        items.append(Figure("Lost", quantity(lost, SHARE) if lost else "0%", what))
    yield Figures(items)


def _doubts(found: Optimized, failed: Sequence[Row]) -> Iterator[Notice]:
    if found.made_up:
        yield Notice(
            "No data was given: inputs were made up from the signature. What they say of accuracy, and what was "
            "calibrated with them, may not hold for real inputs. Give some with --data."
        )
    elif not found.labelled:
        yield Notice("The data has no labels: accuracy is unknown, top classes are compared with the given model's.")
    if found.reference != GIVEN and found.reference:
        yield Notice(
            f"No engine loads {found.source}: what is compared is compared with {found.reference}.", Tone.PLAIN
        )
    yield from disturbed(found.machine)
    for row in failed:
        yield Notice(f"{row.name}: {row.reason}", Tone.BAD)
    for row in found.rows:
        if row.figures is not None and row.figures.reason:
            yield Notice(f"{row.name}: {row.figures.reason}", Tone.BAD)


def _front_plot(found: Optimized) -> Iterator[Block]:
    smallest = min(found.batches)
    front = found.front()
    others = [row for row in found.rows if row not in front]
    if not front:
        yield Notice("Nothing was measured.", Tone.WARNING)
        return
    series = [Series("on the front: nothing is smaller and faster", _points(found, front))]
    if placed := _points(found, others):
        series.append(Series("others", placed, line=False))
    yield LinePlot(
        f"Size and latency, batch {smallest}",
        Axis("size", BYTES, Scale.LOG),
        Axis("latency", SECONDS, Scale.LOG),
        series,
        "Left and low is better.",
    )


def _points(found: Optimized, rows: Sequence[Row]) -> list[Point]:
    points = []
    for row in rows:
        size, latency = found.score(row, "size"), found.score(row, "latency")
        if size is not None and latency is not None:
            points.append(Point(size, latency, label=row.name))
    return points


def _batch_table(found: Optimized) -> Table:
    columns = [Column("artifact")]
    for batch in found.batches:
        columns += [Column(f"batch {batch}", SECONDS), Column(f"rows at {batch}", PER_SECOND)]
    rows: list[list[Cell]] = []
    for row in found.rows:
        measured = _measured(row)
        if measured is not None:
            cells: list[Cell] = [row.name]
            for batch in found.batches:
                times = measured.at(batch)
                cells += [None, None] if times is None else [times.median_s, times.rows_per_s]
            rows.append(cells)
    return Table(columns, rows)


def _batch_plots(found: Optimized) -> list[LinePlot]:
    if len(found.batches) < 2:
        return []
    times, rates = [], []
    for row in found.rows:
        measured = _measured(row)
        if measured is not None and measured.ok:
            known = [one for one in measured.batches if one.seconds]
            times.append(Series(row.name, [Point(one.rows, one.median_s) for one in known]))
            rates.append(Series(row.name, [Point(one.rows, one.rows_per_s) for one in known]))
    batch = Axis("batch", scale=Scale.LOG)
    return [
        LinePlot("Time of a batch", batch, Axis("time", SECONDS, Scale.LOG), times, "Lower is better."),
        LinePlot("Throughput", batch, Axis("rows", PER_SECOND), rates, "Higher is better."),
    ]


def _steps_table(found: Optimized) -> Table:
    columns = (
        Column("artifact"),
        Column("step"),
        Column("from"),
        Column("took", SECONDS),
        Column("calibrated with"),
        Column("compared with its source"),
        Column("where"),
    )
    rows = [
        (row.name, row.step, row.source, row.seconds, row.calibration, _verdict(row.verdict), row.path)
        for row in found.rows
        if row.step
    ]
    return Table(columns, rows)


def _verdict(verdict: Mapping[str, Any] | None) -> Cell:
    if verdict is None:
        return ""
    words = f"max |d| {verdict['max_abs']:.3g}, relative {verdict['relative']:.3g} ({verdict['tolerance']})"
    return words if verdict["ok"] else Toned(words, Tone.BAD)


def _step_facts(found: Optimized) -> Iterator[Block]:
    for row in found.rows:
        for reason in row.tried:
            yield Notice(f"{row.name} was made by {row.step}. Tried before it: {reason}", Tone.PLAIN)
        for note in row.facts.get("notes", ()):
            yield Notice(f"{row.name}: {note}", Tone.PLAIN)
    pairs = []
    for row in found.rows:
        shown = [(key, value) for key, value in row.facts.items() if key not in _UNSHOWN and value not in _NOTHING]
        told = [f"{key.replace('_', ' ')}: {_written(value)}" for key, value in shown]
        if told:
            pairs.append((row.name, "; ".join(told)))
    if pairs:
        yield Facts(pairs)


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_written(inner)}" for key, inner in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(_written(inner) for inner in value)
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MOST_FACT else text[: _MOST_FACT - 1] + "…"


def _measured(row: Row) -> Measured | None:
    return None if row.figures is None else row.figures.measured


def _latency(row: Row, batch: int) -> float | None:
    return None if row.figures is None else row.figures.median_s(batch)


def _short_name(source: str) -> str:
    parts = [part for part in source.split("/") if part]
    named = [part for part in parts if not part.isdecimal() and not part.startswith("model.")]
    return named[-1] if named else source
