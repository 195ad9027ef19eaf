"""The vocabulary of meaning between wires and logic. No wire owns these types; every wire translates to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from servable.core.errors import ServingError
from servable.core.tensors import Array

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]


class ModelRef(NamedTuple):
    """Which model: by name, and a version, or a label, or (neither) the newest version that is available.

    A tuple because it is made, hashed and compared for each request.
    """

    name: str
    version: int | None = None
    label: str | None = None


@dataclass(slots=True)
class InferRequest:
    """One request. ``signature`` "" means the default one; ``deadline`` is in seconds of ``time.monotonic()``.

    ``output_filter`` empty means all outputs. ``metadata`` is what the client sent beside the request. ``callers``
    are the names of the models on whose behalf it is made, the first one first. ``api`` is the method of TensorFlow
    Serving that was called: Predict, Classify or Regress.
    """

    model: ModelRef
    inputs: dict[str, Array]
    signature: str = ""
    output_filter: tuple[str, ...] = ()
    deadline: float | None = None
    metadata: Metadata = ()
    callers: tuple[str, ...] = ()
    api: str = "Predict"


@dataclass(slots=True)
class InferResponse:
    """The answer, with the version and signature that gave it. Times are in seconds, for those who ask.

    ``began`` is when its batch began, of ``time.monotonic()``.
    """

    model: ModelRef
    signature: str
    outputs: Mapping[str, Array]
    queue_s: float = 0.0
    compute_s: float = 0.0
    began: float = 0.0


Reply: TypeAlias = Callable[[InferResponse | ServingError], None]
"""Called exactly once for each request that was submitted, on the event loop."""
