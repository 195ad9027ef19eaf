"""``servable quantize``: smaller numbers, verified against the source."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from servable.cli import DONE, FAILED, WRONG_USAGE
from servable.cli.forging import (
    MODEL_HELP,
    OUT_HELP,
    add_data_arguments,
    add_output_arguments,
    print_outcome,
    print_verdict,
    signature_of,
    source_of,
    tell,
    write_json,
)
from servable.core.errors import ServingError
from servable.engines.base import Artifact
from servable.forge.quantization.integers import FLOATS, TYPES
from servable.forge.quantization.quantize import Wish, check_rows, methods_asked, quantize, read_labels, with_labels
from servable.forge.quantization.rows import CALIBRATE
from servable.forge.quantization.steps import ENGINES, METHODS, TOOLCHAINS
from servable.forge.samples import Samples, from_file
from servable.forge.workshop import NotVerifiedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two places, the methods, data, and what is to be held."""
    parser.description = (
        "Makes a smaller form of a model and compares its answers with the source's, in the engine that is to run it; "
        "one that answers differently is not kept."
    )
    parser.epilog = "exit codes: 0 done, 1 failed or not as good as asked for (nothing is kept), 2 wrong usage"
    parser.add_argument("source", metavar="A", type=Path, help=MODEL_HELP)
    parser.add_argument("target", metavar="B", type=Path, help=OUT_HELP)
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="of A; default: the newest")
    methods = parser.add_argument_group("method, one of")
    for name, summary in METHODS.items():
        methods.add_argument(f"--{name}", dest=name, action="store_true", help=summary)
    parser.add_argument(
        "--engine", choices=tuple(ENGINES), help="make it for this engine; default: the one that serves the source"
    )
    parser.add_argument(
        "--toolchain",
        choices=TOOLCHAINS,
        default=TOOLCHAINS[0],
        help="what makes an ONNX file --int8; default: %(default)s",
    )
    parser.add_argument(
        "--keep-float",
        nargs="+",
        default=[],
        metavar="NODE|TYPE",
        help="operations that stay as they are, by name or type",
    )
    parser.add_argument("--signature", default="", metavar="NAME", help="of a SavedModel; default: serving_default")
    parser.add_argument(
        "--io",
        choices=TYPES,
        default=FLOATS,
        help="what goes into a TFLite file --int8 and comes out; default: %(default)s",
    )
    parser.add_argument(
        "--input-stats",
        type=_numbers,
        metavar="MEAN,STD",
        help="an integer q that goes in stands for (q - MEAN) / STD, as 128,128; default: what calibration finds",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--calibrate",
        type=int,
        default=CALIBRATE,
        metavar="N",
        help="the first N of these rows calibrate; default: %(default)s",
    )
    held = parser.add_argument_group("what is to be held")
    held.add_argument(
        "--max-drop", type=float, metavar="X",
        help="of accuracy (without labels: of agreement with A), 0.01 is 1 of 100 rows; the worst layers stay in float",
    )  # fmt: skip
    held.add_argument(
        "--labels", type=Path, metavar="FILE", help="right classes, one a row: .npy, .json, or a number a line"
    )
    held.add_argument(
        "--output", default="", metavar="NAME", help="the output that holds the scores; default: the first that can"
    )
    held.add_argument(
        "--min-agreement", type=float, metavar="X",
        help="least share of rows with the same top class; default: 0.99 if there are 100 rows of --data",
    )  # fmt: skip
    add_output_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it and print what came of it."""
    try:
        method = methods_asked({name: getattr(arguments, name) for name in METHODS})
        _check(arguments)
    except ServingError as error:
        sys.stderr.write(f"servable quantize: {error.message}\n")
        return WRONG_USAGE
    wish = Wish(
        method,
        arguments.engine,
        arguments.toolchain,
        tuple(arguments.keep_float),
        arguments.calibrate,
        arguments.max_drop,
        arguments.min_agreement,
        arguments.output,
        arguments.signature,
        arguments.io,
        arguments.input_stats,
    )
    source = source_of(arguments)
    wish.step(source.kind)  # what cannot be done is said before data is read
    try:
        done = quantize(
            source, arguments.target, wish, data=_data(arguments, source), report=lambda line: tell(arguments, line)
        )
    except NotVerifiedError as error:
        if arguments.json:
            write_json({"error": error.message, "facts": error.facts, "verdict": error.verdict.as_json()})
        else:
            print_verdict(error.verdict)
        sys.stderr.write(f"servable quantize: {error.message}; nothing was kept\n")
        return FAILED
    if arguments.json:
        write_json(done.as_json())
        return DONE
    print_outcome(done.outcome)
    agreed, rows = done.outcome.verdict.agreed
    if rows:
        sys.stdout.write(f"the same top class as the source: {agreed} of {rows} rows ({100 * agreed / rows:.2f} %)\n")
    if done.accuracy is not None:
        before, after = done.accuracy
        sys.stdout.write(f"accuracy: {100 * before:.2f} % -> {100 * after:.2f} %\n")
    return DONE


def _numbers(words: str) -> tuple[float, ...]:
    return tuple(float(word) for word in words.split(","))


def _check(arguments: argparse.Namespace) -> None:
    from servable.core.errors import invalid_argument

    for name in ("samples", "calibrate"):
        if getattr(arguments, name) < 1:
            raise invalid_argument(f"--{name} is 1 or more, not {getattr(arguments, name)}")
    for name in ("max_drop", "min_agreement"):
        share = getattr(arguments, name)
        if share is not None and not 0 <= share <= 1:
            raise invalid_argument(f"--{name.replace('_', '-')} is a share from 0 to 1, not {share:g}")
    if arguments.labels is not None and arguments.data is None:
        raise invalid_argument("--labels belong to the rows of --data, which is not given")


def _data(arguments: argparse.Namespace, source: Artifact) -> Samples | None:
    if arguments.data is None:
        return None
    signature = signature_of(source, arguments.signature)
    data = from_file(arguments.data, signature, arguments.samples)
    check_rows(data, signature)
    if arguments.labels is not None:
        data = with_labels(data, read_labels(arguments.labels), whole=len(data) < arguments.samples)
    return data
