"""``servable checklist``: which steps to production a project has gone, and which command goes the next."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from servable.cli import DONE, MISSED
from servable.cli.reports import add_form, put_report, put_text
from servable.forge.checklist.report import report_of, table_of
from servable.forge.checklist.steps import State, as_json, judge
from servable.forge.checklist.tree import look


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder and the forms."""
    parser.description = (
        "Judges a project by what lies in its folder: artifacts, tests, files of CI, Docker and Kubernetes, reports, "
        "plans, dashboards. Nothing is run."
    )
    parser.epilog = "exit codes: 0 done, 1 failed, 2 wrong usage, 3 with --strict: something is to do"
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: this one")
    parser.add_argument("--strict", action="store_true", help="exit with 3 if a step is to do")
    add_form(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look, judge, print."""
    tree = look(arguments.folder)
    judged = judge(tree)
    if arguments.json:
        put_text(json.dumps(as_json(tree, judged), indent=2) + "\n", arguments.out)
    else:
        put_report(report_of(tree, judged), table_of(judged), arguments.out, arguments.format)
    left = any(one.state is State.TO_DO for one in judged)
    return MISSED if left and arguments.strict else DONE
