"""A report for a terminal; plain text without colours where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from servable.report.blocks import Block, Facts, Figures, Notice, Paragraph, Report, Section, Table, Tone
from servable.report.cells import headings, numeric_columns, written_rows
from servable.report.markup import clean
from servable.report.words import SIGNS, WORDS, plain_cell

STYLES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.WARNING: "yellow", Tone.BAD: "bold red"}
_PIPE_WIDTH = 400
_WHOLE = 26  # cells up to so long are never broken


def print_report(report: Report, out: TextIO) -> None:
    """Print all but the plots: those need a page."""
    # A pipe has no width: lines there are as long as they must be.
    console = Console(file=out, width=None if out.isatty() else _PIPE_WIDTH, highlight=False, markup=False, emoji=False)
    console.print(_text(report.title, "bold"))
    if report.subtitle:
        console.print(_text(report.subtitle, "dim"))
    if report.verdict:
        console.print(_text(SIGNS[report.tone] + report.verdict, STYLES[report.tone] or "bold"))
    _blocks(console, report.lead)
    for section in report.sections:
        _section(console, section)


def _section(console: Console, section: Section) -> None:
    if not any(_has_text(block) for block in section.blocks):
        return
    console.print()
    console.print(_text(section.title, "bold"))
    if section.note:
        console.print(_text(section.note, "dim"))
    _blocks(console, section.blocks)


def _has_text(block: Block) -> bool:
    return isinstance(block, Notice | Paragraph | Figures | Facts | Table)


def _blocks(console: Console, blocks: Sequence[Block]) -> None:
    for block in blocks:
        if isinstance(block, Notice):
            console.print(_text(f"{SIGNS[block.tone]}{WORDS[block.tone]}: {block.text}", STYLES[block.tone]))
        elif isinstance(block, Paragraph):
            console.print(_text(block.text))
        elif isinstance(block, Figures):
            rows = [(item.label, item.value, item.note) for item in block.items]
            console.print(_grid(rows, [STYLES[item.tone] for item in block.items]))
        elif isinstance(block, Facts):
            console.print(_grid(block.pairs, [""] * len(block.pairs)))
        elif isinstance(block, Table):
            _print_table(console, block)


def _grid(rows: Sequence[Sequence[str]], styles: Sequence[str]) -> RichTable:
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    for row, style in zip(rows, styles, strict=True):
        grid.add_row(*(_text(text, style if index == 1 else "") for index, text in enumerate(row)))
    return grid


def _print_table(console: Console, table: Table) -> None:
    """Print a table; one that is too wide in parts, each with the first column, rather than with cut numbers."""
    names, right = headings(table), numeric_columns(table)
    rows = [[_text(plain_cell(cell), STYLES[cell.tone]) for cell in row] for row in written_rows(table)]
    if table.caption:
        console.print(_text(table.caption, "dim"))
    widths = [max([len(name), *(row[index].cell_len for row in rows)]) + 2 for index, name in enumerate(names)]
    for part in _parts(widths, console.width):
        made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for index in part:
            made.add_column(
                _text(names[index]), justify="right" if right[index] else "left", no_wrap=widths[index] <= _WHOLE
            )
        for row in rows:
            made.add_row(*(row[index] for index in part))
        console.print(made)


def _parts(widths: Sequence[int], room: int) -> list[list[int]]:
    parts: list[list[int]] = [[0]] if widths else []
    for index in range(1, len(widths)):
        used = sum(widths[known] for known in parts[-1])
        if used + widths[index] > room and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(index)
    return parts


def _text(text: str, style: str = "") -> Text:
    # Control characters in a model's name must not steer the terminal of who reads about it.
    return Text(" ".join(clean(text).split()), style=style)
