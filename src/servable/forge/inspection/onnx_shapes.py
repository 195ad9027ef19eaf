"""Shapes by ONNX's own inference, and where that ends: computed shapes, and operations that ONNX Runtime adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servable.forge.inspection.onnx_values import known_values, shape_given
from servable.protos import onnx

_MICROSOFT = "com.microsoft"
_LIKE: Mapping[str, str] = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
"""Operations whose results have the shapes of those of another."""
_MOST_ROUNDS = 12


def infer(model: Any) -> Any:
    """Return a model with what can be known of its tensors; raises whatever ONNX raises.

    Functions of the model's own are put in their places first. What the inference does not see is told to it by and by:
    a stack of layers takes a round for each.
    """
    import onnx as library

    text = model.SerializeToString()
    if model.functions:
        from onnx import inliner

        text = inliner.inline_local_functions(library.load_model_from_string(text)).SerializeToString()
    found = onnx.ModelProto.FromString(text)
    disguised = {place: node.op_type for place, node in enumerate(found.graph.node) if _is_like(node)}
    for place, kind in disguised.items():
        found.graph.node[place].op_type, found.graph.node[place].domain = _LIKE[kind], ""
    for _ in range(_MOST_ROUNDS):
        made = library.shape_inference.infer_shapes(found.SerializeToString(), data_prop=True).SerializeToString()
        inferred = onnx.ModelProto.FromString(made)
        told = {info.name: info for info in _told(inferred.graph)}
        if not told:
            break
        kept = [info for info in found.graph.value_info if info.name not in told]
        del found.graph.value_info[:]
        found.graph.value_info.extend([*kept, *told.values()])
    for place, kind in disguised.items():
        inferred.graph.node[place].op_type, inferred.graph.node[place].domain = kind, _MICROSOFT
    return inferred


def _is_like(node: Any) -> bool:
    return node.domain == _MICROSOFT and node.op_type in _LIKE


def _told(graph: Any) -> Iterator[Any]:
    """Yield what follows for results that ONNX's inference left open."""
    known = {
        info.name: sizes
        for info in (*graph.value_info, *graph.input, *graph.output)
        if (sizes := _sizes(info)) is not None
    }
    known |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    types = {info.name: info.type.tensor_type.elem_type for info in graph.value_info}
    values = known_values(graph, known)
    for node in graph.node:
        if not node.output or node.output[0] in known:
            continue
        if node.domain == _MICROSOFT and node.op_type == "DynamicQuantizeLSTM":
            yield from _states(node, known)
        elif (shape := shape_given(node, values, known)) is not None:
            yield _info(node.output[0], shape, types.get(node.output[0], onnx.TensorProto.FLOAT))


def _states(node: Any, known: Mapping[str, tuple[int, ...]]) -> Iterator[Any]:
    data, recurrent = known.get(node.input[0]), known.get(node.input[2])
    if data is None or recurrent is None or len(data) != 3 or len(recurrent) != 3:
        return
    directions, units, _ = recurrent
    shapes = ((data[0], directions, data[1], units), (directions, data[1], units), (directions, data[1], units))
    for name, shape in zip(node.output, shapes, strict=False):
        if name:
            yield _info(name, shape, onnx.TensorProto.FLOAT)


def _sizes(info: Any) -> tuple[int, ...] | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape") or any(dim.WhichOneof("value") != "dim_value" for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def _info(name: str, shape: Sequence[int], element_type: int) -> Any:
    info = onnx.ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = element_type
    for size in shape:
        info.type.tensor_type.shape.dim.add(dim_value=size)
    return info
