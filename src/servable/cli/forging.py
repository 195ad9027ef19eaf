"""What the commands of the forge share: progress, data, the table of a verdict, the end of a step."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servable.cli import DONE, FAILED
from servable.cli.tables import print_table
from servable.core.signatures import Signature, main_signature
from servable.engines.base import Artifact
from servable.forge.artifacts import find_source
from servable.forge.samples import Samples, from_file
from servable.forge.steps import Step
from servable.forge.verify import Tolerance, Verdict
from servable.forge.workshop import NotVerifiedError, Outcome, open_model, perform

MODEL_HELP = "an artifact, a version's folder, or a model's folder (its newest version)"
OUT_HELP = "a model's folder (the next version is made), a version's folder (its name is a number), or a file"


def add_step_arguments(parser: argparse.ArgumentParser) -> None:
    """Add source, destination, data and the forms of output, which all steps have."""
    parser.add_argument("source", metavar="A", type=Path, help=MODEL_HELP)
    parser.add_argument("target", metavar="B", type=Path, help=OUT_HELP)
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="of A; default: the newest")
    add_data_arguments(parser)
    parser.add_argument("--engine", metavar="NAME", help="verify the result in this engine instead of its own")
    add_output_arguments(parser)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where inputs come from."""
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="inputs: .npz, .npy, JSON, a folder of images, a request log"
    )
    parser.add_argument(
        "--samples", type=int, default=512, metavar="N", help="rows to take of it; default: %(default)s"
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the forms of output."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="no lines of progress")


def source_of(arguments: argparse.Namespace) -> Artifact:
    """Return the artifact that a command works on."""
    return find_source(arguments.source, arguments.model_version)


def data_of(arguments: argparse.Namespace, signature: Signature) -> Samples | None:
    """Return the rows of ``--data``, ``None`` without it."""
    return None if arguments.data is None else from_file(arguments.data, signature, arguments.samples)


def signature_of(source: Artifact, wanted: str = "") -> Signature:
    """Return a signature of an artifact, loaded as the server would; by default the one that requests mean."""
    model = open_model(source)
    try:
        return main_signature(model.signatures, wanted)
    finally:
        model.close()


def tell(arguments: argparse.Namespace, line: str) -> None:
    """Write a line of progress for a person who waits."""
    if not arguments.quiet:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def run_step(
    step: Step,
    arguments: argparse.Namespace,
    *,
    options: Mapping[str, Any] | None = None,
    tolerance: Tolerance | None = None,
) -> int:
    """Do one step for a command line and print what came of it; a result that was refused is told with its table."""
    source = source_of(arguments)
    data = None if arguments.data is None else data_of(arguments, signature_of(source))
    try:
        outcome = perform(
            step,
            source,
            arguments.target,
            data=data,
            options=options,
            tolerance=tolerance,
            engine=arguments.engine,
            report=lambda line: tell(arguments, line),
        )
    except NotVerifiedError as error:
        if arguments.json:
            document = {"step": step.name, "error": error.message, "facts": error.facts}
            write_json({**document, "verdict": error.verdict.as_json()})
        else:
            print_verdict(error.verdict)
        sys.stderr.write(f"servable {arguments.command}: {error.message}; nothing was kept\n")
        return FAILED
    print_outcome(outcome, as_json=arguments.json)
    return DONE


def print_outcome(outcome: Outcome, *, as_json: bool = False) -> None:
    """Print what a step made."""
    if as_json:
        write_json(outcome.as_json())
        return
    before, after = outcome.bytes_before, outcome.bytes_after
    sys.stdout.write(f"{outcome.step}: {outcome.artifact.path} in {outcome.seconds:.1f} s\n")
    was = f"{before:,} -> " if before else ""  # code has no size
    sys.stdout.write(f"size: {was}{after:,} bytes" + (f" ({after / before:.2f} x)\n" if before else "\n"))
    if outcome.calibration:
        sys.stdout.write(f"calibrated with: {outcome.calibration}\n")
    for key, value in outcome.facts.items():
        if key == "notes":
            for note in value:
                sys.stdout.write(f"note: {note}\n")
        elif key != "signatures":
            sys.stdout.write(f"{key}: {_fact(value)}\n")
    print_verdict(outcome.verdict)


def print_verdict(verdict: Verdict) -> None:
    """Print the table of a comparison."""
    columns = ("signature", "output", "batch", "rows", "max |d|", "relative", "cosine", "same top class", "NaN", "")
    rows = [
        (
            one.signature,
            one.output,
            str(one.rows),
            str(one.asked),
            f"{one.distance.max_abs:.3g}",
            f"{one.distance.relative:.3g}",
            "" if one.distance.cosine is None else f"{one.distance.cosine:.6f}",
            "" if one.distance.agreement is None else f"{100 * one.distance.agreement:.1f} %",
            one.distance.nan,
            one.fault or "ok",
        )
        for one in verdict.differences
    ]
    print_table(columns, rows)
    for note in verdict.notes:
        sys.stdout.write(f"note: {note}\n")
    reasons = {one.fault for one in verdict.differences}
    judged = [fault for fault in verdict.faults if not any(reason and reason in fault for reason in reasons)]
    sys.stdout.write(f"verified: {'yes' if verdict.ok else 'NO'} ({'; '.join(judged) or verdict.tolerance})\n")


def write_json(document: Any) -> None:
    """Print a document."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
