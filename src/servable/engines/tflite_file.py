"""What a TFLite file says about itself: its signatures, its operations, whether all of it is there. Needs no LiteRT.

A flatbuffer has no checksum and no length of its own, but everything in it is found by offsets and counts: a file that
was cut off has some that lead beyond its end. The numbers of fields are those of TensorFlow's schema.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servable.core.errors import Code, ServingError
from servable.core.reading import reading
from servable.core.signatures import DEFAULT_SIGNATURE, Scale, Shape, Signature, TensorSpec
from servable.core.tensors import dtype_named

_IDENTIFIER: Final = b"TFL3"
_TYPES: Final = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
    "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip
"""Names of the element types, by number."""
_OPERATOR_CODES, _SUBGRAPHS, _BUFFERS, _METADATA, _SIGNATURE_DEFS = 1, 2, 4, 6, 7
_TENSORS, _INPUTS, _OUTPUTS, _OPERATORS = 0, 1, 2, 3
_QUANTIZATION = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a signature computes: its subgraph, and the numbers of its tensors there by their names."""

    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TfliteFile:
    """``custom`` are the names of operations that LiteRT itself does not know. ``stateful``: it has variables."""

    signatures: Mapping[str, Signature]
    places: Mapping[str, Place]
    custom: frozenset[str]
    stateful: bool


def read(path: Path) -> TfliteFile:
    """Return what the file says. NOT_FOUND; UNAVAILABLE; DATA_LOSS if it cannot be understood."""
    try:
        with reading(path), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from None


def missing(path: Path) -> str | None:
    """Return what the file lacks, or ``None`` if nothing that it refers to lies beyond its end."""
    try:
        read(path)
    except ServingError as error:
        return error.message
    return None


class Table:
    """One table of a flatbuffer; fields by number. ``ValueError`` if one leads beyond the end."""

    __slots__ = ("_at", "_data", "_size", "_slots")

    def __init__(self, data: Any, at: int) -> None:
        self._data = data
        self._at = at
        self._slots = at - _number(data, "<i", at)
        self._size = _number(data, "<H", self._slots)

    def number(self, field: int, form: str, default: int = 0) -> int:
        """Return a number in the form of ``struct``."""
        place = self._place(field)
        return _number(self._data, form, place) if place else default

    def numbers(self, field: int) -> list[int]:
        """Return a vector of 32-bit numbers."""
        return list(self.packed(field, "i"))

    def text(self, field: int) -> str:
        """Return a string, an empty one if there is none."""
        begin, count = self.vector(field, 1)
        return bytes(self._data[begin : begin + count]).decode()

    def tables(self, field: int) -> Iterator[Table]:
        """Yield the tables of a vector."""
        begin, count = self.vector(field, 4)
        for at in range(begin, begin + 4 * count, 4):
            yield Table(self._data, at + _number(self._data, "<I", at))

    def table(self, field: int) -> Table | None:
        """Return the table in a field, ``None`` if there is none."""
        place = self._place(field)
        return Table(self._data, place + _number(self._data, "<I", place)) if place else None

    def packed(self, field: int, form: str) -> tuple[Any, ...]:
        """Return a vector of numbers in the form of ``struct``."""
        begin, count = self.vector(field, struct.calcsize(f"<{form}"))
        return struct.unpack_from(f"<{count}{form}", self._data, begin)

    def vector(self, field: int, itemsize: int) -> tuple[int, int]:
        """Return where the elements of a vector begin, and how many there are."""
        place = self._place(field)
        if not place:
            return 0, 0
        at = place + _number(self._data, "<I", place)
        count = _number(self._data, "<I", at)
        _within(self._data, at + 4, count * itemsize)
        return at + 4, count

    def _place(self, field: int) -> int:
        slot = 4 + 2 * field
        if slot + 2 > self._size:
            return 0
        offset = _number(self._data, "<H", self._slots + slot)
        return self._at + offset if offset else 0


def _number(data: Any, form: str, at: int) -> int:
    _within(data, at, struct.calcsize(form))
    found: int = struct.unpack_from(form, data, at)[0]
    return found


def _within(data: Any, at: int, size: int) -> None:
    if at < 0 or at + size > len(data):
        raise ValueError(f"it refers to bytes {at} to {at + size}, but has {len(data)}")


def _read(data: Any) -> TfliteFile:
    if data[4:8] != _IDENTIFIER:
        raise ValueError(f"it does not begin as a TFLite file does, with {_IDENTIFIER.decode()} at byte 4")
    model = Table(data, _number(data, "<I", 0))
    for buffer in model.tables(_BUFFERS):
        buffer.vector(0, 1)
        beside, size = buffer.number(1, "<Q"), buffer.number(2, "<Q")
        if beside > 1:  # weights after the flatbuffer, as files above 2 GiB have them
            _within(data, beside, size)
    for entry in model.tables(_METADATA):
        entry.text(0)
    graphs = [_Subgraph(graph) for graph in model.tables(_SUBGRAPHS)]
    if not graphs:
        raise ValueError("it holds no graph")
    places = dict(_places(model, graphs))
    signatures = {name: _signature(name, graphs[place.subgraph], place) for name, place in places.items()}
    custom = frozenset(code.text(1) for code in model.tables(_OPERATOR_CODES)) - {""}
    return TfliteFile(signatures, places, custom, any(graph.has_variables for graph in graphs))


class _Subgraph:
    """The tensors of a graph, and which of them are its inputs and outputs."""

    def __init__(self, table: Table) -> None:
        self.tensors = list(table.tables(_TENSORS))
        self.inputs = table.numbers(_INPUTS)
        self.outputs = table.numbers(_OUTPUTS)
        self.has_variables = any(tensor.number(5, "<B") for tensor in self.tensors)
        self._ranked = any(tensor.number(8, "<B") for tensor in self.tensors)
        for tensor in self.tensors:
            tensor.text(3)
        for operator in table.tables(_OPERATORS):
            operator.numbers(1)
            operator.numbers(2)

    def spec(self, alias: str, number: int) -> TensorSpec:
        if not 0 <= number < len(self.tensors):
            raise ValueError(f"{alias!r} is its tensor {number}, but it has {len(self.tensors)}")
        tensor = self.tensors[number]
        kind = tensor.number(1, "<b")
        dtype = dtype_named(_TYPES[kind] if 0 <= kind < len(_TYPES) else f"type {kind}")
        scale = _scale(tensor) if dtype.numpy.kind in "iu" else None
        return TensorSpec(alias, dtype, self._shape(tensor), tensor.text(3) or alias, scale)

    def _shape(self, tensor: Table) -> Shape | None:
        sizes = tensor.numbers(7) or tensor.numbers(0)
        if not sizes and self._ranked and not tensor.number(8, "<B"):
            return None
        return tuple(None if size < 0 else size for size in sizes)

    def named(self, numbers: list[int], role: str) -> dict[str, int]:
        """Return tensors by their own names, by their order where these say nothing."""
        found: dict[str, int] = {}
        for order, number in enumerate(numbers):
            name = self.spec(f"{role}_{order}", number).node
            found[name if name not in found else f"{role}_{order}"] = number
        return found


def _scale(tensor: Table) -> Scale | None:
    """Return what the integers of a tensor stand for, if one scale is for all of them."""
    found = tensor.table(_QUANTIZATION)
    steps = () if found is None else found.packed(2, "f")
    zeros = () if found is None else found.packed(3, "q")
    return Scale(steps[0], zeros[0] if zeros else 0) if len(steps) == 1 and steps[0] > 0 else None


def _places(model: Table, graphs: list[_Subgraph]) -> Iterator[tuple[str, Place]]:
    """Yield the signatures by name; one made of the first graph, if the file has none."""
    definitions = list(model.tables(_SIGNATURE_DEFS))
    for definition in definitions:
        inputs, outputs = (
            {tensor.text(0): tensor.number(1, "<I") for tensor in definition.tables(field)} for field in (0, 1)
        )
        subgraph = definition.number(4, "<I")
        if subgraph >= len(graphs):
            raise ValueError(f"a signature is of its graph {subgraph}, but it has {len(graphs)}")
        yield definition.text(2) or DEFAULT_SIGNATURE, Place(subgraph, inputs, outputs)
    if not definitions:
        graph = graphs[0]
        yield DEFAULT_SIGNATURE, Place(0, graph.named(graph.inputs, "input"), graph.named(graph.outputs, "output"))


def _signature(name: str, graph: _Subgraph, place: Place) -> Signature:
    return Signature(
        name,
        {alias: graph.spec(alias, number) for alias, number in place.inputs.items()},
        {alias: graph.spec(alias, number) for alias, number in place.outputs.items()},
    )
