"""From what people pass (lists, numbers, strings, arrays) to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from servable.core.errors import ServingError, invalid_argument
from servable.core.signatures import Signature
from servable.core.tensors import Array, as_tensor


def needs_signature(inputs: Mapping[str, Any]) -> bool:
    """Return whether something was passed whose element type Python does not say: anything but an array."""
    return not all(isinstance(value, np.ndarray | np.generic) for value in inputs.values())


def as_inputs(inputs: Mapping[str, Any], signature: Signature | None) -> dict[str, Array]:
    """Return tensors. Arrays keep their type, and the server checks it; the rest gets the signature's type."""
    return {name: _as_tensor(name, value, signature) for name, value in inputs.items()}


def _as_tensor(name: str, value: Any, signature: Signature | None) -> Array:
    spec = None if signature is None else signature.inputs.get(name)
    keeps_type = spec is None or isinstance(value, np.ndarray | np.generic)
    try:
        return as_tensor(value, None if keeps_type or spec is None else spec.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise _not_a_tensor(name, error) from error


def _not_a_tensor(name: str, error: Exception) -> ServingError:
    return invalid_argument(f"input {name!r} is no tensor: {error}")
