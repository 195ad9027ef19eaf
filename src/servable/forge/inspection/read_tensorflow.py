"""SavedModels and GraphDefs, binary or text, as graphs: by our own protos, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from servable.core.errors import Code, ServingError
from servable.core.reading import reading
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME
from servable.engines import savedmodel
from servable.engines.graph import Graph as Definitions
from servable.engines.graph import attribute, edge
from servable.engines.tensor_proto import dtype_of, shape_of
from servable.forge.inspection.assumed import assumed_shape, check_names, notes
from servable.forge.inspection.graph import Bound, Graph, Inspection
from servable.forge.inspection.stated import stated_signatures
from servable.forge.inspection.tf_graph import Inliner
from servable.forge.inspection.tf_known import Known, whole
from servable.protos import tensorflow
from servable.protos.text_format import parse

TEXT_FILE = "saved_model.pbtxt"
_NO_RESULT = frozenset({"Const", "Placeholder", "NoOp", "Assert", "PrintV2", "SaveV2", "RestoreV2"})


def read_saved_model(path: Path, bound: Bound) -> Inspection:
    """Read a SavedModel's folder; NOT_FOUND, or DATA_LOSS if it cannot be understood."""
    is_text = not (path / savedmodel.MODEL_FILE).is_file() and (path / TEXT_FILE).is_file()
    model = _text_model(path) if is_text else savedmodel.read(path)
    if not is_text and (lacking := savedmodel.missing(path)) is not None:
        raise ServingError(Code.DATA_LOSS, lacking)
    callable_ones = {name: found for name, found in model.signatures.items() if _computes(found)}
    check_names(bound, callable_ones)
    operations = {definition.name: definition for definition in model.meta_graph.meta_info_def.stripped_op_list.op}
    graphs = {
        name: signature_graph(model.graph, operations, signature, bound) for name, signature in callable_ones.items()
    }
    info = model.meta_graph.meta_info_def
    facts = {
        "producer": f"tensorflow {info.tensorflow_version}".strip(),
        "functions": str(len(model.graph.functions)),
        "nodes": _node_count(model.meta_graph.graph_def),
    }
    said = [line for signature in callable_ones.values() for line in notes(signature.inputs.values(), bound)]
    return Inspection("saved_model", path, model.signatures, graphs, facts, tuple(dict.fromkeys(said)))


def read_graph_def(path: Path, bound: Bound) -> Inspection:
    """Read a GraphDef. Its signature stands in ``servable.toml`` beside it, else it is what is fed and what is left."""
    graph_def = load_graph_def(path)
    definitions = Definitions(graph_def)
    said: list[str] = []
    signatures = stated_signatures(path)
    if not signatures:
        signatures = {DEFAULT_SIGNATURE: _guessed(definitions)}
        said.append("the file names no signature: its inputs are the placeholders, its outputs what nothing else takes")
    check_names(bound, signatures)
    graphs = {name: signature_graph(definitions, {}, signature, bound) for name, signature in signatures.items()}
    for signature in signatures.values():
        said += notes(signature.inputs.values(), bound)
    facts = {
        "producer": f"tensorflow graph version {graph_def.versions.producer}",
        "functions": str(len(definitions.functions)),
        "nodes": _node_count(graph_def),
    }
    return Inspection("graph_def", path, signatures, graphs, facts, tuple(dict.fromkeys(said)))


def load_graph_def(path: Path) -> Any:
    """Return the GraphDef of a file; a text one is told by its suffix."""
    return _load(path, tensorflow.GraphDef, "node")


def load_saved_model(path: Path) -> Any:
    """Return the meta graph that serves, of a folder."""
    is_text = not (path / savedmodel.MODEL_FILE).is_file()
    return (_text_model(path) if is_text else savedmodel.read(path)).meta_graph


def signature_graph(
    definitions: Definitions, operations: Mapping[str, Any], signature: Signature, bound: Bound
) -> Graph:
    """Return what computing a signature runs, with the shapes that follow from those of its inputs."""
    fed = {spec.node: Known(spec.dtype.name, whole(assumed_shape(spec, bound))) for spec in signature.inputs.values()}
    fetches = [spec.node for spec in signature.outputs.values()]
    inliner = Inliner(definitions, operations)
    inliner.add_top(definitions.reached(fetches), fed)
    return inliner.graph([spec.node for spec in signature.inputs.values()], fetches)


def _load(path: Path, message: Any, needed: str) -> Any:
    with reading(path):
        data = path.read_bytes()
    try:
        if path.suffix == ".pbtxt":
            found = parse(data, message, str(path), allow_unknown=True)
        else:
            found = message.FromString(data)
    except DecodeError as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error
    except ValueError as error:
        raise ServingError(Code.DATA_LOSS, f"{error}") from error
    if not getattr(found, needed) or (needed == "node" and not all(node.op and node.name for node in found.node)):
        raise ServingError(Code.DATA_LOSS, f"{path} is not a {message.DESCRIPTOR.name}: it has no {needed}s")
    return found


def _text_model(directory: Path) -> savedmodel.SavedModel:
    return savedmodel.of_message(_load(directory / TEXT_FILE, tensorflow.SavedModel, "meta_graphs"), directory)


def _computes(signature: Signature) -> bool:
    return bool(signature.outputs) and all(spec.dtype.name in DTYPES_BY_NAME for spec in signature.outputs.values())


def _node_count(graph_def: Any) -> str:
    return str(len(graph_def.node) + sum(len(function.node_def) for function in graph_def.library.function))


def _guessed(definitions: Definitions) -> Signature:
    taken = {edge(text).source for node in definitions.nodes.values() for text in node.input}
    inputs: dict[str, TensorSpec] = {}
    outputs: dict[str, TensorSpec] = {}
    for node in definitions.nodes.values():
        if node.op == "Placeholder":
            dtype, proto = dtype_of(attribute(node, "dtype").type), attribute(node, "shape").shape
            shape = shape_of(proto) if "shape" in node.attr else None
            inputs[node.name] = TensorSpec(node.name, dtype, shape, f"{node.name}:0")
        elif node.name not in taken and node.op not in _NO_RESULT:
            outputs[node.name] = _end(node)
    return Signature(DEFAULT_SIGNATURE, inputs, outputs)


def _end(node: Any) -> TensorSpec:
    types: Sequence[Any] = [
        node.attr[name].type for name in ("output_type", "out_type", "DstT", "dtype", "T") if name in node.attr
    ]
    stated = attribute(node, "_output_shapes").list.shape
    dtype = dtype_of(types[0]) if types else dtype_of(tensorflow.DataType.DT_FLOAT)
    return TensorSpec(node.name, dtype, shape_of(stated[0]) if stated else None, f"{node.name}:0")
