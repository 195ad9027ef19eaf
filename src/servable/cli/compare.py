"""``servable compare``: artifacts of one model side by side, or one model in every framework."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from servable.cli import DONE, FAILED
from servable.cli.bench_options import numbers
from servable.cli.forging import tell
from servable.cli.reports import put_report, put_text
from servable.core.errors import invalid_argument
from servable.forge.appraisal import Timing
from servable.forge.comparison.compare import Compared, compare_artifacts, names_of
from servable.forge.comparison.frameworks import Frameworks, compare_frameworks
from servable.forge.comparison.page import compared_report, compared_table, frameworks_report, runs_table
from servable.forge.comparison.runs import BATCHES, COLD, RUNS, lines
from servable.forge.samples import from_file
from servable.report.blocks import Report, Table

FRAMEWORKS = "frameworks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is compared, how it is timed, and the forms of output."""
    parser.description = (
        "Times artifacts of one model at several batch sizes, each in a process of its own: a line 'min: ..., mean: "
        "..., max: ... // NAME' in seconds for each, 'skipped // NAME' for those that are not there; then size on "
        "disk, load, and how near they come to the first. 'servable compare frameworks' does so with the same small "
        "convolution network in Keras, PyTorch, TensorFlow, ONNX Runtime, OpenVINO and LiteRT."
    )
    parser.epilog = "exit codes: 0 done, 1 nothing could be measured or frameworks do not agree, 2 wrong usage"
    parser.add_argument("artifacts", nargs="+", metavar="A", help=f"artifacts, [NAME=]PATH; or the word {FRAMEWORKS}")
    timing = parser.add_argument_group("timing")
    timing.add_argument(
        "-b",
        "--batch",
        default=",".join(map(str, BATCHES)),
        metavar="N,...",
        help="batch sizes; default: %(default)s",
    )
    timing.add_argument("-n", "--runs", type=int, default=RUNS, metavar="N", help="timed runs; default: %(default)s")
    timing.add_argument("--cold", type=int, default=COLD, metavar="N", help="runs before them; default: %(default)s")
    timing.add_argument("--engine", metavar="NAME", help="run artifacts in this engine instead of each one's own")
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, metavar="FILE", help="inputs: .npz (with labels), .npy, JSON, images, log")
    data.add_argument("--samples", type=int, default=512, metavar="N", help="rows to take; default: %(default)s")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help=".json, .html, .md or .csv; repeatable",
    )
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--quiet", action="store_true", help="no lines of progress")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print."""
    batches = tuple(dict.fromkeys(numbers("--batch", arguments.batch, int, least=1)))
    if arguments.runs < 1 or arguments.cold < 0 or arguments.samples < 1:
        raise invalid_argument("--runs and --samples must be 1 or more, --cold 0 or more")
    if arguments.artifacts == [FRAMEWORKS]:
        return _frameworks(arguments, batches)
    return _artifacts(arguments, batches)


def _artifacts(arguments: argparse.Namespace, batches: tuple[int, ...]) -> int:
    given = [_named(text) for text in arguments.artifacts]
    names = names_of([path for _, path in given])
    named = [(name or derived, path) for (name, path), derived in zip(given, names, strict=True)]
    twice = {name for name, _ in named if [other for other, _ in named].count(name) > 1}
    if twice:
        raise invalid_argument(f"two artifacts are called {min(twice)}: give them names, NAME=PATH")
    data = arguments.data
    found = compare_artifacts(
        named,
        Timing(batches, arguments.runs, arguments.cold),
        data=None if data is None else lambda signature: from_file(data, signature, arguments.samples),
        engine=arguments.engine,
        report=lambda line: tell(arguments, line),
    )
    _put(arguments, found, found.lines(), compared_report(found), _csv_of(found))
    return DONE if any(one.runs() for one in found.figures) else FAILED


def _named(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    return (name, Path(path)) if separator and name and not Path(text).exists() else ("", Path(text))


def _csv_of(found: Compared) -> Table:
    return compared_table(found)


def _frameworks(arguments: argparse.Namespace, batches: tuple[int, ...]) -> int:
    if arguments.data is not None or arguments.engine is not None:
        raise invalid_argument(f"{FRAMEWORKS} brings its own model and data: --data and --engine are for artifacts")
    found = compare_frameworks(
        batches, runs=arguments.runs, cold=arguments.cold, report=lambda line: tell(arguments, line)
    )
    runs = {one.form.label: list(one.runs) for one in found.results}
    _put(arguments, found, lines(list(runs.items()), batches), frameworks_report(found), runs_table(runs, batches))
    measured = [one for one in found.results if one.max_abs is not None]
    return DONE if measured and all(one.agrees for one in measured) else FAILED


def _put(
    arguments: argparse.Namespace, found: Compared | Frameworks, written: list[str], report: Report, table: Table
) -> None:
    text = json.dumps(found.as_json(), indent=2) + "\n"
    for path in arguments.out:
        if path.suffix == ".json":
            put_text(text, path)
        else:
            put_report(report, table, path)
    if arguments.json:
        put_text(text)
        return
    for line in written:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write("\n")
    put_report(report, table)
