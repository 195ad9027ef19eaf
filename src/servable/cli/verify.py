"""``servable verify``: whether one artifact answers as another does."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

from servable.cli import DONE, FAILED
from servable.cli.forging import MODEL_HELP, add_data_arguments, print_verdict, write_json
from servable.forge.artifacts import find_source
from servable.forge.samples import from_file, made_up_for
from servable.forge.step_verdict import QUESTION_ROWS
from servable.forge.verify import BATCHES, EXACT, HALF, INT8, Tolerance, answers, compare, questions
from servable.forge.workshop import open_model

PRESETS = {"f32": EXACT, "half": HALF, "int8": INT8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two artifacts, what they are asked, and how far they may differ."""
    parser.description = (
        "Asks two artifacts the same at several batch sizes, each in its own engine, and compares the answers: "
        "differences, cosine, top class, NaN."
    )
    parser.epilog = "exit codes: 0 they agree, 1 they do not, or one does not load, 2 wrong usage"
    parser.add_argument("source", metavar="A", type=Path, help=f"the reference: {MODEL_HELP}")
    parser.add_argument("target", metavar="B", type=Path, help="the other one")
    parser.add_argument("--engine", metavar="NAME", help="load B with this engine instead of the one chosen")
    parser.add_argument("--signature", metavar="NAME", help="default: all that A has")
    parser.add_argument("--as", dest="renamed", metavar="NAME", help="what B calls the --signature")
    parser.add_argument(
        "--batch", default=",".join(map(str, BATCHES)), metavar="N,...", help="batch sizes; default: %(default)s"
    )
    add_data_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    group = parser.add_argument_group("tolerance")
    group.add_argument("--precision", choices=PRESETS, default="f32", help="where to start; default: %(default)s")
    group.add_argument("--rtol", type=float, metavar="X", help="|d| <= atol + rtol |reference|, for every element")
    group.add_argument("--atol", type=float, metavar="X")
    group.add_argument("--relative", type=float, metavar="X", help="largest difference over the largest value")
    group.add_argument("--cosine", type=float, metavar="X", help="at least")
    group.add_argument("--agreement", type=float, metavar="X", help="share of rows with the same top class, 0 to 1")


def run(arguments: argparse.Namespace) -> int:
    """Load both, ask both, print."""
    try:
        batches = tuple(int(word) for word in arguments.batch.split(","))
    except ValueError:
        batches = ()
    if not batches or min(batches) < 1:
        from servable.core.errors import invalid_argument

        raise invalid_argument(f"--batch takes sizes from 1 up, as 1,8,32; not {arguments.batch!r}")
    tolerance = _tolerance(arguments)
    reference = open_model(find_source(arguments.source))
    try:
        candidate = open_model(find_source(arguments.target), arguments.engine)
        try:
            asked = []
            for signature in reference.signatures.values():
                if arguments.signature in (None, signature.name):
                    samples = (
                        made_up_for(reference, signature, QUESTION_ROWS)
                        if arguments.data is None
                        else from_file(arguments.data, signature, arguments.samples)
                    )
                    asked += questions(signature, samples, batches, whole=arguments.data is not None)
            if not asked:
                from servable.core.errors import invalid_argument

                there = ", ".join(reference.signatures)
                raise invalid_argument(
                    f"{arguments.source} has no signature {arguments.signature!r}; there are {there}"
                )
            renamed = {arguments.signature: arguments.renamed} if arguments.signature and arguments.renamed else {}
            verdict = compare(asked, answers(reference, asked), answers(candidate, asked, renamed), tolerance)
        finally:
            candidate.close()
    finally:
        reference.close()
    if arguments.json:
        write_json(verdict.as_json())
    else:
        print_verdict(verdict)
    return DONE if verdict.ok else FAILED


def _tolerance(arguments: argparse.Namespace) -> Tolerance:
    given = {field.name: getattr(arguments, field.name) for field in fields(Tolerance)}
    return replace(PRESETS[arguments.precision], **{name: value for name, value in given.items() if value is not None})
