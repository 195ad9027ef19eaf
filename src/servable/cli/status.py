"""``servable status``: what a running server has loaded, with engine, precision and why it was chosen."""

from __future__ import annotations

import argparse
import asyncio
import sys

from servable.cli import DONE, FAILED
from servable.cli.tables import print_table
from servable.client.channel import NO_FILES, parse_url
from servable.client.rest_channel import RestChannel
from servable.core.errors import not_found
from servable.core.status import VersionState
from servable.transport.tls import H1, client_context
from servable.wire import overview

TIMEOUT_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the server, the model and the form of output."""
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8501", metavar="URL", help="default: %(default)s")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Ask and print; exit code 1 if a model has no available version."""
    document = asyncio.run(_ask(arguments.url))
    models = overview.decode_overview(document)
    if arguments.model is not None:
        if arguments.model not in models:
            raise not_found(f"no model is called {arguments.model!r}; there are {', '.join(models) or 'none'}")
        models = {arguments.model: models[arguments.model]}
    if arguments.json:
        sys.stdout.write(overview.encode_overview(models).decode())
    else:
        rows = []
        for name, versions in models.items():
            if not versions:
                rows.append((name, "", "no version", "", "", ""))
            for version in versions:
                status = version.status
                why = status.reason if status.error is None else str(status.error)
                rows.append((name, str(status.version), status.state.name, status.engine, status.precision, why))
        print_table(("model", "version", "state", "engine", "precision", "why"), rows)
    served = all(
        any(version.status.state is VersionState.AVAILABLE for version in versions) for versions in models.values()
    )
    return DONE if served else FAILED


async def _ask(url: str) -> bytes:
    # The overview is a page, also on a port that is used for gRPC.
    _, address, secure = parse_url(url)
    channel = RestChannel(address, client_context(NO_FILES, [H1]) if secure else None)
    try:
        return await channel.get(overview.PATH, TIMEOUT_S)
    finally:
        await channel.close()
