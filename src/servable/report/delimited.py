"""Tables as CSV (RFC 4180): whole numbers in base units, for programs. A gap is an empty field."""

from __future__ import annotations

import csv
import io
import math

from servable.report.blocks import Cell, Interval, Table, Toned
from servable.report.cells import heading
from servable.report.units import TIMES, Step, Unit


def write_csv(table: Table) -> str:
    """Return one table. A column with intervals becomes three: the value, its lower and its upper bound."""
    wide = [any(isinstance(_bare(row[index]), Interval) for row in table.rows) for index in range(len(table.columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    head: list[str] = []
    for column, three in zip(table.columns, wide, strict=True):
        name = heading(column, _base(column.unit))
        head += [name, f"{name} low", f"{name} high"] if three else [name]
    writer.writerow(head)
    for row in table.rows:
        fields: list[str] = []
        for cell, three in zip(row, wide, strict=True):
            fields += _fields(_bare(cell), three)
        writer.writerow(fields)
    return out.getvalue()


def _base(unit: Unit) -> Step:
    step = next((step for step in unit.steps if step.factor == 1.0), Step(1.0, ""))
    return Step(1.0, "") if step.symbol == TIMES else step


def _bare(cell: Cell) -> Cell:
    return cell.value if isinstance(cell, Toned) else cell


def _fields(cell: Cell, three: bool) -> list[str]:
    if isinstance(cell, Interval):
        return [_text(cell.value), _text(cell.low), _text(cell.high)]
    return [_text(cell), "", ""] if three else [_text(cell)]


def _text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return repr(cell) if isinstance(cell, float) else str(cell)
