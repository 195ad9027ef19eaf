"""What is known of a tensor of a TensorFlow graph before it runs, and of an operation: its inputs and attributes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from servable.core.signatures import TensorSpec
from servable.core.tensors import Array, dtype_named
from servable.engines.graph import attribute
from servable.engines.tensor_proto import dtype_of, shape_of

LEFT_OUT: Final = "_left_out"
"""Attribute of a constant whose value a text for people does without: a tensor with its type and shape alone."""
MOST_VALUES = 1024
"""Constants of up to so many elements are followed by value: shapes, axes, bounds of loops."""


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor: its element type, its whole shape or nothing of it, the value of a small constant.

    ``held`` is what a resource or a list has inside, ``length`` how many of them a list has.
    """

    dtype: str
    shape: tuple[int, ...] | None = None
    value: Array | None = None
    held: Known | None = None
    length: int | None = None

    def spec(self, name: str) -> TensorSpec:
        """Return the same for a neutral graph."""
        return TensorSpec(name, dtype_named(self.dtype), self.shape)

    def without_value(self) -> Known:
        """Return what holds for any other value, too."""
        return Known(self.dtype, self.shape, None, self.held, self.length)


UNKNOWN = Known("unknown")


class UnknownShapeError(Exception):
    """What an operation gives cannot be told from what is known."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation with what is known of its inputs."""

    node: Any
    inputs: tuple[Known, ...]

    def known(self, place: int) -> Known:
        """Return an input."""
        if place >= len(self.inputs):
            raise UnknownShapeError
        return self.inputs[place]

    def shape(self, place: int) -> tuple[int, ...]:
        """Return the shape of an input."""
        shape = self.known(place).shape
        if shape is None:
            raise UnknownShapeError
        return shape

    def value(self, place: int) -> Array:
        """Return the value of an input."""
        value = self.known(place).value
        if value is None:
            raise UnknownShapeError
        return value

    def integers(self, place: int) -> tuple[int, ...]:
        """Return the value of an input as a list of integers."""
        return tuple(int(number) for number in self.value(place).reshape(-1))

    def number(self, place: int) -> int:
        """Return the value of an input that is one integer."""
        found = self.integers(place)
        if len(found) != 1:
            raise UnknownShapeError
        return found[0]

    def has(self, name: str) -> bool:
        """Return whether an attribute is there."""
        return name in self.node.attr

    def integer(self, name: str, default: int = 0) -> int:
        """Return an attribute. Writers leave out those that have the operation's own default."""
        return int(self.node.attr[name].i) if self.has(name) else default

    def flag(self, name: str) -> bool:
        """Return an attribute."""
        return bool(attribute(self.node, name).b)

    def text(self, name: str) -> str:
        """Return an attribute."""
        return str(attribute(self.node, name).s.decode(errors="replace"))

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return an attribute."""
        return tuple(attribute(self.node, name).list.i)

    def dtype(self, name: str, default: str = "unknown") -> str:
        """Return an attribute."""
        return dtype_of(self.node.attr[name].type).name if self.has(name) else default

    def declared(self, name: str) -> tuple[int, ...] | None:
        """Return an attribute that is a shape, where it states all of it."""
        return whole(shape_of(attribute(self.node, name).shape)) if self.has(name) else None


def whole(shape: tuple[int | None, ...] | None) -> tuple[int, ...] | None:
    """Return a shape of which every size is known."""
    if shape is None:
        return None
    sizes = tuple(size for size in shape if size is not None)
    return sizes if len(sizes) == len(shape) else None


def is_followed(dtype: str, shape: tuple[int, ...]) -> bool:
    """Return whether the value of such a constant is kept."""
    return dtype in ("int32", "int64", "bool", "float32") and math.prod(shape) <= MOST_VALUES
