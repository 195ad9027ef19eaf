"""The page: well-formed, complete, safe, the same every time, and good to look at in a real browser."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import pytest
from tests.report.browser import CHROMIUM, Browser

from servable.report.blocks import (
    Column,
    Facts,
    Figure,
    Figures,
    Notice,
    Paragraph,
    Report,
    Section,
    Table,
    Tone,
    Toned,
)
from servable.report.html import write_html
from servable.report.plots import Axis, Bar, BarPlot, HistogramPlot, LinePlot, Mark, Point, Scale, Series
from servable.report.units import PER_SECOND, RATIO, SECONDS, SHARE, TIMES

EVIL = "</script><img src=x onerror=alert(1)>&\"'|\n\x00\u202e"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a page consists of; complains of tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(*plots: LinePlot | BarPlot | HistogramPlot) -> Report:
    return Report("t", sections=(Section("s", plots),))


def example(name: str = "text_cnn") -> Report:
    latency = Axis("latency", SECONDS, Scale.LOG)
    lines = LinePlot(
        "Latency against throughput",
        Axis("right answers", PER_SECOND),
        latency,
        (
            Series(
                "p50", [Point(1000, 0.001, label="1"), Point(2000, 0.0015, label="2"), Point(2100, 0.004, label="4")]
            ),
            Series(name, [Point(1000, 0.002, 0.001, 0.003), Point(2000, math.nan), Point(2100, 0.1)]),
        ),
        marks=(Mark(0.05, "allowed"),),
    )
    nines = LinePlot("Percentiles", Axis("requests", SHARE, Scale.NINES), latency, (Series("", [Point(0.9, 0.1)]),))
    bars = BarPlot(
        "Ratios",
        Axis("ratio", RATIO),
        (
            Bar(name, 1.5, 1.4, 1.6),
            Bar("slow", 0.25),
            Bar("gone", None, reason="cannot be installed"),
            Bar("bad", 1.0, bad=True),
        ),
        reference=Mark(1.0, "ours", across=False),
    )
    histogram = HistogramPlot("Distribution", latency, (0.001, 0.002, 0.004, 0.008), (10, 500, 3))
    table = Table(
        (Column("model"), Column("p99", SECONDS), Column("wrong")),
        [(name, 0.0123, 0), ("huge", 1e9, Toned(12345678, Tone.BAD)), ("tiny", 1e-9, 0), ("none", math.nan, 0)],
        "Numbers",
    )
    return Report(
        f"Report of {name}",
        "somewhere",
        "35 wrong answers",
        Tone.BAD,
        (Figures((Figure("Rate", "1,234/s", "32 in flight"),)), Notice(f"{name} failed", Tone.BAD)),
        (
            Section("Plots", (lines, nines, bars, histogram)),
            Section("Table", (table, Paragraph("words"))),
            Section("Conditions", (Facts((("Machine", name),)), Facts((("Command", f"bench {name}"),), code=True))),
        ),
        "the end",
    )


def test_the_page_has_every_number_and_word() -> None:
    page = Page(write_html(example()))
    expected = (
        "35 wrong answers",
        "1,234/s",
        "12,345,678",
        "cannot be installed",
        "✕ Failure:",
        "1.50 [1.40, 1.60]",
        "words",
        "the end",
    )
    for text in (*expected, "bench text_cnn", "allowed", f"0.250{TIMES}", "somewhere", "513 requests by latency"):
        assert text in page.text, text
    assert "nan" not in page.text
    assert "inf" not in page.text


def test_the_page_needs_nothing_but_itself_and_may_not_ask() -> None:
    text = write_html(example())
    page = Page(text)
    for _, attributes in page.elements:
        for name, value in attributes.items():
            if name in {"src", "href", "data", "action", "srcset", "xlink:href"}:
                assert value.startswith(("#", "data:")), f"{name}={value}"
            assert not name.startswith("on"), name
            assert name != "style", "a style attribute is against the page's own policy"
    assert "url(" not in text
    assert "@import" not in text
    policy = next(item["content"] for item in page.all("meta") if item.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_every_plot_is_told_in_words_and_as_a_table() -> None:
    page = Page(write_html(example()))
    plots = [attributes for attributes in page.all("svg") if "plot" in attributes.get("class", "").split()]
    assert len(plots) == 8  # four, each for wide and for narrow screens
    titles = {attributes["id"] for attributes in page.all("title") if "id" in attributes}
    assert {attributes["aria-labelledby"] for attributes in plots} == titles
    assert len(page.all("figure")) == len(page.all("details")) == 4
    assert len(page.all("table")) == 5
    for attributes in page.all("figure") + plots:
        assert "role" in attributes or "class" not in attributes
    regions = [attributes["aria-label"] for attributes in page.all("div") if attributes.get("role") == "region"]
    assert len(regions) == len(set(regions)) == 5
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_points_can_be_pointed_at() -> None:
    plots = [
        json.loads(item["data-points"]) for item in Page(write_html(example())).all("svg") if "data-points" in item
    ]
    heads = [[point[3] for point in points] for points in plots]
    assert heads[0][:3] == ["1", "2", "4"]
    assert "p50: 1.50 ms at 2,000/s" in [point[4] for point in plots[0]]
    assert "text_cnn: 2.00 ms (1.00 ms to 3.00 ms)" in [point[4] for point in plots[0]]
    assert all(math.isfinite(point[0]) and math.isfinite(point[1]) for points in plots for point in points)


def test_names_are_never_markup() -> None:
    page = Page(write_html(example(EVIL)))
    assert not page.all("img")
    assert len(page.all("script")) == 1
    assert "</script><img src=x onerror=alert(1)>&\"'|" in page.text
    assert "\x00" not in page.text
    assert "\u202e" not in page.text


def test_equal_reports_are_equal_bytes() -> None:
    assert write_html(example()) == write_html(example())


@pytest.mark.parametrize(
    "plot",
    [
        LinePlot("Empty", Axis("x"), Axis("y"), ()),
        LinePlot("No points", Axis("x"), Axis("y", SECONDS, Scale.LOG), (Series("a", []),)),
        LinePlot("Nothing finite", Axis("x"), Axis("y"), (Series("a", [Point(math.nan, 1), Point(1, math.inf)]),)),
        LinePlot("Below zero", Axis("x"), Axis("y", SECONDS, Scale.LOG), (Series("a", [Point(1, 0), Point(2, -1)]),)),
        BarPlot("No bars", Axis("x"), ()),
        HistogramPlot("No counts", Axis("x", SECONDS, Scale.LOG), (), ()),
        HistogramPlot("Only zeros", Axis("x"), (0.0, 1.0), (0,)),
    ],
    ids=lambda plot: plot.title,
)  # fmt: skip
def test_an_empty_plot_says_so(plot) -> None:
    assert Page(write_html(page_of(plot))).text.count("no data") == 2


def test_extreme_values_are_drawn_inside() -> None:
    points = [Point(1e-300, 1e-12), Point(1e-3, 1e6), Point(1e300, 5.0)]
    plots = [
        LinePlot("x", Axis("x", scale=Scale.LOG), Axis("y", SECONDS, scale), (Series("a", points),))
        for scale in (Scale.LINEAR, Scale.LOG)
    ]
    bars = BarPlot("b", Axis("x"), (Bar("a", 1e300), Bar("b", -5e299), Bar("c", 1e-300)))
    text = write_html(page_of(*plots, bars))
    numbers = [float(found) for found in re.findall(r' (?:x|y|x1|x2|y1|y2|width|height)="(-?[0-9.]+)"', text)]
    assert numbers
    assert max(numbers) <= 560
    assert min(numbers) >= -5


def test_a_bar_is_as_long_as_its_value() -> None:
    # No bar is near zero: an axis that is cut off would stretch the difference.
    plot = BarPlot("b", Axis("x", from_zero=False), (Bar("whole", 400.0), Bar("less", 300.0)))
    bars = Page(write_html(page_of(plot))).all("rect")
    whole, less = (float(item["width"]) for item in bars[:2])
    assert less == pytest.approx(whole * 0.75, abs=0.2)
    assert bars[0]["x"] == bars[1]["x"]


def test_spikes_survive_where_there_are_more_points_than_pixels() -> None:
    points = [Point(float(second), 1.0) for second in range(5000)]
    points[2345] = Point(2345.0, 99.0)
    plot = LinePlot("t", Axis("x"), Axis("y"), (Series("a", points, dots=False),))
    found = json.loads(Page(write_html(page_of(plot))).all("svg")[0]["data-points"])
    assert len(found) <= 400
    assert "a: 99.0" in [point[4] for point in found]


def themes() -> dict[str, tuple[str, str]]:
    css = (files("servable.report") / "page.css").read_text("utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)
    return {name: (light, dark) for name, light, dark in pairs}


def linear(colour: str) -> list[float]:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def luminance(colour: str) -> float:
    red, green, blue = linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_have_contrast_in_both_themes() -> None:
    found = themes()
    assert len(found) > 15

    def contrast(one: str, other: str, theme: int) -> float:
        light, dark = sorted((luminance(found[one][theme]), luminance(found[other][theme])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for theme in (0, 1):
        for text in ("ink", "quiet", "link", "bad", "good", "warning"):
            assert contrast(text, "paper", theme) >= 4.5, (text, theme)
        assert contrast("quiet", "raised", theme) >= 4.5
        for tone in ("bad", "good", "warning"):
            assert contrast(tone, f"{tone}-paper", theme) >= 4.5, (tone, theme)
            assert contrast("ink", f"{tone}-paper", theme) >= 7, (tone, theme)
        for series in range(1, 9):
            assert contrast(f"s{series}", "paper", theme) >= 3, (series, theme)


# Machado, Oliveira and Fernandes (2009), complete lack of one kind of cones; what it does to linear RGB.
VISIONS = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
TO_XYZ = ((0.4339, 0.3762, 0.1899), (0.2126, 0.7152, 0.0722), (0.0177, 0.1094, 0.8729))  # of white: 1, 1, 1


def lab(colour: str, vision: str) -> tuple[float, float, float]:
    """Return the place of a colour in CIELAB, as someone sees it."""

    def times(matrix, vector):
        return [sum(factor * part for factor, part in zip(row, vector, strict=True)) for row in matrix]

    seen = [min(max(part, 0.0), 1.0) for part in times(VISIONS[vision], linear(colour))]
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in times(TO_XYZ, seen))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_of_series_are_told_apart_by_everyone(vision: str, theme: int) -> None:
    found = themes()
    names = [f"s{number}" for number in range(1, 9)] + ["bad"]
    places = {name: lab(found[name][theme], vision) for name in names}
    closest = min((math.dist(places[one], places[other]), one, other) for one, other in combinations(names, 2))
    assert closest[0] > 14, closest


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_it_at_every_width_in_both_themes_and_on_paper(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(write_html(example("a_name_without_a_single_place_to_break_" * 6)), encoding="utf-8")
    with Browser() as browser:
        colours = {}
        for width, scheme in ((390, "light"), (390, "dark"), (768, "light"), (1280, "dark")):
            browser.open(page, width, prefers_color_scheme=scheme)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)
            shown = "[...document.querySelectorAll('svg.plot')].filter(plot => plot.checkVisibility()).length"
            assert browser.evaluate(shown) == 4, "each plot is there once"
            colours[scheme] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}

        browser.evaluate("document.getElementById('theme').click()")
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == colours["light"]

        browser.evaluate("document.querySelector('svg.plot.wide').scrollIntoView()")
        box = browser.evaluate("document.querySelector('svg.plot.wide').getBoundingClientRect().toJSON()")
        browser.drag(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert "ms" in browser.evaluate("document.getElementById('tip').textContent")
        browser.evaluate("document.querySelector('svg.plot.wide').focus()")
        browser.press("ArrowRight")
        assert "p50: 1.00 ms" in browser.evaluate("document.getElementById('tip').textContent")
        browser.press("Escape")
        assert browser.evaluate("document.getElementById('tip').hidden") is True

        browser.open(page, 690, media="print")
        assert browser.evaluate("getComputedStyle(document.getElementById('theme')).display") == "none"
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == colours["light"]
        assert browser.complaints() == []
