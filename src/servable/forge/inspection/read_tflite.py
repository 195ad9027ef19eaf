"""TFLite files as graphs, by a flatbuffer reader of our own: no interpreter, no weights loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np

from servable.core.errors import Code, ServingError
from servable.core.reading import reading
from servable.core.signatures import DEFAULT_SIGNATURE, Scale, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME, Array, dtype_named
from servable.forge.inspection.assumed import assumed_shape, check_names, notes
from servable.forge.inspection.flatbuffer import Table, identifier, root
from servable.forge.inspection.graph import (
    Attribute,
    Body,
    Bound,
    Graph,
    Inspection,
    Node,
    Parameter,
    is_weight,
)
from servable.forge.inspection.names import unique_names
from servable.forge.inspection.tflite_loops import trips
from servable.forge.inspection.tflite_schema import ACTIVATIONS, CUSTOM, DTYPES, OPERATIONS, OPTIONS, PADDINGS
from servable.forge.worker import run_apart

_IDENTIFIER = b"TFL3"
_SMALL = 64
_DEEPEST = 20
_WITH_BIAS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_3D"})

Shapes: TypeAlias = Mapping[tuple[int, int], tuple[int, ...]] | None
"""Numbers of a graph and of a tensor in it -> its shape in a call; of open sizes nothing else is believed."""


def read(path: Path, bound: Bound) -> Inspection:
    """Read a TFLite file. NOT_FOUND, or DATA_LOSS if it cannot be understood."""
    data = _load(path)
    try:
        file = _File(root(data), len(data))
        signatures = file.signatures()
        check_names(bound, signatures)
        said = [line for found in signatures.values() for line in notes(found.inputs.values(), bound)]
        shapes, complaints = _shapes(path, file, signatures, bound)
        graphs = {name: file.graph(file.subgraph_of(name), shapes[name]) for name in signatures}
    except (ValueError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error
    facts = {"producer": file.model.text(3) or "unknown", "version": str(file.model.integer(0, "uint32"))}
    return Inspection("tflite", path, signatures, graphs, facts, tuple(dict.fromkeys([*said, *complaints])))


def _load(path: Path) -> bytes:
    with reading(path):
        data = path.read_bytes()
    if identifier(data) != _IDENTIFIER:
        raise ServingError(Code.DATA_LOSS, f"{path} is no TFLite file: it does not have the letters TFL3 at byte 4")
    return data


def _shapes(
    path: Path, file: _File, signatures: Mapping[str, Signature], bound: Bound
) -> tuple[dict[str, Shapes], list[str]]:
    """Return for each signature the shapes of a call, where those of the file are not."""
    if not file.has_open_sizes():
        return dict.fromkeys(signatures), []
    calls: dict[str, dict[str, Sequence[int | None]]] = {}
    for name, signature in signatures.items():
        assumed = {spec.name: assumed_shape(spec, bound) for spec in signature.inputs.values()}
        known = {given: shape for given, shape in assumed.items() if shape is not None and None not in shape}
        if len(known) == len(assumed):
            calls[name] = dict(known)
    if not calls:
        return dict.fromkeys(signatures), []
    if find_spec("ai_edge_litert") is None:
        said = "some sizes are open, and only LiteRT knows what follows: pip install 'servable[litert]'"
        return dict.fromkeys(signatures), [said]
    names = {name: name if file.model.tables(7) else "" for name in calls}
    words = {"path": str(path), "calls": [(names[name], shapes) for name, shapes in calls.items()]}
    try:
        found = run_apart("servable.forge.inspection.tflite_shapes:resized", words)
    except ServingError as error:
        return dict.fromkeys(signatures), [f"LiteRT cannot say which shapes follow: {error.message}"]
    shapes: dict[str, Shapes] = dict.fromkeys(signatures)
    for name, tensors in zip(calls, found, strict=False):
        shapes[name] = {(int(graph), int(tensor)): tuple(shape) for graph, tensor, shape in tensors}
    return shapes, []


@dataclass
class _File:
    """A model's tables."""

    model: Table
    size: int
    subgraphs: list[Table] = field(init=False)

    def __post_init__(self) -> None:
        self.subgraphs = self.model.tables(2)
        self.buffers = self.model.tables(4)
        self.codes = [self._operation(code) for code in self.model.tables(1)]
        if not self.subgraphs:
            raise ValueError("it holds no graph")

    @staticmethod
    def _operation(code: Table) -> str:
        number = max(code.integer(0, "int8"), code.integer(3, "int32"))
        if number == CUSTOM:
            return f"CUSTOM:{code.text(1)}"
        return OPERATIONS[number] if 0 <= number < len(OPERATIONS) else f"operation {number}"

    def specs(self, subgraph: Table, *, declared: bool) -> list[TensorSpec]:
        """Return all tensors of a graph, with the shapes of one call or those that the file declares."""
        found = []
        names = unique_names([tensor.text(3) or f"tensor_{i}" for i, tensor in enumerate(subgraph.tables(0))])
        for name, tensor in zip(names, subgraph.tables(0), strict=True):
            number = tensor.integer(1, "int8")
            dtype = dtype_named(DTYPES[number] if 0 <= number < len(DTYPES) else f"type {number}")
            sizes = tensor.numbers(0, "int32") or ()
            if declared and (signature := tensor.numbers(7, "int32")) is not None:
                sizes = signature
            shape = tuple(None if size < 0 else size for size in sizes)
            if any(size is not None and size > 2**40 for size in shape):
                raise ValueError(f"the tensor {name} has the shape {list(shape)}")
            found.append(TensorSpec(name, dtype, shape, scale=_scale(tensor) if dtype.numpy.kind in "iu" else None))
        return found

    def signatures(self) -> dict[str, Signature]:
        found = {}
        for table in self.model.tables(7):
            specs = self.specs(self.subgraphs[table.integer(4, "uint32")], declared=True)
            name = table.text(2) or DEFAULT_SIGNATURE
            inputs, outputs = (self._mapped(table.tables(place), specs) for place in (0, 1))
            found[name] = Signature(name, inputs, outputs)
        if found:
            return found
        return {DEFAULT_SIGNATURE: self._unnamed()}

    def _unnamed(self) -> Signature:
        """Return the signature of a file that names none: the first graph's tensors by their own names."""
        subgraph = self.subgraphs[0]
        specs = self.specs(subgraph, declared=True)
        parts = []
        for place in (1, 2):
            chosen = [specs[index] for index in subgraph.numbers(place, "int32") or ()]
            parts.append({spec.name: replace(spec, node=spec.name) for spec in chosen})
        return Signature(DEFAULT_SIGNATURE, parts[0], parts[1])

    @staticmethod
    def _mapped(entries: Sequence[Table], specs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
        mapped = {}
        for entry in entries:
            spec = specs[entry.integer(1, "uint32")]
            mapped[entry.text(0)] = replace(spec, name=entry.text(0), node=spec.name)
        return dict(sorted(mapped.items()))

    def subgraph_of(self, signature: str) -> int:
        """Return the number of the graph that a signature runs."""
        for table in self.model.tables(7):
            if (table.text(2) or DEFAULT_SIGNATURE) == signature:
                return table.integer(4, "uint32")
        return 0

    def has_open_sizes(self) -> bool:
        """Return whether any tensor has a size that a call decides."""
        tensors = (tensor for subgraph in self.subgraphs for tensor in subgraph.tables(0))
        return any(-1 in (tensor.numbers(7, "int32") or ()) for tensor in tensors)

    def graph(self, index: int, shapes: Shapes, depth: int = 0) -> Graph:
        """Return a graph with the shapes of a call."""
        if depth > _DEEPEST:
            raise ValueError(f"graph {index} contains itself")
        subgraph = self.subgraphs[index]
        specs = self._of_a_call(index, shapes)
        parameters, values = self._constants(subgraph, specs)
        tensors = {spec.name: spec for spec in specs}
        operators = subgraph.tables(3)
        nodes = []
        names = unique_names([self._name(operator, specs) for operator in operators])
        for name, operator in zip(names, operators, strict=True):
            nodes.append(self._node(operator, name, specs, values, shapes, depth))
        inputs, outputs = (
            tuple(specs[number].name for number in subgraph.numbers(place, "int32") or ()) for place in (1, 2)
        )
        return Graph("tflite", tuple(nodes), tensors, inputs, outputs, parameters, values)

    def _of_a_call(self, graph: int, shapes: Shapes) -> list[TensorSpec]:
        subgraph = self.subgraphs[graph]
        specs = self.specs(subgraph, declared=False)
        for index, (spec, tensor) in enumerate(zip(specs, subgraph.tables(0), strict=True)):
            is_open = -1 in (tensor.numbers(7, "int32") or ())
            if shapes and (graph, index) in shapes:
                specs[index] = TensorSpec(spec.name, spec.dtype, shapes[graph, index])
            elif is_open:
                specs[index] = TensorSpec(spec.name, spec.dtype, None)
        return specs

    def _name(self, operator: Table, specs: Sequence[TensorSpec]) -> str:
        """Operations have no names of their own: that of what they make stands for it."""
        made = operator.numbers(2, "int32") or ()
        name = specs[made[0]].name if made else self.codes[operator.integer(0, "uint32")]
        return name.partition(";")[0] or name

    def _constants(self, subgraph: Table, specs: Sequence[TensorSpec]) -> tuple[dict[str, Parameter], dict[str, Array]]:
        parameters: dict[str, Parameter] = {}
        values: dict[str, Array] = {}
        biases = self._biases(subgraph, specs)
        for spec, tensor in zip(specs, subgraph.tables(0), strict=True):
            buffer = self.buffers[tensor.integer(2, "uint32")]
            size = buffer.length(0) or buffer.integer(2, "uint64")
            shape = tuple(dim for dim in spec.shape or () if dim is not None)
            if size <= 1 and not buffer.length(0):
                continue
            if is_weight(spec.dtype.name, shape) or spec.name in biases:
                parameters[spec.name] = Parameter(spec.name, spec.dtype.name, shape, size)
            known = DTYPES_BY_NAME.get(spec.dtype.name)
            if known is not None and known.itemsize and known.itemsize * np.prod(shape) == size <= _SMALL:
                values[spec.name] = np.frombuffer(buffer.content(0), known.numpy).reshape(shape)
        return parameters, values

    def _biases(self, subgraph: Table, specs: Sequence[TensorSpec]) -> set[str]:
        """Return what layers add: quantized, these are short vectors of integers, and weights all the same."""
        found = set()
        for operator in subgraph.tables(3):
            inputs = operator.numbers(1, "int32") or ()
            if self.codes[operator.integer(0, "uint32")] in _WITH_BIAS and len(inputs) > 2 and inputs[2] >= 0:
                found.add(specs[inputs[2]].name)
        return found

    def _node(
        self,
        operator: Table,
        name: str,
        specs: Sequence[TensorSpec],
        values: Mapping[str, Array],
        shapes: Shapes,
        depth: int,
    ) -> Node:
        kind = self.codes[operator.integer(0, "uint32")]
        inputs, outputs = (
            tuple(specs[number].name if number >= 0 else "" for number in operator.numbers(place, "int32") or ())
            for place in (1, 2)
        )
        attributes = _options(kind, operator.table(4))
        bodies: tuple[Body, ...] = ()
        if kind == "WHILE":
            head, body = (self.graph(_index(attributes, part), shapes, depth + 1) for part in ("cond", "body"))
            runs = trips(head, body, [values.get(tensor) for tensor in inputs])
            bodies = (Body("cond", head, None if runs is None else runs + 1), Body("body", body, runs))
        elif kind == "IF":
            parts = ("then", "else")
            bodies = tuple(Body(part, self.graph(_index(attributes, part), None, depth + 1)) for part in parts)
        return Node(name, kind, inputs, outputs, attributes, bodies)


def _index(attributes: Mapping[str, Attribute], name: str) -> int:
    found = attributes[name]
    assert isinstance(found, int)
    return found


def _options(kind: str, table: Table | None) -> dict[str, Attribute]:
    if table is None or kind not in OPTIONS:
        return {}
    found: dict[str, Attribute] = {}
    for place, text in enumerate(OPTIONS[kind].split()):
        name, form, default = (*text.split(":"), "0")[:3]
        if form == "padding":
            found[name] = _named(PADDINGS, table.integer(place, "int8"))
        elif form == "activation":
            found[name] = _named(ACTIVATIONS, table.integer(place, "int8"))
        elif form == "bool":
            found[name] = table.flag(place)
        elif form == "float32":
            found[name] = table.number(place, form)
        else:
            found[name] = table.integer(place, form, int(default))
    return found


def _named(names: Sequence[str], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


def _scale(tensor: Table) -> Scale | None:
    """Return what the integers of a tensor stand for, if one scale is for all of them."""
    found = tensor.table(4)
    steps = (found.numbers(2, "float32") if found else None) or ()
    zeros = (found.numbers(3, "int64") if found else None) or (0,)
    return Scale(steps[0], zeros[0]) if len(steps) == 1 and steps[0] > 0 else None
