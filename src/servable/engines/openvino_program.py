"""One signature, compiled: as declared, and again for ranks that requests bring.

A compiled graph with free dimensions does not look whether the inner dimensions of a request fit its weights: it reads
beyond the tensor. So every combination of shapes is first tried on an outline of the graph, by shape inference alone,
which takes well under a millisecond for a small graph and happens once per combination.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from servable.core.errors import ServingError, internal, invalid_argument
from servable.core.signatures import Shape, Signature, TensorSpec
from servable.core.tensors import Array
from servable.engines.openvino_flow import Bounds
from servable.engines.openvino_graphs import Shapes, Source, Wiring, partial_shape
from servable.engines.openvino_messages import is_about_shapes, useful

_VARIANTS = 8
_SIZED_VARIANTS = 64
_KNOWN_SHAPES = 1024
_OUTLINE_BYTES = 4096
_LOOP_WITHOUT_TURNS = "Accessing out-of-range dimension"
"""What OpenVINO's shape inference says of a loop that it finds to end at once; computing it works."""
_NEED_SIZES = frozenset({"BinaryConvolution"})
"""Operations that OpenVINO compiles only where it knows every dimension."""
_TAKE_IMAGES = frozenset({"Interpolate", "SpaceToDepth", "DepthToSpace", "LRN"})

Sizes = tuple[int, ...]
_Key = tuple[int | Sizes | None, ...]
"""Of each input the rank that a request brought, or its sizes; ``None`` for the declared rank."""


class Program:
    """A compiled graph. Ranks are fixed; dimensions may be free. As many calls at once as it has streams."""

    def __init__(self, core: Any, wiring: Wiring, config: Mapping[str, Any]) -> None:
        import openvino

        self._tensor = openvino.Tensor
        self._inputs = wiring.inputs
        self._outputs = wiring.outputs
        self._outline = _outline(wiring.graph)
        compiled = core.compile_model(wiring.graph, "CPU", dict(config))
        self._idle = deque(_Request(compiled) for _ in range(config["NUM_STREAMS"]))

    def fits(self, shapes: Mapping[str, Sizes]) -> None:
        """Raise what OpenVINO raises if the graph cannot take these shapes."""
        used = {place: partial_shape(shapes[name]) for name, place in self._inputs.items()}
        if used:
            self._outline.reshape(used)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute; shapes must have been found to fit."""
        request = self._idle.pop()
        try:
            for name, place in self._inputs.items():
                tensor = self._tensor(_shareable(inputs[name]), shared_memory=True)
                request.infers.set_input_tensor(place, tensor)
                request.fed[name] = tensor
            request.infers.infer()
            return {name: request.infers.get_output_tensor(self._outputs[name]).data.copy() for name in outputs}
        finally:
            self._idle.append(request)


class _Request:
    """One request to the compiled graph at a time. It does not keep its inputs alive: ``fed`` does."""

    __slots__ = ("fed", "infers")

    def __init__(self, compiled: Any) -> None:
        self.infers = compiled.create_infer_request()
        self.fed: dict[str, Any] = {}


class SignaturePrograms:
    """The programs of one signature, by the ranks they take; by whole shapes, for graphs that need to know them."""

    def __init__(self, core: Any, opened: Source, signature: Signature, config: Mapping[str, Any]) -> None:
        self._core = core
        self._source = opened
        self._signature = signature
        self._config = config
        self._bounds: list[tuple[str, Bounds]] = list(opened.bounds[signature.name].items())
        self._specs = list(signature.inputs.values())
        self._variants: OrderedDict[_Key, Program | str] = OrderedDict()
        self._known: OrderedDict[tuple[Sizes, ...], Program] = OrderedDict()
        self._looking = threading.Lock()
        wiring = opened.read(signature.name)  # also when nothing can be compiled yet: it says what cannot be held
        ranked = all(spec.shape is not None for spec in self._specs)
        self._sized = ranked and _needs_sizes(wiring.graph)
        self._declared = self._compiled(wiring) if ranked and not self._sized else None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the outputs. INVALID_ARGUMENT for shapes and integers that the graph cannot take."""
        shapes = tuple(inputs[spec.name].shape for spec in self._specs)
        program = self._known.get(shapes)
        if program is None:
            with self._looking:  # an outline is tried by one at a time
                program = self._program(shapes)
        for name, bounds in self._bounds:
            if (outside := bounds.violation(inputs[name])) is not None:
                raise invalid_argument(f"input {name!r} holds {outside}: {bounds.reason}")
        try:
            return program.run(inputs, outputs)
        except Exception as error:
            message = useful(error)
            raise self._misfit(shapes, message) if is_about_shapes(message) else internal(message) from error

    def _program(self, shapes: tuple[Sizes, ...]) -> Program:
        """Return the program for shapes that were not seen before (or not for long)."""
        program = self._by_rank(shapes)
        try:
            program.fits({spec.name: sizes for spec, sizes in zip(self._specs, shapes, strict=True)})
        except Exception as error:
            message = useful(error)
            empty = any(0 in sizes for sizes in shapes)
            if message != _LOOP_WITHOUT_TURNS or empty or program is not self._declared:
                raise self._misfit(shapes, message) from error
        self._known[shapes] = program
        if len(self._known) > _KNOWN_SHAPES:
            self._known.popitem(last=False)
        return program

    def _by_rank(self, shapes: tuple[Sizes, ...]) -> Program:
        unlike = [not _is_like(sizes, spec.shape) for spec, sizes in zip(self._specs, shapes, strict=True)]
        if self._declared is not None and not any(unlike):
            return self._declared
        for spec, other in zip(self._specs, unlike, strict=True):
            if other and spec.shape is not None and self._source.shapes_are_binding:
                raise self._misfit(shapes)
        key: _Key = tuple(len(sizes) if other else None for sizes, other in zip(shapes, unlike, strict=True))
        key = shapes if self._sized else key
        if key not in self._variants:
            self._variants[key] = self._variant(key)
            if len(self._variants) > (_SIZED_VARIANTS if self._sized else _VARIANTS):
                self._forget(self._variants.popitem(last=False)[1])
        self._variants.move_to_end(key)
        found = self._variants[key]
        if isinstance(found, str):
            raise self._misfit(shapes, found)
        return found

    def _variant(self, key: _Key) -> Program | str:
        """Compile for other ranks or sizes, or return why that cannot be: the reason stays the same."""
        wanted: Shapes = {
            spec.name: (None,) * one if isinstance(one, int) else one
            for spec, one in zip(self._specs, key, strict=True)
            if one is not None
        }
        try:
            wiring = self._source.read(self._signature.name, wanted)
            if (reason := _leniency(wiring)) is not None:
                return reason
            return self._compiled(wiring)
        except ServingError as error:
            return error.message
        except Exception as error:  # noqa: BLE001  # OpenVINO raises RuntimeError for everything
            return useful(error)

    def _forget(self, variant: Program | str) -> None:
        for shapes in [shapes for shapes, program in self._known.items() if program is variant]:
            del self._known[shapes]

    def _compiled(self, wiring: Wiring) -> Program:
        try:
            return Program(self._core, wiring, self._config)
        except Exception as error:
            raise internal(f"OpenVINO cannot compile signature {self._signature.name!r}: {useful(error)}") from error

    def _misfit(self, shapes: tuple[Sizes, ...], detail: str = "") -> ServingError:
        sent = ", ".join(f"{spec.name}: {list(sizes)}" for spec, sizes in zip(self._specs, shapes, strict=True))
        expected = ", ".join(f"{spec.name}: {_declared(spec)}" for spec in self._specs)
        because = f" ({detail})" if detail else ""
        return invalid_argument(f"inputs of shapes {sent} do not fit; expected {expected}{because}")


def _declared(spec: TensorSpec) -> str:
    return "any shape" if spec.shape is None else str(["?" if size is None else size for size in spec.shape])


def _is_like(sizes: Sizes, shape: Shape | None) -> bool:
    if shape is None or len(sizes) != len(shape):
        return False
    return all(wanted is None or wanted == size for size, wanted in zip(sizes, shape, strict=True))


def _shareable(array: Array) -> Array:
    """Return an array that OpenVINO takes as it is. A view of a request's bytes cannot be written to: it is copied."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else np.array(array, order="C")


def _outline(graph: Any) -> Any:
    """Return a copy of a graph that has its shapes and not its weights, which become inputs of their shape."""
    from openvino import opset13

    outline = graph.clone()
    stand_ins = []
    for operation in outline.get_ops():
        if operation.get_type_name() == "Constant" and operation.get_byte_size() > _OUTLINE_BYTES:
            stand_in = opset13.parameter(operation.get_output_shape(0), operation.get_element_type())
            operation.output(0).replace(stand_in.output(0))
            stand_ins.append(stand_in)
    if stand_ins:
        outline.add_parameters(stand_ins)
    return outline


def _leniency(wiring: Wiring) -> str | None:
    """Return why TensorFlow would refuse a graph of these ranks that OpenVINO takes, or ``None``."""
    ranks_of_products = {2, None} if wiring.matrices_only else {*range(2, 9), None}
    for operation in wiring.graph.get_ops():
        kind, name = operation.get_type_name(), operation.get_friendly_name()
        if kind == "MatMul" and not {_rank(operation, 0), _rank(operation, 1)} <= ranks_of_products:
            return f"{name} multiplies matrices"
        if kind.startswith("Reduce") and _rank(operation, 0) == 0:
            return f"{name} reduces a dimension"
        if kind in _TAKE_IMAGES and _rank(operation, 0) not in (4, None):
            return f"{name} takes images"
        if kind == "LRN":
            return f"{name} is inexact for channels that nobody declared"
        if kind == "Tile" and operation.get_input_partial_shape(1) != _vector(_rank(operation, 0)):
            return f"{name} repeats each dimension"
        if kind == "If" and _rank(operation, 0) not in (0, None):
            return f"{name} decides by a scalar"
    return None


def _needs_sizes(graph: Any) -> bool:
    free = any(port.partial_shape.is_dynamic for port in graph.inputs)
    return free and any(operation.get_type_name() in _NEED_SIZES for operation in graph.get_ops())


def _vector(length: int | None) -> Any:
    return partial_shape((length,))


def _rank(operation: Any, place: int) -> int | None:
    rank = operation.get_input_partial_shape(place).rank
    return None if rank.is_dynamic else int(rank.get_length())
