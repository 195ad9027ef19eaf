"""``servable bench resize``: how long libraries take to resize an image."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence

from servable.cli import DONE
from servable.cli.reports import add_form, put_report, put_text
from servable.core.errors import ServingError, failed_precondition, invalid_argument
from servable.forge.worker import run_apart
from servable.preprocess.resize_benchmark import IMAGE, NATIVE, RUNS, SEED, VARIED, Timing, installed
from servable.report.blocks import Column, Facts, Notice, Report, Section, Table
from servable.report.units import SECONDS

_SIZE = re.compile(r"(\d+)x(\d+)")
_LARGEST = 1 << 14


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the image, the size and the libraries."""
    parser.description = (
        "Resizes one random image to another size and to its own, with each library's own call and with "
        "servable.preprocess, which gives all of them one meaning. Each library has a process of its own."
    )
    parser.add_argument(
        "--library", action="append", choices=tuple(NATIVE), default=[], help="repeatable; default: all that are here"
    )
    parser.add_argument(
        "--image", default=f"{IMAGE[1]}x{IMAGE[0]}", metavar="WIDTHxHEIGHT", help="default: %(default)s, 3 channels"
    )
    parser.add_argument(
        "--size",
        default=f"{VARIED[1]}x{VARIED[0]}",
        metavar="WIDTHxHEIGHT",
        help='the "var size"; default: %(default)s',
    )
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="of the image; default: %(default)s")
    add_form(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.runs < 1:
        raise invalid_argument(f"--runs {arguments.runs} is too few: at least 1")
    image, varied = _size("--image", arguments.image), _size("--size", arguments.size)
    timings: list[Timing] = []
    missing: list[str] = []
    for library in arguments.library or NATIVE:
        if library not in installed():
            missing.append(library)
            continue
        timings += _measured(library, image, varied, arguments)
    if not timings:
        raise failed_precondition(f"{', '.join(missing)}: not installed: pip install 'servable[preprocess]'")
    if arguments.json:
        rows = [{**one._asdict(), "seconds": list(one.seconds)} for one in timings]
        put_text(
            json.dumps({"image": list(image), "seed": arguments.seed, "timings": rows}, indent=2) + "\n", arguments.out
        )
    else:
        put_report(_report(timings, missing, arguments), _table(timings), arguments.out, arguments.format)
    return DONE


def _measured(
    library: str, image: tuple[int, int], varied: tuple[int, int], arguments: argparse.Namespace
) -> Sequence[Timing]:
    if sys.stderr.isatty():
        sys.stderr.write(f"{library}\n")
    asked = {"library": library, "image": image, "varied": varied, "runs": arguments.runs, "seed": arguments.seed}
    try:
        rows = run_apart("servable.preprocess.resize_benchmark:measure", asked)
    except ServingError as error:
        raise ServingError(error.code, f"{library}: {error.message}") from None
    return [Timing(*row)._replace(seconds=tuple(row[5])) for row in rows]


def _table(timings: Sequence[Timing]) -> Table:
    columns = (
        Column("library"), Column("call"), Column("size"), Column("width x height"),
        Column("min", SECONDS), Column("mean", SECONDS), Column("max", SECONDS), Column("off by"),
    )  # fmt: skip
    rows = [
        (
            one.library, one.manner, one.size, f"{one.width}x{one.height}",
            min(one.seconds), statistics.fmean(one.seconds), max(one.seconds), one.difference,
        )
        for one in timings
    ]  # fmt: skip
    return Table(columns, rows)


def _report(timings: Sequence[Timing], missing: Sequence[str], arguments: argparse.Namespace) -> Report:
    facts = [
        ("image", f"{arguments.image}, 3 channels, uint8, random with seed {arguments.seed}"),
        ("runs", f"{arguments.runs}, after one that does not count"),
        ("call", '"its own" is the library as people call it; "one meaning" is servable.preprocess.images.resize'),
        ("off by", "mean distance from bilinear interpolation without smoothing, in grey levels of 255"),
    ]
    notices = [Notice(f"not installed: {', '.join(missing)}")] if missing else []
    return Report("Resizing", lead=(Facts(facts), *notices), sections=(Section("Times", (_table(timings),)),))


def _size(option: str, text: str) -> tuple[int, int]:
    """Return height and width."""
    match = _SIZE.fullmatch(text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (0 < width <= _LARGEST and 0 < height <= _LARGEST):
        raise invalid_argument(f"{option} {text!r} is no size: expected WIDTHxHEIGHT, such as 640x360")
    return height, width
