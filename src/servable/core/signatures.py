"""What a model takes and gives: named, typed, shaped inputs and outputs, by signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from servable.core.tensors import Array, DType

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """What the integers ``q`` of a quantized tensor stand for: the numbers ``(q - zero) * step``."""

    step: float
    zero: int

    def __str__(self) -> str:
        """Return a form for people, with mean and standard deviation: ``(q - 128) / 128``."""
        above = f"(q {'+' if self.zero < 0 else '-'} {abs(self.zero)})" if self.zero else "q"
        return f"{above} / {1 / self.step:.7g}"

    def numbers(self, integers: Array) -> Array:
        """Return what integers stand for, as float32."""
        return ((integers.astype(np.float64) - self.zero) * self.step).astype(np.float32)

    def integers(self, numbers: Array, dtype: DType) -> Array:
        """Return the integers nearest to numbers; what is beyond their range becomes its end, NaN the zero."""
        limits = np.iinfo(dtype.numpy)
        numbers = numbers.astype(np.float64)
        nearest = np.rint(np.where(np.isnan(numbers), 0.0, numbers) / self.step) + self.zero
        found: Array = np.clip(nearest, limits.min, limits.max).astype(dtype.numpy)
        return found


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor: element type, and shape with ``None`` for a free dimension; shape ``None`` is unknown rank.

    ``node`` is the artifact's own name for it (``x:0`` in a graph), which clients of TensorFlow Serving see. ``scale``
    says what integers stand for, where they stand for other numbers.
    """

    name: str
    dtype: DType
    shape: Shape | None
    node: str = ""
    scale: Scale | None = None

    def __str__(self) -> str:
        """Return a form for people: ``float32[?,3]``, ``uint8[?,3] of (q - 128) / 128``."""
        sizes = ["..."] if self.shape is None else ["?" if size is None else str(size) for size in self.shape]
        return f"{self.dtype}[{','.join(sizes)}]{'' if self.scale is None else f' of {self.scale}'}"

    def taken(self, array: Array) -> Array:
        """Return an array in the tensor's type: floats as the integers that stand for them, where there is a scale."""
        if self.scale is not None and array.dtype.kind == "f":
            return self.scale.integers(array, self.dtype)
        return array.astype(self.dtype.numpy, copy=False)

    def meant(self, array: Array) -> Array:
        """Return what the tensor's value stands for."""
        return array if self.scale is None else self.scale.numbers(array)


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


def main_signature(signatures: Mapping[str, Signature], wanted: str = "") -> Signature:
    """Return the signature of that name or what requests mean that name none; else the first with inputs and outputs.

    There is at least one. A SavedModel's own beginnings have neither.
    """
    for name in (wanted, DEFAULT_SIGNATURE):
        if name in signatures:
            return signatures[name]
    able = (one for one in signatures.values() if one.inputs and one.outputs)
    return next(able, next(iter(signatures.values())))
