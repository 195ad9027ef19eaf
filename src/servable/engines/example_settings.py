"""``[examples]`` in the ``servable.toml`` of a version: signatures that take tf.Examples, for engines without a parser.

A table for each, named as clients call it::

    [examples.classify]
    method = "classify"                # or "regress"
    signature = "serving_default"      # the model's own that computes; may be left out if there is one alone
    labels = ["negative", "positive"]  # of the classes, if the model does not name them
    outputs = { scores = "probs" }     # what Classify takes (classes, scores) or Regress (outputs): the model's output

    [examples.classify.features]
    words = { input = "x", default = 0 }   # a feature: the model's input, its row's shape, and what it is if missing
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servable.core.errors import ServingError, failed_precondition, not_found

METHODS: Final[Mapping[str, frozenset[str]]] = {
    "classify": frozenset({"classes", "scores"}),
    "regress": frozenset({"outputs"}),
}
"""Method -> the outputs that it takes."""
_TABLE_KEYS = frozenset({"method", "signature", "labels", "outputs", "features"})
_FEATURE_KEYS = frozenset({"input", "shape", "default"})


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """``shape`` is that of a row, ``None`` what the input says. ``default`` ``None``: the feature must be there."""

    input: str
    shape: tuple[int, ...] | None = None
    default: Any = None


@dataclass(frozen=True, slots=True)
class ExampleSettings:
    """One table. ``outputs`` map the names of the method to those of the model; ``signature`` "" is the default one."""

    name: str
    method: str
    outputs: Mapping[str, str]
    features: Mapping[str, FeatureSettings]
    signature: str = ""
    labels: tuple[str, ...] = ()


def read_example_settings(path: Path) -> list[ExampleSettings]:
    """Return the tables in a version's ``servable.toml``; FAILED_PRECONDITION names the file and the key."""
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise failed_precondition(f"{path}: no TOML: {error}") from None
    unknown = set(document) - {"examples"}
    if unknown:
        raise failed_precondition(
            f"{path}: there is no key {min(unknown)!r} in the file of a version; there is examples"
        )
    tables = document.get("examples", {})
    return [
        _table(name, table, f"{path}: examples.{name}") for name, table in _dict(tables, f"{path}: examples").items()
    ]


def _table(name: str, table: Any, where: str) -> ExampleSettings:
    _check_keys(table, _TABLE_KEYS, where)
    method = table.get("method")
    if method not in METHODS:
        raise _wrong(f"{where}.method", "classify or regress", method)
    outputs = _dict(table.get("outputs", {}), f"{where}.outputs")
    for key, value in outputs.items():
        if key not in METHODS[method]:
            raise failed_precondition(
                f"{where}.outputs: {method} takes {' and '.join(sorted(METHODS[method]))}, not {key!r}"
            )
        _text(value, f"{where}.outputs.{key}")
    labels = table.get("labels", [])
    if type(labels) is not list or not all(type(label) is str for label in labels):
        raise _wrong(f"{where}.labels", "a list of strings", labels)
    if labels and (method != "classify" or "scores" not in outputs or "classes" in outputs):
        raise failed_precondition(f"{where}.labels: labels go with the scores of a classify, in place of classes")
    if not outputs:
        raise failed_precondition(f"{where}: outputs is missing: {method} takes {' or '.join(sorted(METHODS[method]))}")
    features = _dict(table.get("features", {}), f"{where}.features")
    if not features:
        raise failed_precondition(f"{where}: features is missing: it says which feature is which input")
    return ExampleSettings(
        name,
        method,
        outputs,
        {key: _feature(key, value, f"{where}.features.{key}") for key, value in features.items()},
        _text(table.get("signature", ""), f"{where}.signature"),
        tuple(labels),
    )


def _feature(name: str, table: Any, where: str) -> FeatureSettings:
    _check_keys(table, _FEATURE_KEYS, where)
    shape = table.get("shape")
    if shape is not None and (type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape)):
        raise _wrong(f"{where}.shape", "a list of whole numbers", shape)
    return FeatureSettings(
        _text(table.get("input", name), f"{where}.input"),
        None if shape is None else tuple(shape),
        table.get("default"),
    )


def _check_keys(table: Any, known: frozenset[str], where: str) -> None:
    for key in _dict(table, where):
        if key not in known:
            raise failed_precondition(f"{where}: there is no key {key!r}; there are {', '.join(sorted(known))}")


def _dict(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _wrong(where, "a table", value)
    return value


def _text(value: Any, where: str) -> str:
    if type(value) is not str:
        raise _wrong(where, "a string", value)
    return value


def _wrong(where: str, expected: str, found: Any) -> ServingError:
    return failed_precondition(f"{where}: expected {expected}, not {found!r}")
