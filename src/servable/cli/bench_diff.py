"""``servable bench diff``: what changed from one result or comparison to another, and whether by more than allowed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from servable.cli import DONE, MISSED
from servable.cli.reports import add_form, put_report, put_text
from servable.lab import comparison, result
from servable.lab.difference import Measured, compare
from servable.lab.difference_page import as_json, changes_table, difference_report
from servable.lab.thresholds import METRICS, parse_threshold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two results and the thresholds."""
    parser.description = (
        "Compares two results of one scenario step by step, or what two runs of bench compare wrote row by row. "
        "More wrong answers always miss."
    )
    parser.epilog = "exit codes: 0 within all thresholds, 1 unreadable or not comparable, 3 a threshold was missed"
    parser.add_argument("old", type=Path, metavar="OLD", help="result or comparison (JSON)")
    parser.add_argument("new", type=Path, metavar="NEW", help="one of the same kind")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="METRIC=LIMIT",
        help="p99=+10%% (change), p99=+2ms, rate=-5%%, p99=50ms (bound), errors=0; repeatable. Metrics: "
        + ", ".join(METRICS),
    )
    parser.add_argument(
        "--allow-different", action="store_true", help="compare also results of different machines or scenarios"
    )
    add_form(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare and print; exit code 3 if a threshold was missed."""
    thresholds = [parse_threshold(text) for text in arguments.threshold]
    old, new = _read(arguments.old), _read(arguments.new)
    found = compare(old, new, thresholds, allow_conflicts=arguments.allow_different)
    if arguments.json:
        put_text(json.dumps(as_json(found), indent=2, allow_nan=False) + "\n", arguments.out)
    else:
        report = difference_report(found, str(arguments.old), str(arguments.new))
        put_report(report, changes_table(found), arguments.out, arguments.format)
    return MISSED if found.exceeded else DONE


def _read(path: Path) -> Measured:
    return comparison.read(path) if comparison.is_comparison(path) else result.read(path)
