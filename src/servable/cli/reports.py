"""The forms that every report can be written in, for all commands that make one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from servable.core.errors import failed_precondition
from servable.report.blocks import Report, Table

FORMATS = ("text", "markdown", "csv", "html")


def add_form(parser: argparse.ArgumentParser) -> None:
    """Add the form of a report and where it goes."""
    parser.add_argument("--format", choices=FORMATS, help="default: by the ending of --out, else text")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of to stdout")
    parser.add_argument("--json", action="store_true", help="print JSON")


def put_report(report: Report, table: Table, out: Path | None = None, form: str | None = None) -> None:
    """Write a report; ``table`` is the one that CSV is made of. Without ``form`` the file's ending says it."""
    with _opened(out) as stream:
        _write(form or _by_ending(out), report, table, stream)


def put_text(text: str, out: Path | None = None) -> None:
    """Write text that is ready, such as JSON."""
    with _opened(out) as stream:
        stream.write(text)


def put_everywhere(text: str, report: Report, table: Table, files: Sequence[Path], *, as_json: bool) -> None:
    """Write what was measured to each file in the form of its ending (``text`` is the JSON), and to stdout."""
    for path in files:
        if path.suffix == ".json":
            put_text(text, path)
        else:
            put_report(report, table, path)
    if as_json:
        put_text(text)
    else:
        put_report(report, table)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        # CSV brings its own line ends.
        with out.open("w", encoding="utf-8", newline="") as stream:
            yield stream
    except OSError as error:
        raise failed_precondition(f"cannot write {out}: {error.strerror}") from None


def _by_ending(out: Path | None) -> str:
    endings = {".md": "markdown", ".csv": "csv", ".html": "html", ".htm": "html"}
    return endings.get(out.suffix.lower(), "text") if out else "text"


def _write(form: str, report: Report, table: Table, out: TextIO) -> None:
    if form == "html":
        from servable.report.html import write_html

        out.write(write_html(report))
    elif form == "markdown":
        from servable.report.markdown import write_markdown

        out.write(write_markdown(report))
    elif form == "csv":
        from servable.report.delimited import write_csv

        out.write(write_csv(table))
    else:
        from servable.report.terminal import print_report

        print_report(report, out)
