"""ONNX files as graphs. Shapes come from ONNX's own inference, with the inputs bound first; weights are never read."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from servable.core.errors import Code, ServingError, not_found
from servable.core.signatures import DEFAULT_SIGNATURE, Shape, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME, Array, dtype_named
from servable.engines import onnx_model
from servable.engines.onnx_skeleton import read_skeleton
from servable.forge.inspection.assumed import assumed_shape, check_names, notes
from servable.forge.inspection.graph import (
    Attribute,
    Body,
    Bound,
    Graph,
    Inspection,
    Node,
    Parameter,
    is_weight,
    tensor_bytes,
)
from servable.forge.inspection.names import unique_names
from servable.forge.inspection.onnx_shapes import infer
from servable.protos import onnx

_KEPT_BYTES = 4096
"""Constants up to so long are read: shapes and axes, which other shapes depend on."""
_OTHER_NAMES = {
    "float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2",
    "float8e4m3fnuz": "float8_e4m3fnuz", "float8e5m2fnuz": "float8_e5m2fnuz", "float4e2m1": "float4_e2m1",
}  # fmt: skip
_DATA_FIELDS = {
    "float32": "float_data", "float64": "double_data", "int64": "int64_data", "uint64": "uint64_data",
    "int32": "int32_data", "bool": "int32_data", "int8": "int32_data", "uint8": "int32_data",
}  # fmt: skip


def read(path: Path, bound: Bound) -> Inspection:
    """Read an ONNX file. NOT_FOUND, or DATA_LOSS if it cannot be understood."""
    model = _read(path)
    if not model.graph.node and not model.graph.output:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: it holds no graph")
    if (lacking := onnx_model.missing(path)) is not None:
        raise ServingError(Code.DATA_LOSS, lacking)
    signature, unserved = _signature(model)
    signatures = {signature.name: signature}
    check_names(bound, signatures)
    shapes = {spec.name: assumed_shape(spec, bound) for spec in signature.inputs.values()}
    inferred, said = _inferred(model, shapes)
    graph = _Reader().graph(inferred.graph)
    opsets = ", ".join(f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in model.opset_import)
    facts = {"producer": f"{model.producer_name} {model.producer_version}".strip() or "unknown", "operators": opsets}
    return Inspection(
        "onnx",
        path,
        signatures,
        {signature.name: graph},
        facts,
        (*unserved, *notes(signature.inputs.values(), bound), *said),
    )


def _signature(model: Any) -> tuple[Signature, list[str]]:
    """Return the signature; of a model that gives what is no tensor, the tensors, and a word about the rest."""
    try:
        return onnx_model.signature(model), []
    except ServingError as error:
        given = {tensor.name for tensor in model.graph.initializer}
        parts = [
            {info.name: TensorSpec(info.name, spec.dtype, spec.shape, info.name) for info in infos
             if info.name not in given and (spec := _spec(info)) is not None}
            for infos in (model.graph.input, model.graph.output)
        ]  # fmt: skip
        return Signature(DEFAULT_SIGNATURE, parts[0], parts[1]), [error.message]


def dtype_name(number: int) -> str:
    """Return our name of an ONNX element type."""
    try:
        name: str = onnx.TensorProto.DataType.Name(number).lower()
    except ValueError:
        return f"type {number}"
    return _OTHER_NAMES.get(name, name)


def _read(path: Path) -> Any:
    try:
        return onnx.ModelProto.FromString(read_skeleton(path, keep_bytes=_KEPT_BYTES))
    except (FileNotFoundError, IsADirectoryError):
        raise not_found(f"there is no file {path}") from None
    except OSError as error:
        raise ServingError(Code.UNAVAILABLE, f"{path} cannot be read: {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error


def _inferred(model: Any, shapes: Mapping[str, Shape | None]) -> tuple[Any, list[str]]:
    """Return the model with all shapes that follow from those of its inputs, and what could not be done."""
    symbols = _bind(model, shapes)
    _substitute(model.graph, symbols)
    if importlib.util.find_spec("onnx") is None:
        return model, ["shapes are only those that the file states: pip install 'servable[forge]' to infer the others"]
    stated = [info for info in model.graph.value_info if _is_closed(info)]
    del model.graph.value_info[:]  # open sizes of another call would stand in the way
    model.graph.value_info.extend(stated)
    try:
        return infer(model), []
    except Exception as error:  # noqa: BLE001  # what a foreign inference raises is of many kinds
        reason = " ".join(str(error).split())[:200]
        return model, [f"ONNX's shape inference failed, so costs are not known: {reason}"]


def _is_closed(info: Any) -> bool:
    tensor = info.type.tensor_type
    return tensor.HasField("shape") and all(dim.WhichOneof("value") == "dim_value" for dim in tensor.shape.dim)


def _bind(model: Any, shapes: Mapping[str, Shape | None]) -> dict[str, int]:
    """Write the assumed sizes into the inputs; return the symbols that got a value by it."""
    symbols: dict[str, int] = {}
    for info in model.graph.input:
        shape = shapes.get(info.name)
        if shape is None:
            continue
        proto = info.type.tensor_type.shape
        while len(proto.dim) < len(shape):
            proto.dim.add()
        for dim, size in zip(proto.dim, shape, strict=True):
            if size is not None:
                if dim.dim_param:
                    symbols.setdefault(dim.dim_param, size)
                dim.dim_value = size
    return symbols


def _substitute(graph: Any, symbols: Mapping[str, int]) -> None:
    for info in (*graph.value_info, *graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param]


@dataclass
class _Reader:
    """One graph in the making, with what the graphs around it know."""

    outer: Mapping[str, TensorSpec] = field(default_factory=dict)
    outer_values: Mapping[str, Array] = field(default_factory=dict)

    def graph(self, proto: Any) -> Graph:
        tensors, values = dict(self.outer), dict(self.outer_values)
        parameters: dict[str, Parameter] = {}
        for info in (*proto.value_info, *proto.output, *proto.input):
            if (spec := _spec(info)) is not None:
                tensors[info.name] = spec
        given = [(tensor.name, tensor) for tensor in proto.initializer]
        given += [(sparse.values.name, sparse.values) for sparse in proto.sparse_initializer]
        given += [(node.output[0], tensor) for node in proto.node for tensor in _constant(node)]
        for name, tensor in given:
            spec = TensorSpec(name, dtype_named(dtype_name(tensor.data_type)), tuple(tensor.dims))
            tensors[name] = spec
            if is_weight(spec.dtype.name, tuple(tensor.dims)):
                size = tensor_bytes(spec.dtype.name, tuple(tensor.dims)) or 0
                parameters[name] = Parameter(name, spec.dtype.name, tuple(tensor.dims), size)
            if (value := _array(tensor, spec.dtype.name)) is not None:
                values[name] = value
        names = unique_names([node.name or f"{node.op_type}_{index}" for index, node in enumerate(proto.node)])
        nodes = tuple(self._node(node, name, tensors, values) for node, name in zip(proto.node, names, strict=True))
        inputs = tuple(info.name for info in proto.input if info.name not in dict(given))
        return Graph("onnx", nodes, tensors, inputs, tuple(info.name for info in proto.output), parameters, values)

    def _node(self, node: Any, name: str, tensors: dict[str, TensorSpec], values: dict[str, Array]) -> Node:
        attributes = {given.name: _attribute(given) for given in node.attribute}
        bodies = []
        for given in node.attribute:
            for inner in _graphs(given):
                graph = _Reader(tensors, values).graph(inner)
                bodies.append(Body(given.name, graph, _runs(node, given.name, graph, tensors, values)))
        plain = {key: value for key, value in attributes.items() if value is not None}
        if node.domain not in ("", "ai.onnx"):
            plain["domain"] = node.domain
        return Node(name, node.op_type, tuple(node.input), tuple(node.output), plain, tuple(bodies))


def _runs(
    node: Any, role: str, body: Graph, tensors: Mapping[str, TensorSpec], values: Mapping[str, Array]
) -> int | None:
    if node.op_type == "Loop":
        most = values.get(node.input[0]) if node.input[0] else None
        begins = len(node.input) < 2 or not node.input[1] or _is_true(values.get(node.input[1]))
        goes_on = body.outputs[0] == body.inputs[1] or _is_true(body.values.get(body.outputs[0]))
        goes_on = goes_on or any(
            inner.type == "Identity" and inner.outputs[0] == body.outputs[0] and inner.inputs[0] == body.inputs[1]
            for inner in body.nodes
        )
        return int(most.reshape(-1)[0]) if most is not None and most.size == 1 and begins and goes_on else None
    if node.op_type == "Scan":
        spec = tensors.get(node.input[-1])
        axes = next((tuple(given.ints) for given in node.attribute if given.name == "scan_input_axes"), (0,))
        shape = None if spec is None else spec.shape
        return shape[axes[-1]] if shape else None
    return None


def _is_true(value: Array | None) -> bool:
    return value is not None and value.size == 1 and bool(value.reshape(-1)[0])


def _spec(info: Any) -> TensorSpec | None:
    if info.type.WhichOneof("value") != "tensor_type":
        return None
    tensor = info.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in tensor.shape.dim)
    return TensorSpec(info.name, dtype_named(dtype_name(tensor.elem_type)), shape)


def _constant(node: Any) -> Iterator[Any]:
    if node.op_type == "Constant" and node.output:
        yield from (given.t for given in node.attribute if given.name == "value" and given.HasField("t"))


def _array(tensor: Any, dtype: str) -> Array | None:
    """Return a small constant; ``None`` where its bytes were left in the file."""
    field_name = _DATA_FIELDS.get(dtype)
    if field_name is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    numpy_type = DTYPES_BY_NAME[dtype].numpy
    try:
        if tensor.raw_data:
            return np.frombuffer(tensor.raw_data, numpy_type).reshape(tuple(tensor.dims))
        return np.array(getattr(tensor, field_name), numpy_type).reshape(tuple(tensor.dims))
    except ValueError:
        return None


def _graphs(attribute: Any) -> Sequence[Any]:
    if attribute.type == onnx.AttributeProto.GRAPH:
        return (attribute.g,)
    return tuple(attribute.graphs)


def _attribute(attribute: Any) -> Attribute:
    """Return an attribute's value; a tensor as what it is, ``None`` for a graph."""
    kind = attribute.type
    if kind in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return tuple(attribute.ints or attribute.floats)
    if kind == onnx.AttributeProto.STRINGS:
        return tuple(text.decode(errors="replace") for text in attribute.strings)
    if kind == onnx.AttributeProto.INT:
        return int(attribute.i)
    if kind == onnx.AttributeProto.FLOAT:
        return float(attribute.f)
    if kind == onnx.AttributeProto.STRING:
        return str(attribute.s.decode(errors="replace"))
    if kind == onnx.AttributeProto.TENSOR:
        return f"{dtype_name(attribute.t.data_type)}{list(attribute.t.dims)}"
    return None
