"""``servable replay``: sends logged calls to a server again and compares the answers."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from servable.cli import DONE, FAILED
from servable.cli.tables import print_table
from servable.cli.warmup import read_calls
from servable.core.errors import invalid_argument
from servable.lab.judge import Tolerance
from servable.lab.replay import Replayed, Replayer, Verdict, in_order
from servable.lab.target import WIRES, parse_endpoint
from servable.transport.tls import ClientTlsOptions

MOST_SHOWN = 20
"""Calls that went wrong that a table shows."""
GOOD = frozenset({Verdict.SAME, Verdict.UNCOMPARED})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the log, the server and how to compare."""
    parser.epilog = (
        "exit codes: 0 every answer is what was logged, 1 one is not or failed, 2 wrong usage. "
        "As load: servable bench URL --data LOG"
    )
    parser.add_argument("log", type=Path, nargs="+", metavar="LOG", help="files of records (PredictionLog)")
    parser.add_argument("url", metavar="URL", help="grpc(s)://HOST:PORT/MODEL or http(s)://HOST:PORT/MODEL")
    parser.add_argument("--wire", default="", choices=WIRES[:-1], help="protocol, where the URL leaves a choice")
    parser.add_argument("--count", type=int, default=None, metavar="N", help="calls at most (default: all)")
    parser.add_argument("--concurrency", type=int, default=1, metavar="N", help="calls at a time (default: 1)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for a call (default: 30)")
    parser.add_argument("--rtol", type=float, default=Tolerance().rtol, metavar="R", help="default: %(default)g")
    parser.add_argument("--atol", type=float, default=Tolerance().atol, metavar="A", help="default: %(default)g")
    parser.add_argument("--ca", metavar="FILE", help="authorities that sign the server's certificate, in PEM")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Replay and print."""
    if arguments.concurrency < 1 or (arguments.count is not None and arguments.count < 1):
        raise invalid_argument("--concurrency and --count are at least 1")
    endpoint = parse_endpoint(arguments.url, arguments.wire)
    tls = ClientTlsOptions(ca=arguments.ca or "") if endpoint.secure else None
    tolerance = Tolerance(arguments.rtol, arguments.atol)
    replayer = Replayer(endpoint, tls, tolerance, arguments.concurrency, arguments.timeout)
    # Before anything is sent: a damaged log is not half replayed.
    calls = list(islice(read_calls(arguments.log), arguments.count))
    if not calls:
        raise invalid_argument("the log holds no calls")
    results: list[Replayed] = []
    try:
        asyncio.run(replayer.replay(calls, results))
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted after {len(results)} of {len(calls)} calls\n")
    found = in_order(results)
    if arguments.json:
        sys.stdout.write(json.dumps(_document(found), indent=2) + "\n")
    else:
        _print(found)
    return DONE if len(found) == len(calls) and all(one.verdict in GOOD for one in found) else FAILED


def _document(found: list[Replayed]) -> dict[str, Any]:
    counts = Counter(one.verdict for one in found)
    return {
        "calls": len(found),
        **{verdict.name.lower(): counts[verdict] for verdict in Verdict},
        "largest_difference": max((one.difference for one in found), default=0.0),
        "wrong": [
            {"record": one.record, "verdict": one.verdict.value, "detail": one.detail}
            for one in found
            if one.verdict not in GOOD
        ],
    }


def _print(found: list[Replayed]) -> None:
    counts = Counter(one.verdict for one in found)
    wrong = [one for one in found if one.verdict not in GOOD]
    if wrong:
        print_table(
            ("record", "verdict", "detail"),
            [(str(one.record), one.verdict.value, one.detail) for one in wrong[:MOST_SHOWN]],
        )
        if len(wrong) > MOST_SHOWN:
            sys.stdout.write(f"... and {len(wrong) - MOST_SHOWN} more\n")
    words = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
    largest = max((one.difference for one in found), default=0.0)
    sys.stdout.write(f"{len(found)} calls: {words}; largest difference {largest:.3g}\n")
