"""``servable config``: what there is to know about files of settings."""

from __future__ import annotations

import argparse
import sys

from servable.cli import DONE
from servable.settings.schema import schema_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("schema", help="print the JSON schema of servable.toml", allow_abbrev=False)


def run(arguments: argparse.Namespace) -> int:
    """Print."""
    assert arguments.action == "schema"
    sys.stdout.write(schema_text())
    return DONE
