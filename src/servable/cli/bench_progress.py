"""One line that tells how a measurement goes, while it does."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from servable.lab.session import Progress


class ProgressLine:
    """Shows rate, p50, p99 and errors of the last second on stderr, if that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        console = Console(stderr=True, highlight=False)
        self._live = None
        if not quiet and sys.stderr.isatty():
            self._live = Live(Text("starting"), console=console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show what is known now."""
        if self._live is not None:
            failed = bool(progress.errors or progress.wrong)
            self._live.update(self._text(describe(progress), style="red" if failed else ""))


def describe(progress: Progress) -> str:
    """Return the line's text."""
    phase = "warming up" if progress.warming_up else f"{progress.elapsed_s:5.1f} s"
    return (
        f"{progress.label}  {phase}  {progress.rate_per_s:,.0f}/s  p50 {progress.p50_ms:.3g} ms  "
        f"p99 {progress.p99_ms:.3g} ms  {progress.errors} errors  {progress.wrong} wrong"
    )
