"""``servable export``: what was trained (a Keras file, code with a checkpoint) as a version that can be served."""

from __future__ import annotations

import argparse

from servable.cli.convert import add_model_arguments, check_text, options_of
from servable.cli.forging import add_step_arguments, run_step
from servable.core.errors import failed_precondition
from servable.forge.artifacts import find_source
from servable.forge.conversion.steps import KINDS, LIVE, step_between


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to export, and how it is to be called."""
    parser.description = (
        "Makes a version that can be served of a Keras file, or of code with a checkpoint, under a named signature "
        "that is serving_default too; compares it with the model itself and keeps it only if they agree."
    )
    parser.epilog = (
        "exit codes: 0 done and verified, 1 failed, nothing kept, 2 wrong usage; "
        "example: servable export train.py:build models/lstm --checkpoint lstm.weights.h5 --signature predict"
    )
    add_step_arguments(parser)
    parser.add_argument(
        "--to",
        choices=KINDS,
        default="saved_model",
        metavar="FORMAT",
        help=f"{', '.join(KINDS)}; default: %(default)s; of torch: torch_export, torchscript, onnx, openvino",
    )
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Find the step and do it."""
    source = find_source(arguments.source, arguments.model_version)
    if source.kind not in LIVE:
        raise failed_precondition(
            f"{source.path} can be served already ({source.kind}): servable convert makes other formats of it"
        )
    check_text(arguments, arguments.to)
    return run_step(step_between(source.kind, arguments.to), arguments, options=options_of(arguments, source.kind))
