"""HTML and SVG as a tree, so that every text is escaped because no text is ever markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree as ET

# What HTML cannot hold, and marks that turn the direction of the text behind them.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

Node = ET.Element
Child = ET.Element | str | None
Attributes = dict[str, str | float | None]


def node(tag: str, attributes: Attributes | None = None, *children: Child) -> Node:
    """Return an element; attributes and children that are ``None`` are left out. Numbers are written short."""
    made = ET.Element(tag)
    for name, value in (attributes or {}).items():
        if value is not None:
            made.set(name, clean(value) if isinstance(value, str) else place(value))
    append(made, children)
    return made


def append(parent: Node, children: Iterable[Child]) -> None:
    """Add elements and text behind what is there."""
    for child in children:
        if child is None:
            continue
        if not isinstance(child, str):
            parent.append(child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + clean(child)
        else:
            parent.text = (parent.text or "") + clean(child)


def clean(text: str) -> str:
    """Return the text with a sign in place of every character that a page cannot show."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def place(value: float) -> str:
    """Write a coordinate: a tenth of a pixel is more than anyone sees."""
    return f"{value:.1f}".removesuffix(".0")


def serialize(root: Node) -> str:
    """Return the HTML. Equal trees give equal text."""
    return ET.tostring(root, encoding="unicode", method="html")
