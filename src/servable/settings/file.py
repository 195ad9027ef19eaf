"""``servable.toml``: any option by its flag's name, and ``[[models]]``. Errors name the file and the line or key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from servable.core.errors import ServingError, invalid_argument, not_found
from servable.engines.base import ENGINES
from servable.lifecycle.config import All, Latest, ModelConfig, Policy, Specific, resolve_path
from servable.settings.models import ServedModel
from servable.settings.options import option_fields
from servable.settings.tables import batching_table, canary_table, refuse_unknown, request_log_table
from servable.settings.values import from_file

FILE_OPTIONS = {item.name: item for item in option_fields() if item.name != "config"}
MODEL_KEYS = {
    "name": "what clients call it; by default the name of its directory or file",
    "path": "a model directory, a root of many, a version or an artifact; relative to the file of settings",
    "engine": "the engine instead of the one that correctness chooses",
    "versions": '"latest", "all", { latest = N }, or a list of version numbers',
    "labels": "names for versions: { stable = 3 }",
    "batching": "TensorFlow Serving's batching parameters for this model: { max_batch_size = 32 }",
    "canary": "a new version on trial: { percent = 10, shadow_percent = 5 }",
    "request_log": 'its request log: { filename_prefix = "logs/m", sampling_rate = 0.01 }',
}
"""Key of a ``[[models]]`` table -> what it is."""
NO_PATH = frozenset({"", "-", "off", "auto"})
HIGHEST_VERSION = 2**63 - 1


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the values of a file by the names of the settings' fields; paths in it are relative to it."""
    document = _parse(path)
    refuse_unknown(document, {*FILE_OPTIONS, "models"}, "option", str(path))
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name == "models":
            values["tables"] = _models(path, value)
            continue
        if name == "batching" and isinstance(value, dict):
            values["batching_table"] = batching_table(value, f"{path}: batching")
            continue
        item = FILE_OPTIONS[name]
        try:
            found = from_file(item, value)
        except ValueError as error:
            raise invalid_argument(f"{path}: {name}: {error}") from None
        is_path = item.metadata["is_path"] and found not in NO_PATH
        values[name] = str(path.parent.absolute() / found) if is_path else found
    return values


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise not_found(f"cannot read the file of settings {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise invalid_argument(f"{path}: TOML is UTF-8, which byte {error.start} is not") from None
    except tomllib.TOMLDecodeError as error:  # its text ends with line and column
        raise invalid_argument(f"{path}: no TOML: {error}") from None


def _models(path: Path, tables: object) -> tuple[ServedModel, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise invalid_argument(f"{path}: models: expected tables, each under a line [[models]]")
    return tuple(model for number, table in enumerate(tables, 1) for model in _model(path, number, table))


def _model(path: Path, number: int, table: Mapping[str, Any]) -> list[ServedModel]:
    name = table.get("name")
    where = f"{path}: models[{number}]" + (f" ({name})" if isinstance(name, str) else "")
    refuse_unknown(table, MODEL_KEYS, "key", where)
    if "path" not in table:
        raise invalid_argument(f"{where}: path is missing")
    _text(table, "name", where)
    engine = _text(table, "engine", where)
    if engine is not None and engine not in ENGINES:
        raise invalid_argument(f"{where}: engine: expected one of {', '.join(ENGINES)}, not {engine!r}")
    policy = _policy(table["versions"], where) if "versions" in table else None
    labels = _labels(table.get("labels", {}), where)
    batching = batching_table(table["batching"], f"{where}: batching") if "batching" in table else None
    canary = canary_table(table["canary"], f"{where}: canary") if "canary" in table else None
    request_log = None
    if "request_log" in table:
        request_log = request_log_table(table["request_log"], f"{where}: request_log", path.parent)
    try:
        configs = _resolve(path.parent / (_text(table, "path", where) or ""), name)
    except ServingError as error:
        raise ServingError(error.code, f"{where}: {error.message}") from None
    for key in ("labels", "request_log", "canary"):
        if len(configs) > 1 and table.get(key):
            names = ", ".join(config.name for config in configs)
            raise invalid_argument(f"{where}: {key} belongs to one model; this path holds several: {names}")
    if policy is not None and any(config.fixed_versions is not None for config in configs):
        raise invalid_argument(f"{where}: versions is for a directory of versions; this path is one version")
    configs = [replace(config, engine=engine, labels=labels, policy=policy or config.policy) for config in configs]
    return [ServedModel(config, batching, request_log, canary) for config in configs]


def _resolve(path: Path, name: str | None) -> list[ModelConfig]:
    """A model with a name may have its directory later; without one the path must say what it is called."""
    if name is not None and not path.exists():
        return [ModelConfig(name, path.absolute())]
    return resolve_path(path, name)


def _text(table: Mapping[str, Any], key: str, where: str) -> str | None:
    value = table.get(key)
    if key in table and (not isinstance(value, str) or not value):
        raise invalid_argument(f"{where}: {key}: expected a text, not {value!r}")
    return value


def _policy(value: object, where: str) -> Policy:
    if value == "latest":
        return Latest()
    if value == "all":
        return All()
    if isinstance(value, list) and value and all(_is_version(number) for number in value):
        return Specific(tuple(value))
    if isinstance(value, dict) and value.keys() == {"latest"} and _is_version(value["latest"]) and value["latest"]:
        return Latest(value["latest"])
    raise invalid_argument(f"{where}: versions: expected {MODEL_KEYS['versions']}, not {value!r}")


def _labels(value: object, where: str) -> dict[str, int]:
    if not isinstance(value, dict) or not all(name and _is_version(number) for name, number in value.items()):
        raise invalid_argument(f"{where}: labels: expected names for versions such as {{ stable = 3 }}, not {value!r}")
    return dict(value)


def _is_version(value: object) -> bool:
    return type(value) is int and 0 <= value <= HIGHEST_VERSION
