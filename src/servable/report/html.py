"""A report as one HTML page that needs nothing but itself: no network, no other file, and it may not ask for any."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from servable.report.blocks import Block, Facts, Figures, Notice, Paragraph, Plot, Report, Section, Table, Tone
from servable.report.cells import headings, numeric_columns, written_rows
from servable.report.draw_bars import draw_bars, draw_histogram
from servable.report.draw_lines import SHAPES, dashes_of, draw_lines, style
from servable.report.frame import NARROW, WIDE, Size
from servable.report.markup import Child, Node, append, node, serialize
from servable.report.plot_tables import table_of
from servable.report.plots import BarPlot, HistogramPlot, LinePlot
from servable.report.words import SIGNS, WORDS, plain_cell


def write_html(report: Report) -> str:
    """Return the page. Equal reports give equal bytes."""
    return "<!DOCTYPE html>\n" + serialize(_Page(report).build()) + "\n"


class _Page:
    """One page in the making; it numbers what must have a name of its own."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._names = 0
        self._heading = report.title

    def build(self) -> Node:
        css, script = _asset("page.css"), _asset("page.js")
        policy = f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(script)}'"
        head = node(
            "head",
            None,
            node("meta", {"charset": "utf-8"}),
            node("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
            node("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
            node("meta", {"name": "color-scheme", "content": "light dark"}),
            node("link", {"rel": "icon", "href": "data:,"}),
            node("title", None, self._report.title),
            node("style", None, css),
        )
        body = node("body", None, self._header(), self._main(), self._footer(), node("script", None, script))
        return node("html", {"lang": "en"}, head, body)

    def _header(self) -> Node:
        report = self._report
        verdict = None
        if report.verdict:
            verdict = node("p", {"class": f"verdict {report.tone.value}"}, SIGNS[report.tone] + report.verdict)
        toggle = node("button", {"type": "button", "id": "theme", "hidden": ""}, "Dark")
        top = node("div", {"class": "top"}, node("h1", None, report.title), toggle)
        subtitle = node("p", {"class": "subtitle"}, report.subtitle) if report.subtitle else None
        return node("header", None, top, subtitle, verdict)

    def _main(self) -> Node:
        main = node("main", None, *(self._block(block) for block in self._report.lead))
        sections = self._report.sections
        if len(sections) > 2:
            links = [node("a", {"href": f"#{_slug(section.title)}"}, section.title) for section in sections]
            main.append(node("nav", {"aria-label": "Sections"}, *links))
        append(main, (self._section(section) for section in sections))
        return main

    def _footer(self) -> Node | None:
        return node("footer", None, self._report.footer) if self._report.footer else None

    def _section(self, section: Section) -> Node:
        self._heading = section.title
        made = node("section", {"id": _slug(section.title)}, node("h2", None, section.title))
        if section.note:
            made.append(node("p", {"class": "note"}, section.note))
        grid: Node | None = None
        for block in section.blocks:
            drawn = self._block(block)
            if isinstance(block, LinePlot | BarPlot | HistogramPlot):
                if grid is None:
                    grid = node("div", {"class": "plots"})
                    made.append(grid)
                grid.append(drawn)
            else:
                grid = None
                made.append(drawn)
        return made

    def _block(self, block: Block) -> Node:
        if isinstance(block, Notice):
            word = node("strong", None, f"{SIGNS[block.tone]}{WORDS[block.tone]}: ")
            return node("p", {"class": f"notice {block.tone.value}", "role": "note"}, word, block.text)
        if isinstance(block, Paragraph):
            return node("p", None, block.text)
        if isinstance(block, Figures):
            return _figures(block)
        if isinstance(block, Facts):
            return _facts(block)
        if isinstance(block, Table):
            return self._table(block, block.caption or self._heading)
        return self._plot(block)

    def _table(self, table: Table, name: str) -> Node:
        numeric = numeric_columns(table)
        head = [
            node("th", {"scope": "col", "class": "number" if right else None}, text)
            for text, right in zip(headings(table), numeric, strict=True)
        ]
        body = node("tbody")
        for row in written_rows(table):
            line = node("tr")
            for index, cell in enumerate(row):
                kind = " ".join(filter(None, ("number" if cell.numeric else "", _tone(cell.tone)))) or None
                first = index == 0 and not numeric[0]
                text = plain_cell(cell)
                if SIGNS[cell.tone]:
                    text = text.replace(" ", "\N{NO-BREAK SPACE}", 1)  # the sign stays beside its word
                line.append(node("th" if first else "td", {"scope": "row" if first else None, "class": kind}, text))
            body.append(line)
        caption = node("caption", None, table.caption) if table.caption else None
        made = node("table", None, caption, node("thead", None, node("tr", None, *head)), body)
        return node("div", {"class": "scroll", "role": "region", "aria-label": name, "tabindex": "0"}, made)

    def _plot(self, plot: Plot) -> Node:
        self._names += 1
        name = f"plot{self._names}"
        return node(
            "figure",
            None,
            node("figcaption", None, node("h3", None, plot.title), node("p", None, plot.note) if plot.note else None),
            _legend(plot) if isinstance(plot, LinePlot) else None,
            _draw(plot, WIDE, name),
            _draw(plot, NARROW, name),
            node("details", None, node("summary", None, "Data"), self._table(table_of(plot), f"{plot.title}, data")),
        )


def _draw(plot: Plot, size: Size, name: str) -> Node:
    if isinstance(plot, LinePlot):
        return draw_lines(plot, size, name)
    return draw_bars(plot, size, name) if isinstance(plot, BarPlot) else draw_histogram(plot, size, name)


def _legend(plot: LinePlot) -> Node | None:
    named = [(index, series) for index, series in enumerate(plot.series) if series.name]
    if len(named) < 2 and not any(series.bad for _, series in named):
        return None
    items = []
    for index, series in named:
        colour = style(index, series)
        dashes = dashes_of(index, series)
        dot = node("path", {"class": f"dot {colour}", "d": SHAPES[index % len(SHAPES)], "transform": "translate(14 6)"})
        line = node("path", {"class": f"line {colour}", "d": "M1 6H27", "stroke-dasharray": dashes})
        sign = node(
            "svg",
            {"viewBox": "0 0 28 12", "width": 28.0, "height": 12.0, "aria-hidden": "true"},
            line if series.line else None,
            dot if series.dots else None,
        )
        items.append(node("li", None, sign, series.name))
    return node("ul", {"class": "legend", "aria-label": "Legend"}, *items)


def _figures(block: Figures) -> Node:
    tiles = []
    for item in block.items:
        tile: list[Child] = [node("dt", None, item.label), node("dd", {"class": "big"}, SIGNS[item.tone] + item.value)]
        if item.note:
            tile.append(node("dd", {"class": "small"}, item.note))
        tiles.append(node("div", {"class": f"tile {item.tone.value}"}, *tile))
    return node("dl", {"class": "figures"}, *tiles)


def _facts(block: Facts) -> Node:
    listed = node("dl", {"class": "facts"})
    for name, value in block.pairs:
        listed.append(node("dt", None, name))
        listed.append(node("dd", None, node("code", None, value) if block.code else value))
    return listed


def _tone(tone: Tone) -> str:
    return "" if tone is Tone.PLAIN else tone.value


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def _asset(name: str) -> str:
    return (files("servable.report") / name).read_text("utf-8").strip()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
