"""What stands in the cells of a table, for every form that is read by people."""

from __future__ import annotations

from dataclasses import dataclass

from servable.report.blocks import Cell, Column, Interval, Table, Tone, Toned
from servable.report.units import NOTHING, Step, Unit, scaled


@dataclass(frozen=True, slots=True)
class Written:
    """The text of a cell. ``numeric`` ones are aligned to the right."""

    text: str
    numeric: bool = False
    tone: Tone = Tone.PLAIN


def headings(table: Table) -> list[str]:
    """Return each column's label with the unit that its numbers are written in."""
    steps = _steps(table)
    return [heading(column, steps[column.unit]) for column in table.columns]


def heading(column: Column, step: Step) -> str:
    """Return a label with a unit."""
    symbol = "1/s" if step.symbol == "/s" else step.symbol
    return f"{column.label} ({symbol})" if symbol and column.label else column.label


def written_rows(table: Table) -> list[list[Written]]:
    """Write all cells. Columns of one unit share its scale, so that numbers can be compared by eye."""
    steps = _steps(table)
    return [
        [write(cell, steps[column.unit]) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]


def numeric_columns(table: Table) -> list[bool]:
    """Return which columns have numbers and nothing else but gaps."""
    rows = written_rows(table)
    return [
        any(row[index].numeric for row in rows) and all(row[index].numeric or not row[index].text for row in rows)
        for index in range(len(table.columns))
    ]


def write(cell: Cell, step: Step) -> Written:
    """Write one cell in a step of its unit."""
    if isinstance(cell, Toned):
        plain = write(cell.value, step)
        return Written(plain.text, plain.numeric, cell.tone)
    if isinstance(cell, bool):
        return Written("yes" if cell else "no")
    if isinstance(cell, str):
        return Written(cell)
    if isinstance(cell, Interval):
        value, low, high = (scaled(part, step) for part in (cell.value, cell.low, cell.high))
        return Written(value if value == NOTHING else f"{value} [{low}, {high}]", numeric=True)
    return Written(scaled(cell, step), numeric=True)


def base_numbers(cell: Cell) -> list[float]:
    """Return the numbers of a cell, for choosing a scale."""
    if isinstance(cell, Toned):
        return base_numbers(cell.value)
    if isinstance(cell, Interval):
        return [cell.value]
    return [] if cell is None or isinstance(cell, (str, bool)) else [float(cell)]


def _steps(table: Table) -> dict[Unit, Step]:
    numbers: dict[Unit, list[float]] = {column.unit: [] for column in table.columns}
    for row in table.rows:
        for cell, column in zip(row, table.columns, strict=True):
            numbers[column.unit] += base_numbers(cell)
    return {unit: unit.step_for(values) for unit, values in numbers.items()}
