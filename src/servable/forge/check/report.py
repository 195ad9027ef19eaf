"""An examination as a report."""

from __future__ import annotations

from servable.forge.check.findings import Examined, State
from servable.report.blocks import Column, Facts, Report, Section, Table, Tone, Toned
from servable.report.units import Step, Unit

WORDS = (
    (State.PASS, "passed"),
    (State.FAIL, "failed"),
    (State.NOTE, "to note"),
    (State.KNOWN, "known to be wrong"),
    (State.NONE, "not applicable"),
)
MILLISECONDS = Unit((Step(1e-3, "ms"),))
TONES = {State.FAIL: Tone.BAD, State.NOTE: Tone.WARNING, State.PASS: Tone.GOOD}


def table_of(examined: Examined) -> Table:
    """Return all findings, one a row."""
    columns = (Column("suite"), Column("check"), Column("result"), Column("time", MILLISECONDS), Column("found"))
    rows = [
        (one.suite, one.name, Toned(one.state.value, TONES.get(one.state, Tone.PLAIN)), one.seconds, one.detail)
        for one in examined.findings
    ]
    return Table(columns, rows)


def report_of(examined: Examined) -> Report:
    """Return the whole report."""
    counts = [f"{examined.count(state)} {word}" for state, word in WORDS if examined.count(state)]
    facts = [("model", examined.target), ("engine", examined.engine or "its server's")]
    facts += [("inputs of", origin) for origin in examined.origins]
    return Report(
        title="Check",
        verdict=", ".join(counts) or "nothing was checked",
        tone=Tone.GOOD if examined.ok else Tone.BAD,
        lead=(Facts(facts),),
        sections=(Section("Findings", (table_of(examined),)),),
    )
