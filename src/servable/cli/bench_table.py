"""``servable bench table``: a result that was measured before, as a table, a document or a page."""

from __future__ import annotations

import argparse
from pathlib import Path

from servable.cli import DONE
from servable.cli.reports import add_form, put_report, put_text
from servable.core.errors import not_found
from servable.lab import comparison, result
from servable.lab.comparison_page import comparison_report, comparison_table
from servable.lab.page import report_of, steps_table

RESULTS = Path("docs/benchmarks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the result and the form of output."""
    parser.description = "Prints a result again, or writes it as Markdown, CSV or one HTML page."
    parser.epilog = "example: servable bench table result.json --out report.html"
    parser.add_argument("result", metavar="NAME|FILE", help="result file, or the name of one in --results")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    add_form(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read and print."""
    path = find(arguments.result, arguments.results)
    compares = comparison.is_comparison(path)
    if arguments.json:
        text = comparison.encode(comparison.read(path)) if compares else result.encode(result.read(path))
        put_text(text.decode(), arguments.out)
    elif compares:
        compared = comparison.read(path)
        report, table = comparison_report(compared), comparison_table(compared.rows)
        put_report(report, table, arguments.out, arguments.format)
    else:
        measured = result.read(path)
        put_report(report_of(measured), steps_table(measured), arguments.out, arguments.format)
    return DONE


def find(name: str, results: Path) -> Path:
    """Return the file that a name or a path means; NOT_FOUND lists the names there are."""
    if Path(name).is_file():
        return Path(name)
    named = results / f"{name}.json"
    if "/" not in name and named.is_file():
        return named
    known = ", ".join(sorted(path.stem for path in results.glob("*.json"))) or "none"
    raise not_found(f"{name!r} is no file, and no result in {results}; there are: {known}")
