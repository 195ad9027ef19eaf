"""What a model takes and gives: named, typed, shaped inputs and outputs, by signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from servable.core.tensors import Array, DType

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor: element type, and shape with ``None`` for a free dimension; shape ``None`` is unknown rank.

    ``node`` is the artifact's own name for it (``x:0`` in a graph), which clients of TensorFlow Serving see.
    """

    name: str
    dtype: DType
    shape: Shape | None
    node: str = ""

    def __str__(self) -> str:
        """Return a form for people: ``float32[?,3]``."""
        if self.shape is None:
            return f"{self.dtype}[...]"
        return f"{self.dtype}[{','.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a model. ``inputs`` keep the order in which the engine is fed (sorted for a SavedModel).

    ``defaults`` are values of inputs that a client may leave out. ``streamed``: it answers in parts, each with all its
    outputs.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str = PREDICT_METHOD
    defaults: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))
    streamed: bool = False

    def __str__(self) -> str:
        """Return a form for people: ``serving_default(x: float32[?]) -> y: float32[?]``."""
        inputs = ", ".join(f"{name}: {spec}" for name, spec in self.inputs.items())
        outputs = ", ".join(f"{name}: {spec}" for name, spec in self.outputs.items())
        return f"{self.name}({inputs}) -> {'parts of ' if self.streamed else ''}{outputs}"
