"""One operation of an ONNX graph, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from servable.core.errors import unimplemented
from servable.core.tensors import Array

Tensor: TypeAlias = Any  # torch comes without types here


class Node:
    """One operation and what it is given: tensors, or arrays that are known before anything is computed.

    ``constant`` keeps an array as a tensor of the module under a name.
    """

    def __init__(self, proto: Any, given: Sequence[Any], constant: Callable[[str, Array], Tensor]) -> None:
        import onnx.helper

        self.type = str(proto.op_type)
        self.name = str(proto.name or (proto.output[0] if proto.output else proto.op_type))
        self.outputs = len(proto.output)
        self._names = list(proto.input)
        self._given = given
        self._constant = constant
        self._attributes = {one.name: onnx.helper.get_attribute_value(one) for one in proto.attribute}

    def has(self, place: int) -> bool:
        """Return whether that input is given."""
        return place < len(self._given) and self._given[place] is not None

    def count(self) -> int:
        """Return how many inputs there are."""
        return len(self._given)

    def tensor(self, place: int) -> Tensor:
        """Return an input to compute with."""
        value = self._given[place]
        return self._constant(self._names[place], value) if isinstance(value, np.ndarray) else value

    def is_known(self, place: int) -> bool:
        """Return whether an input is known before anything is computed."""
        return isinstance(self._given[place], np.ndarray)

    def known(self, place: int) -> Array:
        """Return an input that is known before; UNIMPLEMENTED if it is computed from others."""
        value = self._given[place]
        if not isinstance(value, np.ndarray):
            raise unimplemented(f"{self}: {self._names[place]} is computed from values; it must be known before")
        return value

    def kept(self, what: str, array: Array) -> Tensor:
        """Return an array made of known inputs as a tensor of the module."""
        return self._constant(f"{self.name}/{what}", array)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute; text as ``str``, in lists too."""
        found = self._attributes.get(name, default)
        if isinstance(found, list):
            return [one.decode() if isinstance(one, bytes) else one for one in found]
        return found.decode() if isinstance(found, bytes) else found

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse a value of an attribute that is not one of these; the first is the default."""
        found = self.attribute(name, allowed[0])
        if found not in allowed:
            raise unimplemented(f"{self} has {name} {found}, which is not translated")

    def __str__(self) -> str:
        """Return it for people."""
        return f"operation {self.type} ({self.name})"
