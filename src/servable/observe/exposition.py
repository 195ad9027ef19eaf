"""Prometheus' text format as TensorFlow Serving writes it: no HELP, braces without labels too, six digits a limit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Label = tuple[str, str]
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_]")
_NOT_IN_LABEL = re.compile(r"[^A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One series with one value."""

    labels: tuple[Label, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """One series with buckets: how many values are at most as large as each limit, and how many there are."""

    labels: tuple[Label, ...]
    limits: Sequence[float]
    cumulative: Sequence[int]
    total: float


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one metric. ``name`` has slashes: ``/tensorflow/serving/request_count``."""

    name: str
    kind: str
    cells: Sequence[Scalar | Histogram] = field(default_factory=tuple)


def name_in_text(name: str) -> str:
    """Return the name that stands in the text for one with slashes."""
    plain = _NOT_IN_NAME.sub(":", name)
    return f"_{plain}" if plain[:1].isdigit() else plain


def exposition(families: Iterable[Family]) -> bytes:
    """Return the text of families, in the order of their names."""
    lines: list[str] = []
    for family in sorted(families, key=lambda each: each.name):
        name = name_in_text(family.name)
        lines.append(f"# TYPE {name} {family.kind}")
        for cell in family.cells:
            if isinstance(cell, Scalar):
                lines.append(f"{name}{{{_labels(cell.labels)}}} {int(cell.value)}")
            else:
                lines += _histogram(name, cell)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _histogram(name: str, cell: Histogram) -> Iterable[str]:
    labels = _labels(cell.labels)
    before = f"{labels}," if labels else ""
    for limit, count in zip((*(f"{limit:.6g}" for limit in cell.limits), "+Inf"), cell.cumulative, strict=True):
        yield f'{name}_bucket{{{before}le="{limit}"}} {count}'
    yield f"{name}_sum{{{labels}}} {cell.total:.6g}"
    yield f"{name}_count{{{labels}}} {cell.cumulative[-1]}"


def _labels(labels: Iterable[Label]) -> str:
    return ",".join(f'{_NOT_IN_LABEL.sub("_", name)}="{_escaped(value)}"' for name, value in labels)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
