"""Artifacts and frameworks side by side, as reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servable.forge.appraisal import Figures
from servable.forge.comparison.compare import Compared
from servable.forge.comparison.frameworks import PARITY, FormResult, Frameworks
from servable.forge.comparison.runs import Runs
from servable.forge.surroundings import disturbance
from servable.report.blocks import Block, Cell, Column, Facts, Notice, Report, Section, Table, Tone, Toned
from servable.report.plots import Axis, LinePlot, Point, Scale, Series
from servable.report.units import BYTES, PER_SECOND, RATIO, SECONDS, SHARE, quantity


def compared_report(found: Compared) -> Report:
    """Return the report of artifacts."""
    missing = [one for one in found.figures if one.measured is None or not one.runs()]
    faulty = [one for one in found.figures if one.judged is not None and one.judged.fault]
    tone, verdict = Tone.GOOD, f"All {len(found.figures)} artifacts were measured"
    if missing:
        tone, verdict = Tone.WARNING, f"Skipped: {', '.join(one.name for one in missing)}"
    if faulty:
        tone, verdict = Tone.BAD, f"Answers that do not fit: {', '.join(one.name for one in faulty)}"
    doubts = [Notice(f"{one.name}: {one.reason}") for one in found.figures if one.reason]
    doubts += disturbed(found.machine)
    if "made up" in found.origin:
        doubts.append(Notice("Inputs were made up: the same top class on them says little of real ones.", Tone.PLAIN))
    runs = {one.name: one.runs() for one in found.figures}
    note = f"Differences are to {found.figures[0].name}, over {found.rows} rows ({found.origin})."
    return Report(
        title=f"{len(found.figures)} artifacts side by side",
        subtitle=f"{found.timing.runs} timed runs after {found.timing.cold} cold ones, each in its own process",
        verdict=verdict,
        tone=tone,
        lead=doubts,
        sections=[
            Section("Artifacts", (compared_table(found),), note),
            Section("Size", (size_table(found.figures),)),
            Section("By batch size", (runs_table(runs, found.timing.batches), *run_plots(runs)), "Means of the runs."),
            machine_section(found.machine),
        ],
    )


def compared_table(found: Compared) -> Table:
    """Return a line for each artifact."""
    columns = [
        Column("artifact"),
        Column("kind"),
        Column("engine"),
        Column("size", BYTES),
        Column("load", SECONDS),
        Column("first run", SECONDS),
        Column("memory", BYTES),
        *(Column(f"batch {batch}", SECONDS) for batch in found.timing.batches),
        Column("max |d|"),
        Column("relative"),
        Column("same top class", SHARE),
        Column("accuracy", SHARE),
        Column("result"),
    ]
    return Table(columns, [_cells(one, found.timing.batches) for one in found.figures])


def _cells(one: Figures, batches: Sequence[int]) -> list[Cell]:
    measured, judged = one.measured, one.judged
    means = {runs.batch: runs.mean_s for runs in one.runs()}
    return [
        one.name,
        "" if measured is None else measured.kind,
        "" if measured is None else measured.engine,
        None if measured is None else measured.disk_bytes,
        None if measured is None else measured.load_s,
        None if measured is None else measured.first_run_s,
        None if measured is None else measured.resident_bytes or None,
        *(means.get(batch) for batch in batches),
        None if judged is None else judged.max_abs,
        None if judged is None else judged.relative,
        None if judged is None else judged.agreement,
        None if judged is None else judged.accuracy,
        result_cell(one),
    ]


def result_cell(one: Figures) -> Cell:
    """Say whether an artifact is as it should be."""
    if one.measured is None:
        return Toned("skipped", Tone.WARNING)
    if one.reason or (one.judged is not None and one.judged.fault):
        return Toned(one.reason or "answers otherwise", Tone.BAD)
    return "ok"


def size_table(figures: Sequence[Figures]) -> Table:
    """Return sizes in whole bytes and as ratios to the first artifact that is there."""
    sizes = [one.disk_bytes for one in figures]
    first = next((size for size in sizes if size), None)
    rows: list[tuple[Cell, ...]] = [
        (one.name, "skipped" if size is None else f"{size:,}", None if size is None or not first else size / first)
        for one, size in zip(figures, sizes, strict=True)
    ]
    return Table((Column("artifact"), Column("bytes"), Column("ratio", RATIO)), rows)


def frameworks_report(found: Frameworks) -> Report:
    """Return the report of one model in every framework."""
    measured = [one for one in found.results if one.max_abs is not None]
    wrong = [one.form.label for one in measured if not one.agrees]
    tone, verdict = Tone.GOOD, f"{len(measured)} forms agree within {PARITY:g}"
    if wrong:
        tone, verdict = Tone.BAD, f"More than {PARITY:g} off: {', '.join(wrong)}"
    runs = {one.form.label: list(one.runs) for one in found.results}
    note = f"The same weights in each. Difference: the largest to what numpy computes in float64; at most {PARITY:g}."
    return Report(
        title="One convolution network in every framework",
        subtitle=f"{found.runs} timed runs after {found.cold} cold ones; each framework in a process of its own",
        verdict=verdict,
        tone=tone,
        lead=[*disturbed(found.machine), *(_why_not(one) for one in found.results if one.reason)],
        sections=[
            Section("Frameworks", (frameworks_table(found),), note),
            Section("By batch size", (runs_table(runs, found.batches), *run_plots(runs)), "Means of the runs."),
            machine_section(found.machine),
        ],
    )


def frameworks_table(found: Frameworks) -> Table:
    """Return a line for each framework."""
    columns = [
        Column("framework"),
        Column("version"),
        Column("load", SECONDS),
        Column("first run", SECONDS),
        *(Column(f"batch {batch}", SECONDS) for batch in found.batches),
        Column("max |d|"),
        Column("result"),
    ]
    return Table(columns, [_form_cells(one, found.batches) for one in found.results])


def _form_cells(one: FormResult, batches: Sequence[int]) -> list[Cell]:
    means = {runs.batch: runs.mean_s for runs in one.runs}
    result: Cell = "ok" if one.agrees else Toned("skipped" if one.reason else "differs", Tone.WARNING)
    if one.max_abs is not None and not one.agrees:
        result = Toned("differs", Tone.BAD)
    times = [means.get(batch) for batch in batches]
    return [one.form.label, one.version, one.load_s, one.cold_s, *times, one.max_abs, result]


def runs_table(runs: dict[str, list[Runs]], batches: Sequence[int]) -> Table:
    """Return what S3's lines say as a table: shortest, mean and longest run of each batch size, and the throughput."""
    rows: list[tuple[Cell, ...]] = []
    for batch in batches:
        for name, found in runs.items():
            one = next((one for one in found if one.batch == batch), None)
            figures = (None,) * 4 if one is None else (one.min_s, one.mean_s, one.max_s, one.rows_per_s)
            rows.append((batch, name, *figures))
    columns = (
        Column("batch"),
        Column("name"),
        Column("min", SECONDS),
        Column("mean", SECONDS),
        Column("max", SECONDS),
        Column("rows", PER_SECOND),
    )
    return Table(columns, rows)


def run_plots(runs: dict[str, list[Runs]]) -> list[LinePlot]:
    """Draw time and throughput over the batch size; nothing where there is one size only, nor of who was skipped."""
    runs = {name: found for name, found in runs.items() if found}
    if max((len(found) for found in runs.values()), default=0) < 2:
        return []
    batch = Axis("batch", scale=Scale.LOG)
    times = [
        Series(name, [Point(one.batch, one.mean_s, one.min_s, one.max_s) for one in found], labels=False)
        for name, found in runs.items()
    ]
    rates = [
        Series(name, [Point(one.batch, one.rows_per_s) for one in found], labels=False) for name, found in runs.items()
    ]
    return [
        LinePlot("Time of a batch", batch, Axis("time", SECONDS, Scale.LOG), times, "Lower is better."),
        LinePlot("Throughput", batch, Axis("rows", PER_SECOND), rates, "Higher is better."),
    ]


def _why_not(one: FormResult) -> Notice:
    return Notice(f"{one.form.label}: {one.reason}")


def disturbed(machine: Mapping[str, Any]) -> list[Notice]:
    """Say if the machine was busy with other things."""
    text = disturbance(machine)
    return [Notice(text)] if text else []


def machine_section(machine: Mapping[str, Any]) -> Section:
    """Say where it was measured."""
    pairs = [
        ("Processor", machine["cpu"]),
        ("Cores", str(machine["cores"])),
        ("Memory", quantity(machine["memory_bytes"], BYTES)),
        ("System", machine["system"]),
        ("Load average at the begin", f"{machine.get('load_average', 0):g}"),
    ]
    blocks: list[Block] = [Facts([(name, value) for name, value in pairs if value])]
    return Section("Machine", blocks)
