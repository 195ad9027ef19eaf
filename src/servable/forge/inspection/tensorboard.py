"""Graphs for TensorBoard: an event file with a GraphDef. Other formats are translated, with their names and attributes.

A GraphDef is shown as it is; so is a SavedModel, in a run of its own beside one for each signature where the functions
that it calls stand in their places.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servable.core.errors import failed_precondition
from servable.core.signatures import Shape
from servable.forge.inspection.graph import Attribute, Graph, Inspection, Node
from servable.forge.inspection.names import unique_names
from servable.forge.inspection.tf_known import LEFT_OUT
from servable.protos import tensorflow
from servable.protos.tfrecord import frame_record

_VERSION = "brain.Event:2"
LONG_BYTES = 512
"""Constants above this are written without their values: nobody reads them."""
_UNFIT = re.compile(r"[^A-Za-z0-9_.\-/]+")
_TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}


def write_events(inspection: Inspection, folder: Path) -> Path:
    """Write an event file for each run below a log folder, and return that folder. FAILED_PRECONDITION if it cannot."""
    runs: dict[str, Any] = {}
    if inspection.kind == "graph_def":
        runs["graph"] = native(inspection)
    else:
        if inspection.kind == "saved_model":
            runs["saved_model"] = native(inspection)
        for name, graph in inspection.graphs.items():
            runs[_UNFIT.sub("_", name).strip("/._") or "graph"] = graph_def(graph)
    for name, made in runs.items():
        _write(folder / name, made)
    return folder


def graph_def(graph: Graph) -> Any:
    """Return a neutral graph as a GraphDef that TensorBoard can draw; nothing can run it."""
    return graph_defs({"": graph})


def graph_defs(graphs: Mapping[str, Graph]) -> Any:
    """Return neutral graphs as one GraphDef, each in the scope of its name."""
    made = tensorflow.GraphDef()
    translation = _Translation(made)
    for name, graph in graphs.items():
        translation.add(graph, f"{_fit(name)}/" if name else "", {})
    return made


def native(inspection: Inspection) -> Any:
    """Return TensorFlow's own graph of a SavedModel or frozen graph, without the values of long constants."""
    from servable.forge.inspection.read_tensorflow import load_graph_def, load_saved_model

    found = tensorflow.GraphDef()
    if inspection.kind == "graph_def":
        found.CopyFrom(load_graph_def(inspection.path))
    else:
        found.CopyFrom(load_saved_model(inspection.path).graph_def)
    for nodes in (found.node, *(function.node_def for function in found.library.function)):
        for node in nodes:
            _leave_out_value(node)
    return found


def _leave_out_value(node: Any) -> None:
    """Take a long value away, under another name: a constant without one cannot be run, one of zeros could."""
    if "value" not in node.attr or node.attr["value"].tensor.ByteSize() <= LONG_BYTES:
        return
    tensor = node.attr["value"].tensor
    node.attr[LEFT_OUT].tensor.CopyFrom(tensorflow.TensorProto(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape))
    del node.attr["value"]


def _write(folder: Path, made: Any) -> None:
    now = time.time()
    events = [
        tensorflow.Event(wall_time=now, file_version=_VERSION),
        tensorflow.Event(wall_time=now, graph_def=made.SerializeToString()),
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{int(now)}.{socket.gethostname()}"
        path.write_bytes(b"".join(frame_record(event.SerializeToString()) for event in events))
    except OSError as error:
        raise failed_precondition(f"{folder} cannot be written: {error.strerror}") from error


class _Translation:
    """One GraphDef in the making. Names of tensors become ``node:output``."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self._taken: set[str] = set()

    def add(self, graph: Graph, scope: str, outer: Mapping[str, str]) -> None:
        """Add a graph's operations below a scope; ``outer`` are tensors of the graphs around it."""
        names = unique_names(_fit(node.name) for node in graph.nodes)
        sources = dict(outer)
        for name, node in zip(names, graph.nodes, strict=True):
            for place, output in enumerate(node.outputs):
                sources[output] = f"{scope}{name}:{place}" if place else f"{scope}{name}"
        for given in graph.inputs:
            if given not in sources or (scope and given in outer):
                sources[given] = self._leaf(graph, scope, given, "Placeholder")
        made = {output for node in graph.nodes for output in node.outputs}
        for given, parameter in graph.parameters.items():
            if given not in made:
                sources[given] = self._leaf(graph, scope, given, "Const", parameter.name)
        for name, node in zip(names, graph.nodes, strict=True):
            self._node(graph, node, scope + name, sources)
            for body in node.bodies:
                self.add(body.graph, f"{scope}{name}/{_fit(body.role)}/", sources)

    def _leaf(self, graph: Graph, scope: str, tensor: str, kind: str, name: str = "") -> str:
        own = scope + _fit(name or tensor)
        while own in self._taken:
            own += "_"
        self._taken.add(own)
        node = self._made.node.add(name=own, op=kind)
        spec = graph.spec(tensor)
        if spec is not None:
            node.attr["dtype"].type = _type(spec.dtype.name)
            _set_shape(node.attr["shape"].shape, spec.shape)
            _set_shape(node.attr["_output_shapes"].list.shape.add(), spec.shape)
            if kind == "Const":
                node.attr[LEFT_OUT].tensor.dtype = _type(spec.dtype.name)
                _set_shape(node.attr[LEFT_OUT].tensor.tensor_shape, spec.shape)
        return own

    def _node(self, graph: Graph, node: Node, name: str, sources: Mapping[str, str]) -> None:
        self._taken.add(name)
        made = self._made.node.add(name=name, op=_fit(node.type))
        made.input.extend(sources[tensor] for tensor in node.inputs if tensor in sources)
        for key, value in node.attributes.items():
            _set_attribute(made.attr[key], value)
        for output in node.outputs:
            spec = graph.spec(output)
            _set_shape(made.attr["_output_shapes"].list.shape.add(), None if spec is None else spec.shape)


def _fit(name: str) -> str:
    """Return a name that TensorBoard takes for one: its slashes are scopes, a colon would be an output."""
    return re.sub("/+", "/", _UNFIT.sub("_", name)).strip("/._-") or "unnamed"


def _type(name: str) -> int:
    text = f"DT_{_TYPES.get(name, name.upper())}"
    found: int = tensorflow.DataType.Value(text) if text in tensorflow.DataType.keys() else 0  # noqa: SIM118  # an enum is no mapping
    return found


def _set_shape(proto: Any, shape: Shape | None) -> None:
    if shape is None:
        proto.unknown_rank = True
        return
    for size in shape:
        proto.dim.add(size=-1 if size is None else size)


def _set_attribute(proto: Any, value: Attribute) -> None:
    if isinstance(value, bool):
        proto.b = value
    elif isinstance(value, int):
        if -(2**63) <= value < 2**63:
            proto.i = value
        else:
            proto.s = str(value).encode()
    elif isinstance(value, float):
        proto.f = value
    elif isinstance(value, tuple):
        _set_list(proto.list, value)
    else:
        proto.s = value if isinstance(value, bytes) else str(value).encode()


def _set_list(proto: Any, values: tuple[Attribute, ...]) -> None:
    if values and all(isinstance(value, bool) for value in values):
        proto.b.extend(values)
    elif values and all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in values):
        proto.i.extend(values)
    elif values and all(isinstance(value, int | float) for value in values):
        proto.f.extend(values)
    else:
        proto.s.extend(str(value).encode() for value in values)
