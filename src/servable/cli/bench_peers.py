"""``servable bench peers list|install``: other people's servers to compare with, and their environments."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from servable.cli import DONE, FAILED
from servable.cli.tables import print_table
from servable.core.errors import ServingError, invalid_argument

if TYPE_CHECKING:
    from servable.lab.peers import Peer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="show the peers, their versions and whether they are installed")
    listing.add_argument("--json", action="store_true", help="print JSON")
    install = verbs.add_parser("install", help="make the environments of peers", allow_abbrev=False)
    install.add_argument("names", nargs="*", metavar="NAME", help="default: all")


def run(arguments: argparse.Namespace) -> int:
    """List or install."""
    from servable.lab.peers import PEERS

    if arguments.verb == "list":
        rows = [_describe(peer) for peer in PEERS.values()]
        if arguments.json:
            sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        else:
            columns = ("name", "what", "versions", "state")
            print_table(columns, [tuple(row[column] for column in columns) for row in rows])
        return DONE
    unknown = [name for name in arguments.names if name not in PEERS]
    if unknown:
        raise invalid_argument(f"{unknown[0]!r} is no peer: there are {', '.join(PEERS)}")
    return _install([PEERS[name] for name in arguments.names or PEERS])


def _describe(peer: Peer) -> dict[str, Any]:
    from servable.core.environments import pinned
    from servable.lab.peers import Environment

    versions, where, state = "", None, "found"
    if peer.requirements is not None:
        known = pinned(peer.requirements)
        versions = ", ".join(f"{name} {known[name]}" for name in peer.packages)
        environment = Environment(peer)
        where = str(environment.path)
        state = "installed" if environment.installed() else "not installed"
    state = peer.lacking() or state
    return {"name": peer.name, "what": peer.summary, "versions": versions, "state": state, "environment": where}


def _install(peers: list[Peer]) -> int:
    """Install one after the other; what fails keeps nobody from being installed."""
    from servable.lab.peers import Environment

    failed = 0
    for peer in peers:
        try:
            if peer.lacking():
                sys.stderr.write(f"{peer.name}: {peer.lacking()}\n")
            if peer.requirements is not None:
                Environment(peer).install(_report)
        except ServingError as error:
            failed += 1
            sys.stderr.write(f"{peer.name}: {error.message}\n")
    return FAILED if failed else DONE


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
