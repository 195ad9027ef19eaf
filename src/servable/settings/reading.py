"""The order of precedence: a flag wins over the environment, that over the file, that over the default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from servable.core.errors import invalid_argument
from servable.settings.file import read_settings_file
from servable.settings.options import option_fields
from servable.settings.server import ServeSettings
from servable.settings.values import from_text, is_list

ENVIRONMENT_PREFIX = "SERVABLE_"


def read_settings(
    given: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> ServeSettings:
    """Return the settings from parsed flags, the environment and the file that one of these names.

    ``defaults`` replace those of the options. INVALID_ARGUMENT names the variable, or the file and the key, that is
    wrong.
    """
    nearer = _from_environment(environment)
    for item in fields(ServeSettings):
        if item.name in given:
            value = given[item.name]
            nearer[item.name] = tuple(value) if isinstance(value, list) else value
    path = nearer.get("config", "")
    values = read_settings_file(Path(path)) if path else {}
    return ServeSettings(**{**defaults, **values, **nearer})


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in option_fields():
        variable = ENVIRONMENT_PREFIX + item.name.upper()
        text = environment.get(variable)
        if text is None:
            continue
        try:
            values[item.name] = _several(item, text) if is_list(item) else from_text(item, text)
        except ValueError as error:
            raise invalid_argument(f"the environment variable {variable} is {text!r}: {error}") from None
    return values


def _several(item: Field[Any], text: str) -> tuple[Any, ...]:
    return tuple(from_text(item, part) for part in text.split(",") if part)
