"""Command-line flags made from the declared options, and those of TensorFlow Serving that change nothing here."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import Field
from typing import Any

from servable.settings.options import models_help, option_fields
from servable.settings.tfserving_flags import IDLE, check_idle, refuse_unknown
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
    idle = parser.add_argument_group("accepted from TensorFlow Serving, without effect")
    for name, flag in IDLE.items():
        idle.add_argument(
            f"--{name}",
            dest="without_effect",
            default=argparse.SUPPRESS,
            action="append",
            type=_idle_reader(name),
            metavar="true|false" if flag.kind is bool else "VALUE",
            help=flag.reason,
        )


def spell_out(words: Sequence[str], others: Collection[str] = ()) -> list[str]:
    """Return the command line as argparse can read it, with ``--flag=true`` for ``--flag``, false for ``--noflag``.

    So a word that follows a boolean is not its value. INVALID_ARGUMENT for a flag that does not exist, with the one
    that was probably meant; ``others`` are those of the command itself, without dashes.
    """
    booleans = frozenset(_names(only=bool))
    known = frozenset([*_names(), *others])
    end = words.index("--") if "--" in words else len(words)
    refuse_unknown(words[:end], known, booleans)
    spelled = [_spelled(word, booleans) for word in words[:end]]
    return [*spelled, *words[end:]]


def _names(only: type | None = None) -> list[str]:
    declared = [item.name for item in option_fields() if only is None or kind(item) is only]
    return declared + [name for name, flag in IDLE.items() if only is None or flag.kind is only]


def _spelled(word: str, booleans: frozenset[str]) -> str:
    name = word.removeprefix("--")
    if name == word:
        return word
    if name in booleans:
        return f"{word}=true"
    return f"--{name[2:]}=false" if name.startswith("no") and name[2:] in booleans else word


def _reader(item: Field[Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return from_text(item, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _idle_reader(name: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        try:
            return check_idle(name, text)
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
