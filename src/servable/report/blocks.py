"""What a report consists of. All of it is data: how it looks is the business of each form it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from servable.report.plots import BarPlot, HistogramPlot, LinePlot
from servable.report.units import PLAIN, Unit


class Tone(Enum):
    """How good a thing is. It is always said in words too: colour alone reaches neither everyone nor paper."""

    PLAIN = "plain"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Toned:
    """A cell that is good or bad news."""

    value: float | int | str | Interval | None
    tone: Tone


Cell = float | int | str | bool | Interval | Toned | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``unit`` is that of the values, all of which share one scale in the column's group of units."""

    label: str
    unit: Unit = PLAIN


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns. Every row is as long as ``columns``."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse ragged rows: they would put numbers under the wrong heading."""
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {index} has {len(row)} cells, there are {len(self.columns)} columns")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the reader must not miss."""

    text: str
    tone: Tone = Tone.WARNING


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Plain prose."""

    text: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that stands alone at the top, with what it means in ``note``."""

    label: str
    value: str
    note: str = ""
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Figures:
    """The few numbers to see first."""

    items: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with values: the conditions of a measurement. ``code`` sets the values as typed text."""

    pairs: Sequence[tuple[str, str]]
    code: bool = False


Plot = LinePlot | BarPlot | HistogramPlot
Block = Notice | Paragraph | Figures | Facts | Table | Plot


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report. ``verdict`` says in a word or two how it went, ``tone`` whether that is good."""

    title: str
    subtitle: str = ""
    verdict: str = ""
    tone: Tone = Tone.PLAIN
    lead: Sequence[Block] = field(default=())
    sections: Sequence[Section] = field(default=())
    footer: str = ""
