"""A report as Markdown: headings, tables and lists; of a plot, what it shows in words and its numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from servable.report.blocks import Block, Facts, Figures, Notice, Paragraph, Plot, Report, Table
from servable.report.cells import Written, headings, numeric_columns, written_rows
from servable.report.markup import clean
from servable.report.plot_tables import table_of
from servable.report.plots import BarPlot, HistogramPlot, LinePlot
from servable.report.words import WORDS, plain_cell

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~]|^[#+-](?=\s)|^\d+(?=[.)]\s))")


def write_markdown(report: Report) -> str:
    """Return the report as one document that ends with a line end."""
    parts = [f"# {escape(report.title)}"]
    parts += [escape(text) for text in (report.subtitle,) if text]
    if report.verdict:
        parts.append(f"**{escape(report.verdict)}**")
    for block in report.lead:
        parts += _block(block)
    for section in report.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [escape(text) for text in (section.note,) if text]
        for block in section.blocks:
            parts += _block(block)
    parts += [escape(text) for text in (report.footer,) if text]
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """Return one table; numbers are aligned to the right."""
    numeric = numeric_columns(table)
    lines = [_line([escape(text) for text in headings(table)]), _line(["--:" if right else "---" for right in numeric])]
    lines += [_line([_cell(cell) for cell in row]) for row in written_rows(table)]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return text that means itself: nothing in it is markup, and it is one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(clean(text).split())).replace("&", "&amp;")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Written) -> str:
    # Numbers are ours, and their brackets make no link.
    return plain_cell(cell) if cell.numeric else escape(plain_cell(cell))


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        yield from ([escape(block.caption)] if block.caption else [])
        yield table_markdown(block)
    elif isinstance(block, Notice):
        yield f"> **{WORDS[block.tone]}:** {escape(block.text)}"
    elif isinstance(block, Paragraph):
        yield escape(block.text)
    elif isinstance(block, Figures):
        yield "\n".join(
            f"- {escape(item.label)}: **{escape(item.value)}**" + (f" ({escape(item.note)})" if item.note else "")
            for item in block.items
        )
    elif isinstance(block, Facts):
        yield "\n".join(f"- {escape(name)}: {_value(value, block.code)}" for name, value in block.pairs)
    else:
        yield from _plot(block)


def _value(value: str, code: bool) -> str:
    flat = " ".join(clean(value).split())
    return f"`{flat}`" if code and flat and "`" not in flat else escape(value)


def _plot(plot: Plot) -> Iterator[str]:
    yield f"### {escape(plot.title)}"
    if plot.note:
        yield escape(plot.note)
    # The numbers of a curve with hundreds of points help nobody here; the page and the result file have them.
    table = table_of(plot)
    if isinstance(plot, BarPlot) or (isinstance(plot, LinePlot | HistogramPlot) and 0 < len(table.rows) <= 16):
        yield table_markdown(table)
    else:
        yield escape(plot.summary())
