"""A tuning as a report: the candidates with their intervals, which of them nothing beats, and the plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from servable.engines.child import label_of
from servable.engines.tuned_plan import Plan
from servable.forge.measure import Measured
from servable.forge.tuning.choice import pareto
from servable.forge.tuning.plan import finalists
from servable.forge.tuning.tuned import Result, Tuned
from servable.lab.machine import describe
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
from servable.report.plots import Axis, LinePlot, Point, Scale, Series
from servable.report.units import BYTES, PER_SECOND, RATIO, SECONDS, SHARE, quantity

BUSY = 0.1
"""Above this share of all processors others disturb."""


def tune_report(tuned: Tuned, plan: Plan, kept: str) -> Report:
    """Return the report; ``kept`` is where the plan is, "" if nowhere."""
    objective = tuned.options.objective
    met = objective.met(_p99(tuned, plan))
    verdict, tone = plan.reason().removeprefix("plan: "), Tone.GOOD
    if met == 0:
        verdict, tone = f"No candidate keeps to {objective} at any size of batch", Tone.BAD
    elif met is not None:
        verdict = f"{objective} is kept up to batch {met}; {verdict}"
    sections = [
        Section("The plan", _plan_blocks(tuned, plan, kept)),
        Section(
            "Candidates",
            (candidates_table(tuned, plan), *_plots(tuned)),
            f"Medians of rounds in turn with their {CONFIDENCE:.0%} confidence intervals, of what the plan runs from a "
            "second measurement in fresh processes; without brackets: measured briefly, and alone. Gains are over the "
            "default.",
        ),
    ]
    out = [one for one in tuned.results if not one.ok]
    if out or tuned.notes:
        sections.append(Section("Left out", _left_out(tuned, out)))
    sections.append(Section("Conditions", (_conditions(tuned, plan),)))
    return Report(
        title=f"{label_of(tuned.artifact.path)}: tuned for {objective}",
        subtitle=f"{len(tuned.results)} candidates in {quantity(tuned.seconds, SECONDS)}, {plan.tuned}",
        verdict=verdict,
        tone=tone,
        lead=_doubts(tuned, plan),
        sections=sections,
    )


def candidates_table(tuned: Tuned, plan: Plan) -> Table:
    """Return one row for each candidate that may be used, the finalists first."""
    sizes, objective = tuned.options.batches, tuned.options.objective
    able = {number: one for number, one in enumerate(tuned.results) if one.ok}
    best = pareto({number: _coordinates(one, sizes) for number, one in able.items()})
    final = finalists(tuned)
    ordered = sorted(
        able, key=lambda number: (number not in final, able[number].seconds(objective.rows(sizes), objective))
    )
    columns = [
        Column("candidate"),
        Column("form"),
        Column("plan"),
        Column("Pareto"),
        *(Column(f"gain at {rows}", RATIO) for rows in sizes),
        *(Column(f"batch {rows}", SECONDS) for rows in sizes),
        Column("rows", PER_SECOND),
        Column("difference"),
        Column("memory", BYTES),
    ]
    rows_of = []
    for number in ordered:
        one = able[number]
        name = str(one.trial) + (" (default)" if number == 0 else "")
        loud: Cell = Toned(name, Tone.WARNING) if one.trial.precision != "f32" else name
        rows_of.append(
            (
                loud,
                tuned.forms[one.trial.form].made or "as it is",
                _used(one, tuned, plan),
                number in best,
                *(_cell(one.gains.get(rows)) for rows in sizes),
                *(_time(one, rows) for rows in sizes),
                max(rows / one.measured.at(rows).median_s for rows in sizes if one.measured.at(rows)),  # type: ignore[union-attr]
                _difference(one),
                one.measured.resident_bytes or None,
            )
        )
    return Table(columns, rows_of)


def _plan_blocks(tuned: Tuned, plan: Plan, kept: str) -> tuple[Block, ...]:
    low = 1
    rows: list[tuple[Cell, ...]] = []
    for part in plan.ranges:
        gains = ", ".join(f"{figure.gain:.2f}x at {figure.rows}" for figure in part.figures)
        made = plan.forms[part.form].made or "as it is"
        rows.append((_reach(low, part.rows), part.describe(), made, gains, f"{part.difference:.2g}", part.tolerance))
        low = (part.rows or 0) + 1
    columns = [Column(name) for name in ("rows", "runs", "form", "over the default", "difference", "allowed")]
    found: list[Block] = [Table(columns, rows)]
    if kept:
        how = "servable serve follows it by itself" if "/plans/" in kept else f"servable serve --plan {kept}"
        found.append(Facts([("Kept in", kept), ("Followed by", how)]))
    return tuple(found)


def _doubts(tuned: Tuned, plan: Plan) -> tuple[Block, ...]:
    found: list[Block] = []
    lower = sorted({part.precision for part in plan.ranges} - {"f32"})
    if lower:
        worst = max(part.difference for part in plan.ranges if part.precision in lower)
        found.append(
            Notice(
                f"The plan computes in {', '.join(lower)}, as --precision allows: answers differ by up to {worst:.2g} "
                f"of the largest value{', on inputs that were made up' if tuned.samples.made_up else ''}."
            )
        )
    if tuned.occupied is not None and tuned.occupied > BUSY:
        found.append(
            Notice(
                f"Others used {quantity(tuned.occupied, SHARE)} of the processors when it began: what takes several "
                "threads looks slower than it is. Tune on a quiet machine."
            )
        )
    if tuned.samples.made_up:
        found.append(
            Notice(
                "Inputs were made up from the signature: times may depend on real ones, and differences do. "
                "Give some with --data.", Tone.PLAIN,
            )
        )  # fmt: skip
    return tuple(found)


def _left_out(tuned: Tuned, out: Sequence[Result]) -> tuple[Block, ...]:
    found: list[Block] = []
    if out:
        columns = [Column("candidate"), Column("form"), Column("why")]
        rows = [(str(one.trial), tuned.forms[one.trial.form].made or "as it is", one.reason) for one in out]
        found.append(Table(columns, rows))
    found += [Notice(note, Tone.PLAIN) for note in tuned.notes]
    return tuple(found)


def _plots(tuned: Tuned) -> tuple[Block, ...]:
    series = []
    for one in finalists(tuned).values():
        points = []
        for rows in tuned.options.batches:
            found = one.measured.at(rows)
            if found is not None:
                points.append(Point(found.median_s, rows / found.median_s, label=str(rows)))
        made = tuned.forms[one.trial.form].made
        series.append(Series(f"{one.trial}{f', {made}' if made else ''}", points))
    if not series:
        return ()
    across = Axis("time of a batch", SECONDS, Scale.LOG)
    up = Axis("rows", PER_SECOND, Scale.LOG)
    return (
        LinePlot(
            "Throughput over latency", across, up, series, "Each point is a size of batch; up and left is better."
        ),
    )


def _conditions(tuned: Tuned, plan: Plan) -> Facts:
    machine = describe()
    pairs = [
        ("Model", str(tuned.artifact.path)),
        ("Signature", str(tuned.signature)),
        ("Inputs", tuned.samples.origin),
        ("Precisions allowed", ", ".join(tuned.options.precisions)),
        ("Budget", quantity(tuned.options.budget_s, SECONDS)),
        (
            "Processor",
            f"{machine.cpu}, {plan.key.cpus} usable" + (f", quota {plan.key.quota:g}" if plan.key.quota else ""),
        ),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in plan.key.libraries.items())),
    ]
    return Facts(pairs)


def _p99(tuned: Tuned, plan: Plan) -> dict[int, float]:
    """Return the 99th percentile of what the plan runs, by rows."""
    found = {}
    for part in plan.ranges:
        for one in finalists(tuned).values():
            same = one.trial.setting == part.setting and tuned.forms[one.trial.form].record() == plan.forms[part.form]
            for figure in part.figures if same else ():
                times = one.measured.at(figure.rows)
                if times is not None:
                    found[figure.rows] = times.quantile_s(0.99)
    return found


def objective_missed(tuned: Tuned, plan: Plan) -> bool:
    """Return whether the objective has a limit that the plan keeps at no size of batch."""
    return tuned.options.objective.met(_p99(tuned, plan)) == 0


def _coordinates(one: Result, sizes: Sequence[int]) -> tuple[float, ...]:
    """Return what is better when it is less: latency, time a row, difference, memory."""
    medians = {rows: found.median_s for rows in sizes if (found := one.measured.at(rows)) is not None}
    off = one.verdict.relative if one.verdict is not None else math.inf
    alike = 0.0 if one.trial.precision == "f32" else off  # rounding of f32 is no merit
    return (
        min(medians.values()),
        min(seconds / rows for rows, seconds in medians.items()),
        alike,
        one.measured.resident_bytes,
    )


def _used(one: Result, tuned: Tuned, plan: Plan) -> str:
    low, found = 1, []
    for part in plan.ranges:
        if part.setting == one.trial.setting and plan.forms[part.form] == tuned.forms[one.trial.form].record():
            found.append(_reach(low, part.rows))
        low = (part.rows or 0) + 1
    return ", ".join(found)


def _reach(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} and more"
    return str(low) if high == low else f"{low} to {high}"


def _time(one: Result, rows: int) -> Cell:
    found = one.measured.at(rows)
    if found is None:
        return None
    estimate = found.estimate_s()
    return found.median_s if estimate is None else _cell(estimate)


def _cell(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return None
    if estimate.low is None or estimate.high is None:
        return estimate.value
    return Interval(estimate.value, estimate.low, estimate.high)


def _difference(one: Result) -> Cell:
    return None if one.verdict is None else f"{one.verdict.relative:.2g}"


def _without_samples(measured: Measured) -> dict[str, Any]:
    document = measured.as_json()
    for one in document["batches"]:
        del one["seconds"]  # thousands, of which median and percentile are there
    return document


def as_json(tuned: Tuned) -> dict[str, Any]:
    """Return all of it for JSON."""
    return {
        "artifact": str(tuned.artifact.path),
        "objective": str(tuned.options.objective),
        "batches": list(tuned.options.batches),
        "inputs": tuned.samples.origin,
        "seconds": tuned.seconds,
        "notes": list(tuned.notes),
        "forms": [msgspec.to_builtins(form.record()) for form in tuned.forms],
        "results": [
            {
                "form": result.trial.form,
                "precision": result.trial.precision,
                "setting": msgspec.to_builtins(result.trial.setting),
                "measured": _without_samples(result.measured),
                "verdict": None if result.verdict is None else result.verdict.as_json(),
                "gains": {str(rows): msgspec.to_builtins(gain) for rows, gain in result.gains.items()},
                "reason": result.reason,
            }
            for result in tuned.results
        ],
    }
