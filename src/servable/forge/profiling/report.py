"""A profile as a report, and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from servable.forge.profiling.operations import Operation, by_kind
from servable.forge.profiling.resources import as_json, summarize
from servable.forge.profiling.result import Profile
from servable.report.blocks import Block, Cell, Column, Facts, Notice, Report, Section, Table, Tone, Toned
from servable.report.plots import Axis, LinePlot, Mark, Point, Series
from servable.report.units import BYTES, CORES, RATIO, SECONDS, SHARE, quantity

COSTLY: Final = 1.5
"""How many times longer than others profiled runs may take before their times are doubted."""
LEAST_PLOTTED: Final = 3
INDENT: Final = "\N{BRAILLE PATTERN BLANK}" * 4
"""A report sets text without its blanks; the depth of a line of code is part of what it says."""
_HOT: Final = 0.2
_SILENT = {
    "litert": (
        "LiteRT's interpreter has no profiler in Python: there are only the times of whole runs; "
        "servable inspect --ops lists its operations"
    ),
    "python": "a Python model has no operations: use --how cprofile or --how line",
}


def report_of(profile: Profile, top: int) -> Report:
    """Return the whole report; of operations and functions the first ``top``."""
    rows = "1 row" if profile.rows == 1 else f"{profile.rows} rows"
    sections = [Section(title, blocks) for title, blocks in _main(profile, top) if blocks]
    return Report(
        title=f"Profile of {profile.target}",
        subtitle=f"{profile.engine}, signature {profile.signature}, {rows} a run",
        lead=(Facts(_facts(profile)), *_notices(profile, top)),
        sections=(*sections, Section("Resources", (resource_table(profile), *_plots(profile)))),
    )


def main_table(profile: Profile, top: int) -> Table:
    """Return the table that was asked for: of operations, functions, lines or phases."""
    if profile.how == "cprofile":
        return _function_table(profile.functions[:top])
    if profile.how == "line":
        return _line_table(profile.lines)
    if profile.how == "resources":
        return resource_table(profile)
    return _operation_table(profile.operations.operations[:top])


def resource_table(profile: Profile) -> Table:
    """Return what each phase took of the machine."""
    found = summarize(profile.phases, profile.samples)
    columns = [
        Column("phase"), Column("time", SECONDS), Column("CPU", CORES), Column("memory, mean", BYTES),
        Column("memory, most", BYTES), Column("threads"), Column("samples"),
    ]  # fmt: skip
    rows: list[list[Cell]] = [
        [one.phase, one.seconds, one.cores, one.rss_mean, one.rss_most, one.threads, one.samples] for one in found
    ]
    if any(one.gpu_busy is not None for one in found):
        columns += [Column("GPU", SHARE), Column("GPU memory", BYTES)]
        rows = [[*row, one.gpu_busy, one.gpu_memory] for row, one in zip(rows, found, strict=True)]
    return Table(columns, rows)


def _plots(profile: Profile) -> list[LinePlot]:
    """Return CPU and memory over time, the phases marked; for pages."""
    if len(profile.samples) < LEAST_PLOTTED:
        return []
    start = profile.samples[0].at
    over = Axis("time", SECONDS)
    marks = [Mark(max(0.0, phase.began - start), phase.name, across=False) for phase in profile.phases]

    def plot(title: str, axis: Axis, values: Sequence[float]) -> LinePlot:
        points = [Point(one.at - start, value) for one, value in zip(profile.samples, values, strict=True)]
        return LinePlot(title, over, axis, (Series(title, points, dots=False, labels=False),), marks=marks)

    return [
        plot("CPU", Axis("used", CORES), [one.cores for one in profile.samples]),
        plot("Memory", Axis("resident", BYTES), [float(one.rss_bytes) for one in profile.samples]),
    ]


def document(profile: Profile) -> dict[str, Any]:
    """Return it all for JSON, but the spans: those are the Chrome trace."""
    found = profile.operations
    return {
        "target": profile.target,
        "how": profile.how,
        "engine": profile.engine,
        "signature": profile.signature,
        "inputs": profile.inputs,
        "rows": profile.rows,
        "shapes": dict(profile.shapes),
        "first_run_s": profile.first_s,
        "runs_s": list(profile.alone),
        "profiled_runs_s": list(profile.profiled),
        "profiler_cost": profile.cost,
        "covered": profile.covered,
        "told": profile.told,
        "operations": [one._asdict() for one in found.operations],
        "functions": list(profile.functions),
        "lines": list(profile.lines),
        "resources": [asdict(one) for one in summarize(profile.phases, profile.samples)],
        "samples": [as_json(one) for one in profile.samples],
    }


def _main(profile: Profile, top: int) -> list[tuple[str, list[Block]]]:
    if profile.how == "resources":
        return []
    if profile.how in ("cprofile", "line"):
        title = {"cprofile": "Functions", "line": "Lines"}[profile.how]
        return [(title, [main_table(profile, top)])]
    if not profile.operations.operations:
        return []
    kinds = _operation_table(by_kind(profile.operations).operations[:top])
    return [("Types of operations", [kinds]), ("Operations", [main_table(profile, top)])]


def _facts(profile: Profile) -> list[tuple[str, str]]:
    alone = sorted(profile.alone)
    facts = [
        ("inputs", f"{', '.join(f'{name} {shape}' for name, shape in profile.shapes.items())}, {profile.inputs}"),
        ("first run", quantity(profile.first_s, SECONDS)),
        (
            f"{len(alone)} runs alone",
            (
                f"median {quantity(statistics.median(alone), SECONDS)}, "
                f"from {quantity(alone[0], SECONDS)} to {quantity(alone[-1], SECONDS)}"
            ),
        ),
    ]
    if profile.profiled and profile.cost is not None:
        median = quantity(statistics.median(profile.profiled), SECONDS)
        facts.append(("with the profiler", f"median {median}, {quantity(profile.cost, RATIO)} of that"))
    if profile.covered is not None:
        facts.append(("in operations", f"{quantity(profile.covered, SHARE)} of the profiled runs' time"))
    return facts


def _notices(profile: Profile, top: int) -> list[Notice]:
    found = []
    engine = profile.engine.partition(" ")[0]
    if profile.how in ("ops", "chrome") and not profile.operations.operations:
        found.append(Notice(_SILENT.get(engine, f"{engine} told nothing of its operations")))
    if profile.cost is not None and profile.cost > COSTLY:
        found.append(
            Notice("the profiler slows the runs: read shares, not times; short operations look longer than they are")
        )
    if profile.dropped:
        found.append(Notice(f"{profile.dropped} events did not fit: ask for fewer runs"))
    hidden = len(profile.operations.operations) - top
    if profile.how in ("ops", "chrome") and hidden > 0:
        found.append(Notice(f"{hidden} more operations are in --json and --top N", Tone.PLAIN))
    return found


def _operation_table(found: Sequence[Operation]) -> Table:
    columns = (
        Column("operation"), Column("type"), Column("calls"), Column("time", SECONDS), Column("a call", SECONDS),
        Column("share", SHARE),
    )  # fmt: skip
    return Table(columns, [(*one[:4], one.seconds / max(1, one.calls), _hot(one.share)) for one in found])


def _function_table(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column("function"), Column("where"), Column("calls"), Column("own time", SECONDS),
        Column("with callees", SECONDS),
    )  # fmt: skip
    rows = [
        (one["name"], _place(one["file"], one["line"]), one["calls"], one["own_s"], one["total_s"]) for one in found
    ]
    return Table(columns, rows)


def _line_table(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = (Column("line"), Column("hits"), Column("time", SECONDS), Column("share", SHARE), Column("source"))
    sums: dict[tuple[str, str], float] = {}
    for one in found:
        key = one["file"], one["function"]
        sums[key] = sums.get(key, 0.0) + one["seconds"]
    rows: list[Sequence[Cell]] = []
    for one in found:
        whole = sums[one["file"], one["function"]]
        hit = one["hits"] > 0
        rows.append(
            (
                _place(one["file"], one["line"]),
                one["hits"] if hit else None,
                one["seconds"] if hit else None,
                _hot(one["seconds"] / whole) if hit and whole else None,
                one["text"].replace("    ", INDENT),
            )
        )
    return Table(columns, rows)


def _hot(share: float) -> Toned:
    return Toned(share, Tone.WARNING if share >= _HOT else Tone.PLAIN)


def _place(file: str, line: int) -> str:
    if file.startswith(("~", "<")):
        return "built in"
    path = Path(file)
    return f"{'/'.join(path.parts[-2:])}:{line}"
