"""``servable converters list|install``: converters that work in environments of their own."""

from __future__ import annotations

import argparse
import json
import sys

from servable.cli import DONE
from servable.cli.tables import print_table
from servable.forge.conversion.converters import CONVERTERS, Converter, converter_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two verbs."""
    parser.description = (
        "Some converters want other versions of libraries than ours. Each has an environment of its own, with every "
        "package pinned, in the user's cache; it is made when a person asks for it here, and never otherwise."
    )
    parser.epilog = "example: servable converters install litert-torch"
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="show the converters, what they cost and whether they are installed")
    listing.add_argument("--json", action="store_true", help="print JSON")
    install = verbs.add_parser("install", help="download a converter and make its environment", allow_abbrev=False)
    install.add_argument("names", nargs="+", metavar="NAME", help=", ".join(CONVERTERS))


def run(arguments: argparse.Namespace) -> int:
    """List or install."""
    if arguments.verb == "list":
        rows = [_describe(converter) for converter in CONVERTERS.values()]
        if arguments.json:
            sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        else:
            columns = ("name", "what", "version", "download_mb", "disk_mb", "state")
            print_table(columns, [tuple(str(row[column]) for column in columns) for row in rows])
        return DONE
    for converter in [converter_named(name) for name in arguments.names]:
        environment = converter.environment()
        if environment.installed():
            _report(f"{converter.name} is installed: {environment.path}")
            continue
        _report(f"{converter.name}: downloading {converter.download_mb} MB, to keep {converter.disk_mb} MB")
        environment.install(_report)
        _report(f"{converter.name} is installed")
    return DONE


def _describe(converter: Converter) -> dict[str, str | int]:
    environment = converter.environment()
    return {
        "name": converter.name,
        "what": converter.summary,
        "version": converter.version,
        "download_mb": converter.download_mb,
        "disk_mb": converter.disk_mb,
        "state": "installed" if environment.installed() else "not installed",
        "environment": str(environment.path),
    }


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
