"""``servable check``: whether a model answers, alike each time, to what it knows and to what is broken."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from servable.cli import DONE, FAILED
from servable.cli.bench_options import range_of, shape_of
from servable.cli.check_subjects import open_subject
from servable.cli.reports import add_form, put_report, put_text
from servable.cli.targets import TARGET_HELP
from servable.core.errors import invalid_argument, not_found
from servable.core.tensors import ATOL, RTOL
from servable.forge.check.corruption import POLICIES
from servable.forge.check.examination import Examination, Options
from servable.forge.check.findings import SUITES, Finding
from servable.forge.check.ranges import learn, write_document
from servable.forge.check.report import report_of, table_of
from servable.forge.check.suites import examine, suites_named
from servable.forge.verify import Tolerance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the target, what to check and with what."""
    parser.description = (
        "Checks that a model answers as its signatures say, that it is the same when it is loaded again, that its "
        "answers do not depend on when and in whose company they are asked, what becomes of broken inputs, and, with a "
        "profile, whether inputs and outputs are where they used to be."
    )
    parser.epilog = "exit codes: 0 nothing failed, 1 a check failed, 2 wrong usage"
    parser.add_argument("target", metavar="MODEL", help=TARGET_HELP)
    parser.add_argument("--suite", default="all", metavar="NAME,...", help=f"all, or of {', '.join(SUITES)}")
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="default: the newest")
    parser.add_argument("--engine", metavar="NAME", help="for an artifact: the engine to run it with")
    parser.add_argument("--signature", default="", metavar="NAME", help="default: every signature")
    inputs = parser.add_argument_group("inputs")
    inputs.add_argument(
        "--data", type=Path, metavar="FILE", help=".npz, .npy, JSON, a folder of images, a request log; else made up"
    )
    inputs.add_argument("--rows", type=int, default=0, metavar="N", help="at most so many; default: 4096, 64 made up")
    inputs.add_argument("--seed", type=int, default=0, metavar="N", help="of made-up inputs; default: %(default)s")
    inputs.add_argument("--shape", action="append", default=[], metavar="NAME=2,3", help="of a row; repeatable")
    inputs.add_argument("--range", action="append", default=[], metavar="NAME=LOW:BELOW", help="repeatable")
    limits = parser.add_argument_group("what is expected")
    limits.add_argument("--profile", type=Path, metavar="FILE", help="ranges and distributions to compare with")
    limits.add_argument("--learn", type=Path, metavar="FILE", help="write such a profile, and check nothing")
    limits.add_argument("--known", type=Path, metavar="FILE", help="questions that are known to be answered wrongly")
    limits.add_argument(
        "--nan", choices=POLICIES, default="any", help="what must become of NaN and Inf; default: %(default)s"
    )
    limits.add_argument("--runs", type=int, default=20, metavar="N", help="of the same batch; default: %(default)s")
    limits.add_argument("--rtol", type=float, default=RTOL, metavar="X", help="default: %(default)g")
    limits.add_argument("--atol", type=float, default=ATOL, metavar="X", help="default: %(default)g")
    add_form(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check and print, or learn."""
    suites = suites_named(arguments.suite)
    options = _options(arguments)
    subject = open_subject(arguments.target, arguments.model_version, arguments.engine)
    try:
        examination = Examination(subject, options)
        if arguments.learn is not None:
            return _learn(examination, arguments.learn)
        examined = examine(examination, suites, _progress)
    finally:
        subject.close()
        _clear()
    if arguments.json:
        put_text(json.dumps(examined.as_json(), indent=2) + "\n", arguments.out)
    else:
        put_report(report_of(examined), table_of(examined), arguments.out, arguments.format)
    return DONE if examined.ok else FAILED


def _options(arguments: argparse.Namespace) -> Options:
    if arguments.runs < 1:
        raise invalid_argument(f"--runs {arguments.runs} is too few: at least 1")
    for path in (arguments.data, arguments.profile, arguments.known):
        if path is not None and not path.exists():
            raise not_found(f"there is no {path}")
    if arguments.rows < 0:
        raise invalid_argument(f"--rows {arguments.rows} is too few: at least 1")
    return Options(
        data=arguments.data,
        profile=arguments.profile,
        known=arguments.known,
        signature=arguments.signature,
        runs=arguments.runs,
        rows=arguments.rows,
        seed=arguments.seed,
        nan=arguments.nan,
        tolerance=Tolerance(arguments.rtol, arguments.atol),
        shapes=dict(shape_of(text) for text in arguments.shape),
        ranges=dict(range_of(text) for text in arguments.range),
    )


def _learn(examination: Examination, path: Path) -> int:
    document = learn(examination)
    write_document(path, document)
    tensors = sum(len(names) for sides in document["signatures"].values() for names in sides.values())
    sys.stdout.write(f"{path}: {tensors} tensors learnt\n")
    sys.stdout.write("".join(f"inputs of {origin}\n" for origin in examination.origins()))
    return DONE


def _progress(finding: Finding) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{finding.suite}: {finding.name}: {finding.state.value}")
        sys.stderr.flush()


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
