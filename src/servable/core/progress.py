"""Lines for people about work that takes a while, from whoever does it to whoever shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]
"""Takes one line, without an end of line. Called in the thread that works; must be cheap."""


def unheard(_line: str) -> None:
    """Be the ``Progress`` of work that nobody watches."""
