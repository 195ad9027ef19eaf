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

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servable.core.errors import failed_precondition
from servable.engines.version_settings import EXAMPLES, check_keys, read_version_settings, table, text, wrong

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
    found = table(read_version_settings(path).get(EXAMPLES, {}), f"{path}: {EXAMPLES}")
    return [_table(name, each, f"{path}: {EXAMPLES}.{name}") for name, each in found.items()]


def _table(name: str, found: Any, where: str) -> ExampleSettings:
    check_keys(found, _TABLE_KEYS, where)
    method = found.get("method")
    if method not in METHODS:
        raise wrong(f"{where}.method", "classify or regress", method)
    outputs = table(found.get("outputs", {}), f"{where}.outputs")
    for key, value in outputs.items():
        if key not in METHODS[method]:
            raise failed_precondition(
                f"{where}.outputs: {method} takes {' and '.join(sorted(METHODS[method]))}, not {key!r}"
            )
        text(value, f"{where}.outputs.{key}")
    labels = found.get("labels", [])
    if type(labels) is not list or not all(type(label) is str for label in labels):
        raise wrong(f"{where}.labels", "a list of strings", labels)
    if labels and (method != "classify" or "scores" not in outputs or "classes" in outputs):
        raise failed_precondition(f"{where}.labels: labels go with the scores of a classify, in place of classes")
    if not outputs:
        raise failed_precondition(f"{where}: outputs is missing: {method} takes {' or '.join(sorted(METHODS[method]))}")
    features = table(found.get("features", {}), f"{where}.features")
    if not features:
        raise failed_precondition(f"{where}: features is missing: it says which feature is which input")
    return ExampleSettings(
        name,
        method,
        outputs,
        {key: _feature(key, value, f"{where}.features.{key}") for key, value in features.items()},
        text(found.get("signature", ""), f"{where}.signature"),
        tuple(labels),
    )


def _feature(name: str, found: Any, where: str) -> FeatureSettings:
    check_keys(found, _FEATURE_KEYS, where)
    shape = found.get("shape")
    if shape is not None and (type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape)):
        raise wrong(f"{where}.shape", "a list of whole numbers", shape)
    return FeatureSettings(
        text(found.get("input", name), f"{where}.input"),
        None if shape is None else tuple(shape),
        found.get("default"),
    )
