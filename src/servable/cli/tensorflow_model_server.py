"""The command ``tensorflow_model_server``: ``servable serve`` with TensorFlow Serving's defaults and last words."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata

from servable.cli import WRONG_USAGE
from servable.cli.serve import serve
from servable.core.errors import ServingError, invalid_argument
from servable.settings import ServeSettings, add_flags, read_settings, spell_out

DEFAULTS = {"host": "0.0.0.0", "port": 8500}  # noqa: S104  # as TensorFlow Serving's, which nobody reaches otherwise
LOG_LEVELS = ("info", "warning", "error", "error")
"""What ``TF_CPP_MIN_LOG_LEVEL`` counts."""
NOT_STARTED = 255
"""What TensorFlow Serving ends with when it cannot start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve, and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if {"--version", "--version=true"} & set(words):
        sys.stdout.write(_versions())
        return 0
    parser = argparse.ArgumentParser(
        prog="tensorflow_model_server",
        usage="tensorflow_model_server [--FLAG[=VALUE] ...]",
        description=(
            "A drop-in for TensorFlow Serving: `servable serve` with its defaults, which are --host=0.0.0.0 and "
            "--port=8500, without REST."
        ),
        allow_abbrev=False,
    )
    add_flags(parser)
    try:
        words = spell_out(words, {"version"})
    except ServingError as error:
        sys.stderr.write(f"tensorflow_model_server: {error.message}\n")
        return WRONG_USAGE
    given = {name: value for name, value in vars(parser.parse_args(words)).items() if name != "version"}
    try:
        settings = read_settings(given, defaults={**DEFAULTS, "log_level": _log_level(os.environ)})
        _check(settings)
        return serve(settings) and NOT_STARTED
    except ServingError as error:
        sys.stdout.write(f"Failed to start server. Error: {error.code.name}: {error.message}\n")
        return NOT_STARTED
    except KeyboardInterrupt:
        return 130


def _check(settings: ServeSettings) -> None:
    """Refuse what TensorFlow Serving refuses before all else, in its words."""
    if not settings.port and not settings.grpc_socket_path and not settings.listen:
        raise invalid_argument(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
        )
    if not (settings.model_config_file or settings.model_base_path or settings.models or settings.tables):
        raise invalid_argument("Both server_options.model_base_path and server_options.model_config_file are empty!")


def _log_level(environment: Mapping[str, str]) -> str:
    """Return the level that TensorFlow's variables ask for; what they say wrongly is passed over, as there."""
    least, verbose = (environment.get(f"TF_CPP_{name}_LEVEL", "") for name in ("MIN_LOG", "MAX_VLOG"))
    if verbose.isdecimal() and int(verbose):
        return "debug"
    return LOG_LEVELS[min(int(least), len(LOG_LEVELS) - 1)] if least.isdecimal() else LOG_LEVELS[0]


def _versions() -> str:
    """Return TensorFlow Serving's two lines, with what is here instead."""
    try:
        library = metadata.version("tensorflow-cpu")
    except metadata.PackageNotFoundError:
        library = "not installed"
    return f"TensorFlow ModelServer: servable {metadata.version('servable')}\nTensorFlow Library: {library}\n"


if __name__ == "__main__":
    sys.exit(main())
