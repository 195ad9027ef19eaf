"""``servable bench restrict``: servers on fewer cores and less memory, without Docker."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from servable.cli import DONE, FAILED, MISSED
from servable.cli.bench_compare import artifact_subject
from servable.cli.reports import put_everywhere
from servable.core.errors import invalid_argument
from servable.core.progress import Progress
from servable.core.scratch import EndedError, scratch
from servable.lab.limits import Case, asked_cases, four_cases, parse_memory, parse_pin
from servable.lab.restrict import Plan, restrict
from servable.lab.restrict_page import restriction_report, restriction_table
from servable.lab.restriction import Restriction, encode
from servable.lab.subject import Subject, example_subject
from servable.zoo import catalog

DEFAULT_MODEL = "simple_cnn"
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is served, the limits and the load."""
    parser.description = (
        "Serves a model within limits and measures it: on some of the cores (affinity), with so much memory (a control "
        "group where this process may make one, else a watchdog), several models at the same time. Without limits it "
        "runs four cases: one model on one CPU; that with 1 GiB; two models on a CPU each; two on the same CPUs."
    )
    parser.epilog = (
        "example: servable bench restrict simple_cnn --cpus 1 --memory 1g --pin model1=0 --pin model2=1 --pin all=0,1 "
        "| exit codes: 0 done, 1 nothing was measured or answers were wrong, 3 out of memory"
    )
    parser.add_argument(
        "model", nargs="?", default=DEFAULT_MODEL, metavar="NAME|PATH", help="example model or artifact; %(default)s"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--cpus", type=float, metavar="N", help="one model on so many; 0.5 needs a control group")
    limits.add_argument("--memory", metavar="SIZE", help="for each server: bytes, or 512m, 1g")
    limits.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="MODEL=CORE,...",
        help="model1=0 model2=1: those at the same time; all=0,1: two models, both there; repeatable",
    )
    load = parser.add_argument_group("load")
    load.add_argument("--concurrency", type=int, default=4, metavar="N", help="in flight at each; default: %(default)s")
    load.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of each case; default: %(default)g")
    load.add_argument("--warmup", type=float, default=1.0, metavar="S", help="before each; default: %(default)g")
    load.add_argument("--rows", type=int, default=1, metavar="N", help="rows of a request; default: %(default)s")
    load.add_argument("--data", type=Path, metavar="FILE", help="requests for an artifact; default: made up")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", action="append", type=Path, default=[], metavar="FILE", help=".json, .html, .md or .csv; repeatable"
    )
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--quiet", action="store_true", help="say nothing meanwhile")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.rows < 1 or arguments.warmup < 0:
        raise invalid_argument("--rows must be 1 or more, --warmup must not be negative")
    cases = cases_of(arguments)
    with scratch() as folder:
        plan = Plan(cases, _subject(arguments, folder), arguments.concurrency, arguments.seconds, arguments.warmup)
        found = asyncio.run(_measure(plan, _silent if arguments.quiet else _report))
    _put(found, arguments)
    return exit_code(found)


async def _measure(plan: Plan, report: Progress) -> Restriction:
    """Measure; a signal to end cancels that as Ctrl-C does, and is told only when servers and groups are gone."""
    loop, running = asyncio.get_running_loop(), asyncio.create_task(restrict(plan, report))
    came: list[int] = []

    def end(number: int) -> None:
        came.append(number)
        if len(came) == 1:  # impatience does not disturb the clearing up
            running.cancel()

    for number in _ENDINGS:
        loop.add_signal_handler(number, end, number)
    try:
        return await running
    except asyncio.CancelledError:
        if came and came[0] == signal.SIGINT:
            raise KeyboardInterrupt from None
        if came:
            raise EndedError(came[0]) from None
        raise
    finally:
        for number in _ENDINGS:
            loop.remove_signal_handler(number)


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """Return the cases that were asked for, or the four."""
    usable = sorted(os.sched_getaffinity(0))
    memory = None if arguments.memory is None else parse_memory(arguments.memory)
    pins = [parse_pin(text, usable) for text in arguments.pin]
    return asked_cases(arguments.cpus, memory, pins, usable) or four_cases(usable)


def exit_code(found: Restriction) -> int:
    """Return how it went."""
    if any(row.out_of_memory for row in found.rows):
        return MISSED
    answered = any(row.ok for row in found.rows)
    return DONE if answered and not any(row.errors + row.wrong for row in found.rows) else FAILED


def _subject(arguments: argparse.Namespace, folder: Path) -> Subject:
    if arguments.model in catalog.CATALOG and not Path(arguments.model).exists():
        if arguments.data is not None:
            raise invalid_argument(f"{arguments.model} is an example model, which brings its own data")
        return example_subject(arguments.model, folder, rows=arguments.rows)
    return artifact_subject(Path(arguments.model), arguments.data, arguments.rows)


def _put(found: Restriction, arguments: argparse.Namespace) -> None:
    text, report, table = encode(found).decode(), restriction_report(found), restriction_table(found.rows)
    put_everywhere(text, report, table, arguments.out, as_json=arguments.json)


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _silent(_: str) -> None:
    pass
