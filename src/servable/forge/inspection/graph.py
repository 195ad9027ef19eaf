"""A model as data, whatever its format: operations, the tensors between them, parameters.

Readers make it, costs are counted on it, pictures are drawn of it. Shapes are those of one call: a dimension that is
``None`` is not known, and what depends on it is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array

Attribute: TypeAlias = "str | bytes | int | float | bool | tuple[Attribute, ...] | None"
"""What an operation is told beside its tensors. Types, shapes and names of functions are written as text."""

Bound: TypeAlias = Mapping[str, tuple[int, ...]]
"""Input of a signature -> the shape that a reader shall assume."""

_BITS = {
    "bool": 8, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1": 4, "float4_e2m1fn": 4,
    "float8_e4m3b11fnuz": 8, "float8_e4m3fnuz": 8, "float8_e5m2fnuz": 8,
    "qint8": 8, "quint8": 8, "qint16": 16, "quint16": 16, "qint32": 32,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight: its own name, element type, shape, and how many bytes the artifact spends on it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Body:
    """A graph inside an operation. ``runs``: how often one call of the operation runs it; ``None`` is not known."""

    role: str
    graph: Graph
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. ``inputs`` and ``outputs`` are names of tensors, "" where an optional one is left out."""

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    bodies: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """Operations, each after those whose tensors it takes.

    ``tensors`` has what is known of each tensor, parameters and constants included; ``parameters`` the weights among
    them by the name of their tensor; ``values`` the small constants.
    """

    format: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, TensorSpec]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: MappingProxyType({}))
    values: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))

    def spec(self, tensor: str) -> TensorSpec | None:
        """Return what is known of a tensor."""
        return self.tensors.get(tensor)

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor where all of it is known."""
        spec = self.tensors.get(tensor)
        if spec is None or spec.shape is None:
            return None
        sizes = tuple(size for size in spec.shape if size is not None)
        return sizes if len(sizes) == len(spec.shape) else None

    def all_parameters(self) -> dict[str, Parameter]:
        """Return the weights of this graph and of those inside its operations, each once, by their own names."""
        found = {parameter.name: parameter for parameter in self.parameters.values()}
        for node in self.nodes:
            for body in node.bodies:
                found.update(body.graph.all_parameters())
        return found

    def walk(self) -> Iterator[tuple[Graph, Node]]:
        """Yield every operation with the graph that it stands in, those inside of others included."""
        for node in self.nodes:
            yield self, node
            for body in node.bodies:
                yield from body.graph.walk()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was read of one artifact. ``graphs``: one for each signature that computes something.

    ``facts`` are words about the file itself (its producer, its version); ``notes`` say what was assumed or could not
    be known.
    """

    kind: str
    path: Path
    signatures: Mapping[str, Signature]
    graphs: Mapping[str, Graph]
    facts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()

    def parameters(self) -> dict[str, Parameter]:
        """Return the weights of all signatures, each once."""
        found: dict[str, Parameter] = {}
        for graph in self.graphs.values():
            found.update(graph.all_parameters())
        return found


def tensor_bytes(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Return how many bytes such a tensor takes; ``None`` for texts and what is no data (resources)."""
    from servable.core.tensors import DTYPES_BY_NAME

    bits = _BITS.get(dtype)
    if bits is None:
        known = DTYPES_BY_NAME.get(dtype)
        if known is None or not known.itemsize:
            return None
        bits = 8 * known.itemsize
    return (math.prod(shape) * bits + 7) // 8


def is_weight(dtype: str, shape: tuple[int, ...]) -> bool:
    """Tell a weight from a constant that steers: floats with a dimension, and integers of more than 16 elements."""
    if dtype in ("bool", "string") or not shape:
        return False
    steers = dtype in ("int32", "int64", "uint32", "uint64") and math.prod(shape) <= 16
    return not steers
