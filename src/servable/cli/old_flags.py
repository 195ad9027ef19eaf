"""``servable doctor --flags``: what an old command line of ``tensorflow_model_server`` means here, flag by flag."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import Field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from servable.core.errors import ServingError, invalid_argument
from servable.settings import ServeSettings, option_fields
from servable.settings.tfserving_flags import IDLE, MAPPED, WORKING, check_idle, nearest
from servable.settings.values import from_text, is_list, kind

PROGRAMS = ("tensorflow_model_server", "tensorflow/serving", "servable")
"""What the word before the flags of a server contains; so ``docker run``'s own flags are passed over."""


class Verdict(Enum):
    """What becomes of one flag."""

    WORKS = "works"
    MAPPED = "mapped"
    OURS = "ours"
    IDLE = "no effect"
    WRONG = "wrong value"
    UNKNOWN = "unknown"


class Explained(NamedTuple):
    """One flag of an old command line."""

    flag: str
    verdict: Verdict
    note: str

    @property
    def stops(self) -> bool:
        """Return whether a server would not start with it."""
        return self.verdict in {Verdict.WRONG, Verdict.UNKNOWN}


def explain(line: str) -> list[Explained]:
    """Explain each flag of a command line, and what in the files that it names has no effect or is wrong."""
    try:
        words = shlex.split(line.replace("\\\n", " "))
    except ValueError as error:
        raise invalid_argument(f"--flags: this is no command line: {error}") from None
    program = next((index for index, word in enumerate(words) if any(name in word for name in PROGRAMS)), -1)
    found = []
    values: dict[str, Any] = {}
    rest = iter(words[program + 1 :])
    for word in rest:
        if word.startswith("-"):
            found.append(_explain(word, values))
        elif found and found[-1].verdict is Verdict.WRONG and found[-1].note == NEEDS_VALUE:
            found[-1] = _explain(f"{found[-1].flag}={word}", values)
    return [*found, *_in_files(values)]


NEEDS_VALUE = "it needs a value: --flag=VALUE"


def _explain(word: str, values: dict[str, Any]) -> Explained:
    options = {item.name: item for item in option_fields()}
    name, equals, text = word.removeprefix("--").partition("=")
    booleans = {n for n, item in options.items() if kind(item) is bool} | {
        n for n, flag in IDLE.items() if flag.kind is bool
    }
    if name.startswith("no") and name[2:] in booleans:
        name, equals, text = name[2:], "=", "false"
    if not word.startswith("--") or (name not in options and name not in IDLE and name not in WORKING):
        near = nearest(name, {*options, *IDLE, *WORKING})
        return Explained(word, Verdict.UNKNOWN, f"did you mean --{near}?" if near else "there is nothing like it")
    if not equals and name in booleans:
        equals, text = "=", "true"
    if not equals and name != "version":
        return Explained(word, Verdict.WRONG, NEEDS_VALUE)
    try:
        if name in IDLE:
            check_idle(name, text)
            return Explained(word, Verdict.IDLE, f"because {IDLE[name].reason}")
        if name in options:
            values[name] = _value(options[name], text)
    except ValueError as error:
        return Explained(word, Verdict.WRONG, str(error))
    if name in MAPPED:
        return Explained(word, Verdict.MAPPED, MAPPED[name])
    if name in WORKING:
        return Explained(word, Verdict.WORKS, WORKING[name])
    return Explained(word, Verdict.OURS, str(options[name].metadata["help"]))


def _value(item: Field[Any], text: str) -> Any:
    value = from_text(item, text)
    return (value,) if is_list(item) else value


def _in_files(values: dict[str, Any]) -> Iterator[Explained]:
    """Read the files that are there: a command line may be explained elsewhere than it is used."""
    values = {name: value for name, value in values.items() if not name.endswith("_file") or Path(value).exists()}
    settings = ServeSettings(**values)
    for name, read in (
        ("model_config_file", settings.file_models),
        ("batching_parameters_file", settings.batching_choice),
        ("monitoring_config_file", settings.metrics_path),
        ("ssl_config_file", settings.tls_options),
        ("tensorflow_session_config_file", settings.engine_options),
        ("platform_config_file", settings.engine_options),
    ):
        if name in values:
            try:
                read()
            except ServingError as error:
                yield Explained(f"--{name}", Verdict.WRONG, error.message)
    try:
        for line in settings.idle_lines():
            where, _, why = line.partition(": accepted, no effect ")
            yield Explained(where, Verdict.IDLE, why)
    except ServingError:
        return  # it was said above
