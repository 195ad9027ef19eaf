"""Command-line flags made from the declared options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import Field
from typing import Any

from servable.settings.options import models_help, option_fields
from servable.settings.values import default_text, from_text, is_list, kind


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each option. Flags that were not given leave no trace in the namespace."""
    parser.add_argument("models", nargs="*", metavar="[NAME=]PATH", help=models_help())
    for item in option_fields():
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": _help(item)}
        options |= {"type": _reader(item), "metavar": _metavar(item)}
        if is_list(item):
            options |= {"action": "append"}
        parser.add_argument(f"--{item.name}", **options)


def spell_out(words: Sequence[str]) -> list[str]:
    """Return the command line with ``--flag=true`` for a bare ``--flag``: a word that follows is not its value."""
    bare = {f"--{item.name}" for item in option_fields() if kind(item) is bool}
    return [f"{word}=true" if word in bare else word for word in words]


def _reader(item: Field[Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return from_text(item, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _metavar(item: Field[Any]) -> str:
    if kind(item) is bool:
        return "true|false"
    choices: tuple[str, ...] = item.metadata["choices"]
    return "{" + ",".join(choices) + "}" if choices else item.metadata["metavar"] or "VALUE"


def _help(item: Field[Any]) -> str:
    default = default_text(item)
    return f"{item.metadata['help']} (default: {default})" if default else str(item.metadata["help"])
