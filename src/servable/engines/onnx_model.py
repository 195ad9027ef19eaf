"""What an ONNX file says about itself: its signature, and whether all of its data is there. Needs no ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from servable.core.errors import Code, ServingError, unimplemented
from servable.core.reading import reading
from servable.core.signatures import DEFAULT_SIGNATURE, Shape, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME
from servable.engines.onnx_skeleton import read_skeleton
from servable.protos import onnx

_OTHER_NAMES = {
    "float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2",
}  # fmt: skip


def read(path: Path) -> Any:
    """Return the file's ModelProto without its weights; NOT_FOUND, or DATA_LOSS if it cannot be understood."""
    try:
        with reading(path):
            return onnx.ModelProto.FromString(read_skeleton(path))
    except (DecodeError, ValueError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error


def signature(model: Any) -> Signature:
    """Return the one signature of an ONNX model. UNIMPLEMENTED names an input or output that is not a tensor."""
    given = {tensor.name for tensor in model.graph.initializer}  # an old file lists its weights as inputs, too
    given |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = [_spec("input", info) for info in model.graph.input if info.name not in given]
    outputs = [_spec("output", info) for info in model.graph.output]
    return Signature(DEFAULT_SIGNATURE, {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs})


def missing(path: Path) -> str | None:
    """Return what an ONNX file or the data files beside it lack, or ``None`` if they prove themselves whole."""
    try:
        model = read(path)
    except ServingError as error:
        return error.message
    if not model.graph.output or not model.opset_import:
        return f"{path} ends before its graph, or its list of operator sets, does"
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL and (lack := _missing_data(path, tensor)) is not None:
            return lack
    return None


def data_files(model: Any) -> list[str]:
    """Return the names of the files beside an ONNX file that hold its data, sorted."""
    external = (tensor for tensor in _tensors(model.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL)
    places = {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}
    return sorted(places)


def _spec(role: str, info: Any) -> TensorSpec:
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        found = (kind or "nothing").removesuffix("_type")
        raise unimplemented(f"{role} {info.name!r} is a {found}; only tensors can be served")
    tensor = info.type.tensor_type
    try:
        name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        dtype = DTYPES_BY_NAME[_OTHER_NAMES.get(name, name)]
    except (KeyError, ValueError):
        raise unimplemented(f"{role} {info.name!r} has the ONNX element type {tensor.elem_type}") from None
    return TensorSpec(info.name, dtype, _shape(tensor), info.name)


def _shape(tensor: Any) -> Shape | None:
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in tensor.shape.dim)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner)


def _missing_data(path: Path, tensor: Any) -> str | None:
    where = {entry.key: entry.value for entry in tensor.external_data}
    data = path.parent / where.get("location", "")
    try:
        needed = int(where.get("offset", "0")) + int(where.get("length", "0"))
    except ValueError:
        return f"{path} says in a way that cannot be read where the data of {tensor.name!r} is"
    try:
        length = data.stat().st_size if data.is_file() else None
    except OSError:
        length = None
    if length is None:
        return f"there is no {data}, which holds {tensor.name!r}"
    return f"{data} has {length} of at least {needed} bytes" if length < needed else None
