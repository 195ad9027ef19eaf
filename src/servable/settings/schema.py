"""The JSON Schema of ``servable.toml``, for editors and checkers, made from the declared options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field
from typing import Any

from servable.engines.base import ENGINES
from servable.settings.file import FILE_OPTIONS, HIGHEST_VERSION, MODEL_KEYS
from servable.settings.tables import BATCHING_KEYS, CANARY_KEYS, REQUEST_LOG_KEYS, Key
from servable.settings.values import is_list, kind

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _table(keys: Mapping[str, Key], *required: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, key in keys.items():
        element = {"type": _TYPES[key.kind]}
        properties[name] = {"description": key.what} | ({"type": "array", "items": element} if key.is_list else element)
    found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


_VERSION = {"type": "integer", "minimum": 0, "maximum": HIGHEST_VERSION}
_TEXT = {"type": "string", "minLength": 1}
_MODEL_TYPES: dict[str, dict[str, Any]] = {
    "name": _TEXT,
    "path": _TEXT,
    "engine": {"enum": list(ENGINES)},
    "versions": {
        "anyOf": [
            {"enum": ["latest", "all"]},
            {"type": "array", "items": _VERSION, "minItems": 1},
            {
                "type": "object",
                "properties": {"latest": {**_VERSION, "minimum": 1}},
                "required": ["latest"],
                "additionalProperties": False,
            },
        ]
    },
    "labels": {"type": "object", "additionalProperties": _VERSION},
    "batching": _table(BATCHING_KEYS),
    "canary": _table(CANARY_KEYS),
    "request_log": _table(REQUEST_LOG_KEYS, "filename_prefix"),
}


def schema() -> dict[str, Any]:
    """Return the schema of the whole file."""
    model = {key: {"description": text, **_MODEL_TYPES[key]} for key, text in MODEL_KEYS.items()}
    table = {"type": "object", "properties": model, "required": ["path"], "additionalProperties": False}
    options: dict[str, Any] = {name: _option(item) for name, item in FILE_OPTIONS.items()}
    described = options["batching"].pop("description")
    options["batching"] = {"description": described, "anyOf": [options["batching"], _table(BATCHING_KEYS)]}
    options["models"] = {"description": "the models to serve", "type": "array", "items": table}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "servable.toml",
        "description": "Settings of `servable serve`.",
        "type": "object",
        "properties": options,
        "additionalProperties": False,
    }


def schema_text() -> str:
    """Return the schema as it is committed and printed."""
    return json.dumps(schema(), indent=2) + "\n"


def _option(item: Field[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _TYPES[kind(item)]}
    if item.metadata["choices"]:
        found["enum"] = list(item.metadata["choices"])
    for bound, word in (("least", "minimum"), ("most", "maximum")):
        if item.metadata[bound] is not None:
            found[word] = item.metadata[bound]
    if is_list(item):
        found = {"type": "array", "items": found}
    elif item.default not in (MISSING, None, ""):
        found["default"] = item.default
    return {"description": item.metadata["help"], **found}
