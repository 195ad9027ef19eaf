"""The command line. A subcommand's module is imported when it is called, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

DONE, FAILED, WRONG_USAGE, MISSED = 0, 1, 2, 3

COMMANDS = {
    "serve": ("servable.cli.serve", "serve models over gRPC and REST"),
    "inspect": ("servable.cli.inspect", "show the signatures of an artifact or a served model"),
    "predict": ("servable.cli.predict", "call an artifact or a served model"),
    "export": ("servable.cli.export", "make a version to serve of a Keras file or of code with a checkpoint"),
    "convert": ("servable.cli.convert", "make another format of a model, verified"),
    "converters": ("servable.cli.converters", "list and install converters that have environments of their own"),
    "freeze": ("servable.cli.freeze", "turn variables into constants, fold what is constant, verified"),
    "verify": ("servable.cli.verify", "compare the answers of two artifacts"),
    "optimize": ("servable.cli.optimize", "make a model smaller and faster, step by step; report and publish the best"),
    "compare": ("servable.cli.compare", "time artifacts of one model, or one model in every framework, side by side"),
    "tune": ("servable.cli.tune", "find how a model runs fastest here, and leave a plan that serve follows"),
    "quantize": ("servable.cli.quantize", "make a model smaller and faster with smaller numbers, verified"),
    "check": ("servable.cli.check", "check that a model answers, alike each time, and what broken inputs do to it"),
    "profile": ("servable.cli.profile", "say where the time of a model goes: by operation, function or line"),
    "checklist": ("servable.cli.checklist", "say which steps to production a project has gone, and what goes the next"),
    "compress": ("servable.cli.compress", "prune, cluster, factorize, distil or binarize an ONNX model"),
    "status": ("servable.cli.status", "show what a running server has loaded"),
    "bench": ("servable.cli.bench", "measure a server with verified answers; compare servers and results"),
    "doctor": ("servable.cli.doctor", "say whether a server would work here, and what to mend"),
    "config": ("servable.cli.config", "print the JSON schema of servable.toml"),
    "warmup": ("servable.cli.warmup", "show or write the requests that a version runs before it is available"),
    "replay": ("servable.cli.replay", "send logged calls to a server again and compare the answers"),
    "example": ("servable.cli.example", "list and build the example models"),
}
"""Name -> module and summary.

A module has ``add_arguments(parser)``, ``run(arguments) -> exit code``, and perhaps ``rewrite(words) -> words``.
"""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the named command's own arguments are filled in."""
    parser = argparse.ArgumentParser(
        prog="servable",
        description="Takes a trained model and makes it a fast, verified, measured service.",
        epilog="exit codes: 0 done, 1 failed, 2 wrong usage, 3 an objective or threshold was missed",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        found = commands.add_parser(name, help=summary, description=summary + ".", allow_abbrev=False)
        if name == command:
            importlib.import_module(module).add_arguments(found)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from servable.core.errors import ServingError

    words = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in words if not word.startswith("-")), None)
    parser = build_parser(command)
    if command in COMMANDS:
        module: Any = importlib.import_module(COMMANDS[command][0])
        try:
            words = getattr(module, "rewrite", list)(words)
        except ServingError as error:
            sys.stderr.write(f"servable {command}: {error.message}\n")
            return WRONG_USAGE
    parsed = parser.parse_args(words)
    if parsed.version:
        from importlib.metadata import version

        sys.stdout.write(f"servable {version('servable')}\n")
        return DONE
    if parsed.command is None:
        parser.print_help(sys.stderr)
        return WRONG_USAGE
    return _run(parsed)


def _run(parsed: argparse.Namespace) -> int:
    from servable.core.errors import ServingError
    from servable.core.scratch import EndedError, orderly_end

    module: Any = importlib.import_module(COMMANDS[parsed.command][0])
    try:
        # A server has its own way to end: it answers what it has begun.
        with contextlib.nullcontext() if parsed.command == "serve" else orderly_end():
            return int(module.run(parsed))
    except ServingError as error:
        sys.stderr.write(f"servable {parsed.command}: {error.message}\n")
    except EndedError as error:
        return 128 + error.number
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        pass
    except OSError as error:  # a full disk, say, where nobody knew better
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"servable {parsed.command}: {where}{error.strerror or error}\n")
    return FAILED
