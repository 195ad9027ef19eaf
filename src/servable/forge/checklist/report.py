"""A checklist as a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from servable.forge.checklist.steps import STEPS, Judged, State, state_of
from servable.forge.checklist.tree import Tree
from servable.report.blocks import Cell, Column, Notice, Report, Section, Table, Tone, Toned

_TONES: Final = {State.DONE: Tone.GOOD, State.TO_DO: Tone.WARNING, State.NONE: Tone.PLAIN}
_SHOWN: Final = 2


def table_of(judged: Sequence[Judged]) -> Table:
    """Return one row for each part; the number and title of a step stand in its first."""
    rows: list[Sequence[Cell]] = []
    before = None
    for one in judged:
        title = "" if one.step is before else f"{one.step.number}. {one.step.title}"
        before = one.step
        command = "" if one.state is State.NONE else one.part.command
        rows.append((title, one.part.name, Toned(one.state.value, _TONES[one.state]), _shown(one.evidence), command))
    return Table((Column("step"), Column("part"), Column("state"), Column("evidence"), Column("command")), rows)


def report_of(tree: Tree, judged: Sequence[Judged]) -> Report:
    """Return the whole report."""
    states = [state_of(judged, step) for step in STEPS]
    done, left, spared = (states.count(state) for state in (State.DONE, State.TO_DO, State.NONE))
    cut = [Notice(f"{tree.root} holds more files than were looked at ({len(tree.files)})")] if tree.cut else []
    return Report(
        title=f"Checklist of {tree.root}",
        subtitle="by what lies in the folder; a file that says a thing was done is taken at its word",
        verdict=f"{done} of {len(STEPS)} steps are done, {left} to do"
        + (f", {spared} not applicable" if spared else ""),
        tone=Tone.GOOD if not left else Tone.WARNING,
        lead=cut,
        sections=(Section("Steps", (table_of(judged),)),),
    )


def _shown(evidence: Sequence[str]) -> str:
    more = f" and {len(evidence) - _SHOWN} more" if len(evidence) > _SHOWN else ""
    return ", ".join(evidence[:_SHOWN]) + more
