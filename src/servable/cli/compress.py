"""``servable compress prune|cluster|lowrank|distill|xnor|report``: smaller networks, and what they cost in accuracy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from servable.cli import DONE, FAILED
from servable.cli.forging import (
    MODEL_HELP,
    OUT_HELP,
    add_data_arguments,
    add_output_arguments,
    add_step_arguments,
    data_of,
    print_outcome,
    print_verdict,
    signature_of,
    source_of,
    tell,
    write_json,
)
from servable.core.errors import failed_precondition
from servable.engines.base import Artifact
from servable.forge.artifacts import find_source
from servable.forge.compression.compress import MAX_DROP, Compressed, compress
from servable.forge.reference import Judged
from servable.forge.samples import MOST_ROWS
from servable.forge.steps import step_named
from servable.forge.workshop import NotVerifiedError

_VERBS = {
    "prune": "set the smallest weights to zero, or cut channels out",
    "cluster": "let each layer's weights share a few values",
    "lowrank": "split wide layers into two thin ones",
    "distill": "train a smaller network on what a larger one answers",
    "xnor": "train weights and inputs of one bit, and count bits",
}

_SIGNS = {"openvino": "xnor", "python": "xnor-packed", "onnx": "xnor-signs"}
"""Forms of a network of signs -> the step that writes them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a verb for each way."""
    parser.description = (
        "Compresses an ONNX model. With --data it is trained on three quarters of the rows, against the labels in them "
        "and what the model itself answers, and judged by the last quarter; nothing is kept if accuracy (without "
        "labels: the top class) suffers more than --max-drop."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    added = {}
    for verb, summary in _VERBS.items():
        added[verb] = verbs.add_parser(verb, help=summary, description=summary + ".", allow_abbrev=False)
        if verb == "distill":
            _add_distill_arguments(added[verb])
        else:
            add_step_arguments(added[verb])
        added[verb].set_defaults(samples=MOST_ROWS)
        _add_training_arguments(added[verb])
    _add_own_arguments(added)
    report = verbs.add_parser("report", help="every way, on a small network and pictures made here", allow_abbrev=False)
    report.add_argument("--out", type=Path, metavar="FILE", help="write the page (Markdown) there too")
    report.add_argument("--keep", type=Path, metavar="DIR", help="keep the models and pictures.npz there")
    report.add_argument("--rows", type=int, default=2400, metavar="N", help="pictures; default: %(default)s")
    report.add_argument("--epochs", type=int, default=10, metavar="N", help="of each training; default: %(default)s")
    report.add_argument("--seed", type=int, default=1, metavar="N", help="default: %(default)s")
    add_output_arguments(report)


def run(arguments: argparse.Namespace) -> int:
    """Do one step, or all for the report."""
    if arguments.verb == "report":
        return _report(arguments)
    source = source_of(arguments)
    if source.kind != "onnx":
        raise failed_precondition(
            f"{source.path} is {source.kind}, and ONNX models are compressed: "
            f"servable convert {arguments.source} FOLDER --to onnx"
        )
    data = None if arguments.data is None else data_of(arguments, signature_of(source))
    name, options = _step_of(arguments)
    try:
        done = compress(
            step_named(name),
            source,
            arguments.target,
            data=data,
            options={**options, **_training_of(arguments), "keep": getattr(arguments, "keep", [])},
            max_drop=arguments.max_drop,
            engine=arguments.engine,
            report=lambda line: tell(arguments, line),
        )
    except NotVerifiedError as error:
        if arguments.json:
            write_json({"step": name, "error": error.message, "facts": error.facts, "verdict": error.verdict.as_json()})
        else:
            print_verdict(error.verdict)
        sys.stderr.write(f"servable compress: {error.message}; nothing was kept\n")
        return FAILED
    _print(done, as_json=arguments.json)
    return DONE


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-drop",
        type=float,
        default=MAX_DROP,
        metavar="X",
        help="accuracy that may be lost, as a share; default: %(default)s",
    )
    group = parser.add_argument_group("training (with --data; torch)")
    group.add_argument("--epochs", type=int, metavar="N", help="0: data only judges; default: 8 (xnor: 16)")
    group.add_argument(
        "--rate", type=float, metavar="X", help="highest learning rate; default: 0.001 (cluster: 0.0001, xnor: 0.005)"
    )
    group.add_argument("--batch", type=int, metavar="N", help="rows of a step; default: 64")
    group.add_argument("--seed", type=int, metavar="N", help="default: 0")


def _add_own_arguments(added: dict[str, argparse.ArgumentParser]) -> None:
    prune = added["prune"]
    prune.add_argument("--sparsity", type=float, default=0.5, metavar="X", help="share that goes; default: %(default)s")
    prune.add_argument(
        "--channels", action="store_true", help="cut channels out, of each layer that share: less to compute"
    )
    added["cluster"].add_argument(
        "--clusters", type=int, default=16, metavar="N", help="values a layer, 2 to 256; default: %(default)s"
    )
    added["lowrank"].add_argument(
        "--energy",
        type=float,
        default=0.9,
        metavar="X",
        help="share of a layer's squares to keep; default: %(default)s",
    )
    for verb in ("prune", "cluster", "lowrank", "xnor"):
        added[verb].add_argument(
            "--keep", metavar="NAME", action="append", default=[], help="leave a layer as it is: its kernel or its node"
        )
    added["xnor"].add_argument(
        "--to",
        choices=list(_SIGNS),
        default="openvino",
        help="openvino: its own binary layers; python: bits packed and counted in numpy; onnx: +1 and -1 multiplied, "
        "for every engine; default: %(default)s",
    )


def _add_distill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="B", type=Path, help=OUT_HELP)
    parser.add_argument("--teacher", dest="source", metavar="A", type=Path, required=True, help=MODEL_HELP)
    parser.add_argument(
        "--student", metavar="ONNX", type=Path, required=True, help="the smaller network, trained or not"
    )
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="of A; default: the newest")
    parser.add_argument("--temperature", type=float, default=3.0, metavar="X", help="default: %(default)s")
    add_data_arguments(parser)
    parser.add_argument("--engine", metavar="NAME", help="verify the result in this engine instead of its own")
    add_output_arguments(parser)


def _step_of(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the step and its own options."""
    if arguments.verb == "prune":
        if arguments.channels:
            return "prune-channels", {"share": arguments.sparsity}
        return "prune", {"sparsity": arguments.sparsity}
    if arguments.verb == "cluster":
        return "cluster", {"clusters": arguments.clusters}
    if arguments.verb == "lowrank":
        return "lowrank", {"energy": arguments.energy}
    if arguments.verb == "distill":
        student = _student(arguments.student)
        return "distill", {"student": str(student.path.absolute()), "temperature": arguments.temperature}
    return _SIGNS[arguments.to], {}


def _student(path: Path) -> Artifact:
    student = find_source(path)
    if student.kind != "onnx":
        raise failed_precondition(f"{path} is {student.kind}; a student is an ONNX model")
    return student


def _training_of(arguments: argparse.Namespace) -> dict[str, Any]:
    asked = {name: getattr(arguments, name) for name in ("epochs", "rate", "batch", "seed")}
    for name, value in asked.items():
        if value is not None and (value < 0 or (value == 0 and name in {"rate", "batch"})):
            raise failed_precondition(
                f"--{name} is {'0 or more' if name in {'epochs', 'seed'} else 'above 0'}, not {value}"
            )
    return {name: value for name, value in asked.items() if value is not None}


def _print(done: Compressed, *, as_json: bool) -> None:
    if as_json:
        write_json(done.as_json())
        return
    print_outcome(done.outcome)
    _print_judged("before", done.before)
    _print_judged("after", done.after)


def _print_judged(when: str, judged: Judged) -> None:
    words = [] if judged.accuracy is None else [f"accuracy {judged.accuracy:.1%}"]
    words += [] if judged.agreement is None else [f"top class of the source {judged.agreement:.1%}"]
    sys.stdout.write(f"{when}: {', '.join(words) or 'no classes to compare'} ({judged.rows} rows)\n")


def _report(arguments: argparse.Namespace) -> int:
    from servable.forge.compression.report import Plan, as_json, as_page, make

    plan = Plan(rows=arguments.rows, epochs=arguments.epochs, seed=arguments.seed, keep=arguments.keep)
    found = make(plan, lambda line: tell(arguments, line))
    page = as_page(found)
    if arguments.out is not None:
        arguments.out.write_text(page)
    if arguments.json:
        write_json(as_json(found))
    else:
        sys.stdout.write(page)
    return DONE
