"""``servable convert``: an artifact, a Keras file, or code with a checkpoint, as another format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from servable.cli import WRONG_USAGE
from servable.cli.forging import add_step_arguments, run_step
from servable.core.errors import invalid_argument
from servable.forge.artifacts import find_source
from servable.forge.conversion.freeze_steps import REWRITE
from servable.forge.conversion.steps import KINDS, LIVE, step_between

SOURCE_HELP = (
    "an artifact, a version's folder, a model's folder (its newest version), a .keras or .h5 file, or code: "
    "FILE.py:FUNCTION or MODULE:FUNCTION, which returns a Keras model, a tf.Module, or (torch module, inputs)"
)
_SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".tflite": "tflite", ".pt2": "torch_export", ".pt": "torchscript",
             ".pb": "graph_def", ".pbtxt": "graph_def"}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to convert, to what, and how it is called."""
    parser.description = (
        "Makes another format of a model, compares what both answer at several batch sizes, and keeps the result "
        "only if they agree. Names, types, free dimensions and signatures survive. PyTorch and ONNX become TFLite by a "
        "converter in an environment of its own: servable converters list."
    )
    parser.epilog = (
        "exit codes: 0 done and verified, 1 failed, nothing kept, 2 wrong usage; "
        "example: servable convert models/text_cnn models/text_cnn_onnx --to onnx"
    )
    add_step_arguments(parser)
    parser.add_argument("--to", choices=KINDS, metavar="FORMAT", help=f"{', '.join(KINDS)}; default: by B's suffix")
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how the model is called, and where code and weights come from."""
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way to reword a shared argument
        if action.dest == "source":
            action.help = SOURCE_HELP
    parser.add_argument("--signature", metavar="NAME", help="the one to convert, or to give; default: serving_default")
    parser.add_argument("--batch", type=int, metavar="N", help="fix the batch; default: free")
    parser.add_argument("--text", action="store_true", help="write a frozen graph as text, graph.pbtxt")
    group = parser.add_argument_group("Keras files and code")
    group.add_argument(
        "--checkpoint", metavar="FILE", help="weights: .weights.h5, a TensorFlow checkpoint, a state dict"
    )
    group.add_argument("--code", metavar="FILE", help="a file or module to import first: a Keras file's own layers")
    group.add_argument(
        "--inputs", nargs="+", metavar="NAME=TYPE", help="names, types and shapes, as x=float32[?,3]; default: its own"
    )
    group.add_argument("--outputs", nargs="+", metavar="NAME", help="names, in the model's order; default: its own")


def run(arguments: argparse.Namespace) -> int:
    """Find the step and do it."""
    source = find_source(arguments.source, arguments.model_version)
    kind = arguments.to or _SUFFIXES.get(arguments.target.suffix)
    if kind is None:
        sys.stderr.write(f"servable convert: {arguments.target} does not say what to make: give --to FORMAT\n")
        return WRONG_USAGE
    check_text(arguments, kind)
    is_other = kind == source.kind == "graph_def" and arguments.text != (source.path.suffix == ".pbtxt")
    step = REWRITE if is_other else step_between(source.kind, kind)
    return run_step(step, arguments, options=options_of(arguments, source.kind))


def check_text(arguments: argparse.Namespace, kind: str) -> None:
    """Refuse ``--text`` of a kind that has no form of text."""
    if arguments.text and kind != "graph_def":
        raise invalid_argument(
            f"--text is for frozen graphs (graph_def), and this makes {kind}; servable inspect --text writes the graph "
            "of any model for people to read"
        )


def options_of(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Return the options of a step on a source of that kind; INVALID_ARGUMENT names one that does not fit."""
    if arguments.batch is not None and arguments.batch < 1:
        raise invalid_argument(f"--batch is a number from 1 up, not {arguments.batch}")
    if kind not in LIVE:
        for name in ("checkpoint", "code", "inputs", "outputs"):
            if getattr(arguments, name) is not None:
                raise invalid_argument(f"--{name} is for Keras files and code; this is {kind}")
    if kind == "checkpoint" and arguments.code:
        raise invalid_argument("--code is for Keras files; here the source is the code")
    if kind == "keras" and arguments.checkpoint:
        raise invalid_argument("a Keras file has its weights within; --checkpoint is for code")
    options = {
        "signature": arguments.signature,
        "batch": arguments.batch,
        "text": arguments.text or None,
        "checkpoint": _absolute(arguments.checkpoint),
        "code": str(arguments.source) if kind == "checkpoint" else arguments.code,
        "inputs": _inputs(arguments.inputs),
        "outputs": arguments.outputs,
    }
    return {name: value for name, value in options.items() if value is not None}


def _inputs(words: list[str] | None) -> dict[str, str] | None:
    if words is None:
        return None
    found = {}
    for word in words:
        name, separator, said = word.partition("=")
        if not separator or not name or not said:
            raise invalid_argument(f"--inputs takes NAME=TYPE[SHAPE], such as x=float32[?,3]; not {word!r}")
        found[name] = said
    return found


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())
