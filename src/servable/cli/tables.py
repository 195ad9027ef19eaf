"""Tables for a terminal, and the same as plain text where there is none."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table to stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: lines there are as long as they must be.
    Console(width=None if sys.stdout.isatty() else 400, highlight=False, markup=False).print(table)
