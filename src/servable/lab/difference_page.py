"""A difference of two results as a report and as JSON."""

from __future__ import annotations

import math
from typing import Any

from servable.lab.difference import Change, Difference
from servable.report.blocks import Cell, Column, Notice, Report, Section, Table, Tone, Toned
from servable.report.plots import Axis, Bar, BarPlot, Mark
from servable.report.units import BYTES, NOTHING, PER_SECOND, RATIO, SECONDS, SHARE, quantity


def difference_report(difference: Difference, old: str, new: str) -> Report:
    """Return the report; ``old`` and ``new`` name the results."""
    exceeded = difference.exceeded
    if exceeded:
        tone, verdict = Tone.BAD, f"{len(exceeded)} of {len(difference.changes)} numbers beyond a threshold"
    else:
        tone, verdict = Tone.GOOD, "Within all thresholds"
    lead = [Notice(_sentence(change), Tone.BAD) for change in exceeded]
    lead += [Notice(f"Compared although {conflict}.") for conflict in difference.conflicts]
    lead += [Notice(f"{remark}.", Tone.PLAIN) for remark in difference.remarks]
    steps = list(dict.fromkeys(change.step for change in difference.changes))
    sections = [Section(step, (_table([item for item in difference.changes if item.step == step]),)) for step in steps]
    plots = [plot for name in ("rate", "p50", "p99") if (plot := _ratios(difference, name)).bars]
    if plots:
        sections.append(Section("New against old", plots, "Intervals that overlap are noise, not change."))
    return Report("Difference of two measurements", f"{old} → {new}", verdict, tone, lead, sections)


def _sentence(change: Change) -> str:
    before, after = (quantity(value, change.metric.unit) for value in (change.old, change.new))
    texts = ", ".join(threshold.text for threshold in change.exceeded)
    return f"{change.step}: {change.metric.name} went from {before} to {after}; allowed was {texts}."


def _table(changes: list[Change]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for change in changes:
        # Each row has a unit of its own, so the numbers are written out here.
        old, new = (quantity(value, change.metric.unit) for value in (change.old, change.new))
        allowed = ", ".join(threshold.text for threshold in change.exceeded)
        noise = "" if change.noise is None else "within" if change.noise else "beyond"
        rows.append(
            (change.metric.name, old, new, _relative(change), noise, Toned(allowed, Tone.BAD) if allowed else "")
        )
    columns = tuple(Column(name) for name in ("metric", "old", "new", "change", "noise", "threshold missed"))
    return Table(columns, rows)


def _relative(change: Change) -> Cell:
    ratio = change.ratio
    if ratio is None or not math.isfinite(ratio):
        return NOTHING if change.old != change.new else "0%"
    if ratio == 1:
        return "0%"
    text = f"{(ratio - 1) * 100:+.3g}%" if ratio < 10 else f"{ratio:.3g}-fold"
    worse = (ratio - 1) * change.metric.worse
    if change.exceeded:
        return Toned(text, Tone.BAD)
    if change.noise or abs(worse) < 0.01:
        return text
    return Toned(text, Tone.WARNING if worse > 0 else Tone.GOOD)


def _ratios(difference: Difference, name: str) -> BarPlot:
    bars = [
        Bar(change.step, change.ratio, bad=bool(change.exceeded))
        for change in difference.changes
        if change.metric.name == name and change.ratio is not None
    ]
    better = "longer is better" if name == "rate" else "shorter is better"
    return BarPlot(
        name, Axis("new over old", RATIO), bars, f"{better.capitalize()}.", Mark(1.0, "as before", across=False)
    )


def changes_table(difference: Difference) -> Table:
    """Return all changes in one table for programs, in base units."""
    columns = ("load", "metric", "unit", "old", "new", "ratio", "within noise", "thresholds missed")
    units = {SECONDS: "s", BYTES: "B", PER_SECOND: "1/s", SHARE: "of 1", RATIO: "times"}
    rows: list[tuple[Cell, ...]] = [
        (
            change.step,
            change.metric.name,
            units[change.metric.unit],
            change.old,
            change.new,
            change.ratio,
            "" if change.noise is None else change.noise,
            ", ".join(threshold.text for threshold in change.exceeded),
        )
        for change in difference.changes
    ]
    return Table([Column(name) for name in columns], rows)


def as_json(difference: Difference) -> dict[str, Any]:
    """Return all of it in base units: seconds, bytes, shares, per second."""
    return {
        "exceeded": [_change_json(change) for change in difference.exceeded],
        "changes": [_change_json(change) for change in difference.changes],
        "conflicts": list(difference.conflicts),
        "remarks": list(difference.remarks),
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "step": change.step,
        "metric": change.metric.name,
        "old": change.old,
        "new": change.new,
        "ratio": change.ratio,
        "within_noise": change.noise,
        "thresholds_missed": [threshold.text for threshold in change.exceeded],
    }
