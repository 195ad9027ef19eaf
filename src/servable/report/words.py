"""How good and bad are said where there are signs and words but no colours."""

from __future__ import annotations

from servable.report.blocks import Tone
from servable.report.cells import Written

SIGNS = {Tone.PLAIN: "", Tone.GOOD: "✓ ", Tone.WARNING: "! ", Tone.BAD: "✕ "}
WORDS = {Tone.PLAIN: "Note", Tone.GOOD: "Good", Tone.WARNING: "Warning", Tone.BAD: "Failure"}


def plain_cell(cell: Written) -> str:
    """Return a cell's text with the sign of its tone."""
    return SIGNS[cell.tone] + cell.text if cell.text else ""
