"""``servable freeze``: variables to constants, and on request folded; what each step removed is told."""

from __future__ import annotations

import argparse

from servable.cli.convert import add_model_arguments, options_of
from servable.cli.forging import add_step_arguments, run_step
from servable.core.errors import failed_precondition
from servable.forge.artifacts import find_source
from servable.forge.conversion.freeze_steps import REWRITE, fold_step
from servable.forge.conversion.steps import step_between

_FROZEN = frozenset({"graph_def", "onnx", "openvino", "tflite", "torch_export", "torchscript"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to freeze."""
    parser.description = (
        "Turns the variables of a SavedModel, a Keras file, or code with a checkpoint into constants: one file, "
        "graph.pb, that needs no code, with its signature in servable.toml beside it; with --text as text, "
        "graph.pbtxt, which is served too. With --fold, folds constants and batch normalization of a model that is "
        "frozen already, with its framework's own optimizer."
    )
    parser.epilog = "exit codes: 0 done and verified, 1 failed, nothing kept, 2 wrong usage"
    add_step_arguments(parser)
    parser.add_argument("--fold", action="store_true", help="fold a frozen graph, an ONNX file or OpenVINO's IR")
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Freeze or fold."""
    source = find_source(arguments.source, arguments.model_version)
    if arguments.fold:
        return run_step(fold_step(source.kind), arguments, options=options_of(arguments, source.kind))
    if arguments.text and source.kind == "graph_def":
        return run_step(REWRITE, arguments, options={"text": True})
    if source.kind in _FROZEN:
        raise failed_precondition(f"{source.path} is frozen already ({source.kind}); fold it: servable freeze --fold")
    return run_step(step_between(source.kind, "graph_def"), arguments, options=options_of(arguments, source.kind))
