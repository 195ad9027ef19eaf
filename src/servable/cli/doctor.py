"""``servable doctor``: whether ``servable serve`` with the same words would work here, and what to mend first."""

from __future__ import annotations

import argparse
import json
import sys

from servable.cli import DONE, FAILED
from servable.cli.checks import Finding, State, examine
from servable.cli.old_flags import explain
from servable.cli.tables import print_table
from servable.settings import add_flags, read_settings, spell_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``serve``: what is to be judged is a server with these."""
    parser.description = (
        "Looks at software, CPUs, memory, limits, ports and models as `servable serve` with the same arguments would "
        "meet them. Nothing is loaded. The exit code is 1 if something will not work."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--flags",
        metavar="'OLD COMMAND LINE'",
        help="explain each flag of a command line of tensorflow_model_server instead",
    )
    add_flags(parser)


def rewrite(words: list[str]) -> list[str]:
    """Return the command line as argparse can read it: an old command line may begin with dashes itself."""
    if "--flags" in words[:-1]:
        index = words.index("--flags")
        words = [*words[:index], f"--flags={words[index + 1]}", *words[index + 2 :]]
    return spell_out(words, {"json", "flags"})


def run(arguments: argparse.Namespace) -> int:
    """Examine and print."""
    if arguments.flags is not None:
        return _explain(arguments.flags, as_json=arguments.json)
    findings = list(examine(read_settings(vars(arguments))))
    works = all(finding.state is not State.FAILS for finding in findings)
    if arguments.json:
        document = {"works": works, "findings": [_as_json(finding) for finding in findings]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        rows = [(item.state.value, item.subject, item.found, item.advice) for item in findings]
        print_table(("", "what", "found", "advice"), rows)
    return DONE if works else FAILED


def _explain(line: str, *, as_json: bool) -> int:
    found = explain(line)
    works = not any(item.stops for item in found)
    if as_json:
        flags = [{"flag": item.flag, "verdict": item.verdict.value, "note": item.note} for item in found]
        sys.stdout.write(json.dumps({"works": works, "flags": flags}, indent=2) + "\n")
    else:
        print_table(("flag", "here", "note"), [(item.flag, item.verdict.value, item.note) for item in found])
    return DONE if works else FAILED


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "state": finding.state.value,
        "subject": finding.subject,
        "found": finding.found,
        "advice": finding.advice,
    }
