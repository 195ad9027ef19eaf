"""tf.Examples from Python values: what a client writes as a mapping of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from servable import protos
from servable.core.errors import ServingError, invalid_argument

Features: TypeAlias = Mapping[str, Any]
"""A number, text, bytes, bool or a flat list or array of such for each name."""

_KINDS: dict[type, str] = {bool: "int64", int: "int64", float: "float", str: "bytes", bytes: "bytes"}


def plain_features(features: Features) -> dict[str, list[int] | list[float] | list[bytes]]:
    """Return the features as lists of one kind each: integers (bools too), floats, or bytes (text as UTF-8).

    Integers among floats are floats. INVALID_ARGUMENT names a feature that holds anything else.
    """
    return {name: _values(name, value) for name, value in features.items()}


def example_bytes(features: Features) -> bytes:
    """Return the serialized Example; INVALID_ARGUMENT as ``plain_features``, and for integers that are no int64."""
    message = protos.tensorflow.Example()
    message.features.SetInParent()
    for name, values in plain_features(features).items():
        feature = message.features.feature[name]
        if not values:
            continue
        try:
            getattr(feature, f"{_KINDS[type(values[0])]}_list").value.extend(values)
        except (ValueError, OverflowError):
            raise _wrong(name, "an integer that is no int64") from None
    return bytes(message.SerializeToString())


def _values(name: str, value: Any) -> list[Any]:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    items = list(value) if isinstance(value, list | tuple) else [value]
    items = [item.tolist() if isinstance(item, np.generic) else item for item in items]
    kinds = {_KINDS.get(type(item), "") for item in items}
    if "" in kinds:
        odd = next(item for item in items if type(item) not in _KINDS)
        raise _wrong(name, f"{type(odd).__name__}; expected numbers, text, bytes, bools, or a flat list of such")
    if kinds == {"int64", "float"}:
        return [float(item) for item in items]
    if len(kinds) > 1:
        raise _wrong(name, "numbers and strings; a feature holds values of one kind")
    if kinds == {"int64"}:
        return [int(item) for item in items]
    return [item.encode() if isinstance(item, str) else item for item in items]


def _wrong(name: str, found: str) -> ServingError:
    return invalid_argument(f"feature {name!r} holds {found}")
