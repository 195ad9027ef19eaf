"""A frozen graph: a GraphDef whose variables have become constants, as bytes (``.pb``) or text (``.pbtxt``).

It has no signature. What stands in ``servable.toml`` is its signature; without that, its placeholders and the nodes
that nothing consumes are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError

from servable.core.errors import Code, ServingError, failed_precondition
from servable.core.reading import reading
from servable.core.signatures import DEFAULT_SIGNATURE, Shape, Signature, TensorSpec
from servable.engines.fitting import check_like
from servable.engines.graph import edge
from servable.engines.signature_settings import read_signature_settings, to_write
from servable.engines.tensor_proto import dtype_of
from servable.protos import tensorflow, text_format

_VARIABLES: Final = frozenset({"Variable", "VariableV2", "VarHandleOp"})
_PLACEHOLDERS: Final = frozenset({"Placeholder", "PlaceholderV2"})
_NO_ANSWERS: Final = ("Summary", "Save", "Assert", "Print", "Assign")
"""In the names of operations that training leaves behind: they answer nobody."""


def read(path: Path) -> Any:
    """Return the GraphDef, as a message of ours. NOT_FOUND; UNAVAILABLE; DATA_LOSS if it cannot be understood."""
    try:
        with reading(path):
            data = path.read_bytes()
        if path.suffix == ".pbtxt":
            return text_format.parse(data, tensorflow.GraphDef, str(path))
        return tensorflow.GraphDef.FromString(data)
    except (DecodeError, ValueError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error


def missing(path: Path) -> str | None:
    """Return what the file lacks, or ``None`` if it proves itself whole.

    Every node's inputs must be there, and the versions, which are written after all nodes.
    """
    try:
        graph = read(path)
    except ServingError as error:
        return error.message
    if not graph.node:
        return f"{path} holds no graph"
    names = {node.name for node in graph.node}
    for node in graph.node:
        for source in node.input:
            if edge(source).source not in names:
                return f"{path} lacks the node {edge(source).source}, which {node.name} takes"
    return None if graph.HasField("versions") else f"{path} ends before its versions, which come after the nodes"


def check_frozen(graph: Any, path: Path) -> None:
    """Raise FAILED_PRECONDITION if the graph has variables, whose values are in a checkpoint, or lacks constants'."""
    for node in graph.node:
        if node.op == "Const" and "value" not in node.attr:
            raise failed_precondition(
                f"{path} was written to be read: {node.name} has no value; servable freeze --text writes a graph that "
                "can be served"
            )
        if node.op in _VARIABLES:
            raise failed_precondition(
                f"{path} is not frozen: {node.name} is a {node.op}, whose value is in a checkpoint; freeze it "
                "(servable freeze), or serve a SavedModel"
            )


def signatures(graph: Any, path: Path, settings: Path | None) -> dict[str, Signature]:
    """Return the signatures of a graph that TensorFlow has imported: those stated, else one that it shows itself.

    FAILED_PRECONDITION names the file and key of a tensor that is not as stated; or says what is to be written.
    """
    stated = {} if settings is None else read_signature_settings(settings)
    if settings is not None and stated:
        return {
            name: _with_nodes(graph, signature, f"{settings}: signatures.{name}") for name, signature in stated.items()
        }
    operations = graph.get_operations()
    inputs = {operation.name: operation.outputs[0] for operation in operations if operation.type in _PLACEHOLDERS}
    outputs = dict(_unconsumed(operations, inputs))
    if not inputs or not outputs:
        lack = "has no placeholder" if not inputs else "has no node that depends on a placeholder and feeds no other"
        names = {"inputs": list(inputs) or ["x"], "outputs": list(outputs) or ["y"]}
        raise failed_precondition(
            f"{path} {lack}, by which its signature could be told: "
            f"{to_write(path, names)}; node says which tensor of the graph it is"
        )
    return {DEFAULT_SIGNATURE: Signature(DEFAULT_SIGNATURE, _specs(inputs), _specs(outputs))}


def _unconsumed(operations: list[Any], inputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what is computed from the inputs and goes to no other operation."""
    reached: set[str] = set()
    waiting = list(inputs.values())
    while waiting:
        for operation in waiting.pop().consumers():
            if operation.name not in reached:
                reached.add(operation.name)
                waiting += operation.outputs
    for operation in operations:
        is_end = operation.outputs and not any(tensor.consumers() for tensor in operation.outputs)
        if is_end and operation.name in reached and not any(word in operation.type for word in _NO_ANSWERS):
            for place, tensor in enumerate(operation.outputs):
                yield (operation.name if place == 0 else f"{operation.name}_{place}"), tensor


def _with_nodes(graph: Any, signature: Signature, where: str) -> Signature:
    return replace(
        signature,
        inputs={name: _found(graph, spec, f"{where}.inputs.{name}") for name, spec in signature.inputs.items()},
        outputs={name: _found(graph, spec, f"{where}.outputs.{name}") for name, spec in signature.outputs.items()},
    )


def _found(graph: Any, spec: TensorSpec, where: str) -> TensorSpec:
    node = spec.node if ":" in spec.node else f"{spec.node}:0"
    try:
        tensor = graph.get_tensor_by_name(node)
    except (KeyError, ValueError):
        raise failed_precondition(f"{where}.node: the graph has no tensor {node!r}") from None
    own = _spec(spec.name, tensor)
    check_like(spec, own, where)
    return replace(spec, node=node)


def _specs(tensors: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _spec(name, tensor) for name, tensor in tensors.items()}


def _spec(name: str, tensor: Any) -> TensorSpec:
    shape: Shape | None = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return TensorSpec(name, dtype_of(tensor.dtype.as_datatype_enum), shape, tensor.name)
