"""A SavedModel's description of itself: signatures, operations, and whether all of its files are there.

Read with definitions of our own, so that it needs no TensorFlow. Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError

from servable.core.errors import Code, ServingError, not_found
from servable.core.signatures import Signature, TensorSpec
from servable.engines.graph import Graph
from servable.engines.tensor_bundle import missing_part
from servable.engines.tensor_proto import dtype_of, shape_of, to_array
from servable.protos import tensorflow

MODEL_FILE = "saved_model.pb"

_VARIABLE_OPERATIONS = {"VarHandleOp", "VariableV2", "Variable"}


@dataclass(frozen=True)
class SavedModel:
    """One meta graph of a SavedModel. ``signatures`` holds all of them, those that cannot be called too."""

    directory: Path
    meta_graph: Any
    signatures: Mapping[str, Signature]
    graph: Graph

    def operations(self, signature: str) -> dict[str, str]:
        """Return the operations that a signature may run, each with the name of one node that does."""
        fetches = [spec.node for spec in self.signatures[signature].outputs.values()]
        found: dict[str, str] = {}
        for node in self.graph.all_reached(fetches):
            found.setdefault(node.op, node.name)
        return found


def read(directory: Path, tags: Sequence[str] = ("serve",)) -> SavedModel:
    """Read the meta graph whose set of tags is exactly ``tags``.

    NOT_FOUND if there is no such file or meta graph; DATA_LOSS if the file cannot be understood.
    """
    return of_message(_parse(directory), directory, tags)


def of_message(saved_model: Any, directory: Path, tags: Sequence[str] = ("serve",)) -> SavedModel:
    """Return the meta graph of a message that was read otherwise; NOT_FOUND as in ``read``."""
    meta_graphs = saved_model.meta_graphs
    for meta_graph in meta_graphs:
        if set(meta_graph.meta_info_def.tags) == set(tags):
            return SavedModel(directory, meta_graph, _signatures(meta_graph), Graph(meta_graph.graph_def))
    available = " ".join(_braced(meta_graph.meta_info_def.tags) for meta_graph in meta_graphs)
    raise not_found(
        f"Could not find meta graph def matching supplied tags: {_braced(tags)}. To inspect available tag-sets in the "
        f"SavedModel, please use the SavedModel CLI: `saved_model_cli`. There are: {available or 'none'}"
    )


def missing(directory: Path) -> str | None:
    """Return what a SavedModel's folder lacks as far as its own files tell, or ``None`` if they prove it whole.

    ``saved_model.pb`` must be understood and hold a graph; the index of its variables must agree with itself and with
    the lengths of the shards; every asset it names must be there. Of an asset the length is not known.
    """
    try:
        meta_graphs = _parse(directory).meta_graphs
    except ServingError as error:
        return error.message
    if not meta_graphs:
        return f"{directory / MODEL_FILE} holds no graph"
    for meta_graph in meta_graphs:
        for asset in meta_graph.asset_file_def:
            if not (directory / "assets" / asset.filename).is_file():
                return f"there is no {directory / 'assets' / asset.filename}"
    variables = directory / "variables"
    if variables.is_dir() or any(_has_variables(meta_graph) for meta_graph in meta_graphs):
        return missing_part(variables)
    return None


def _parse(directory: Path) -> Any:
    path = directory / MODEL_FILE
    try:
        return tensorflow.SavedModel.FromString(path.read_bytes())
    except FileNotFoundError:
        raise not_found(
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}"
        ) from None
    except OSError as error:
        raise ServingError(Code.UNAVAILABLE, f"{path} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error


def _braced(tags: Sequence[str]) -> str:
    return f"{{ {' '.join(sorted(tags))} }}"


def _signatures(meta_graph: Any) -> dict[str, Signature]:
    found = {}
    for name, proto in sorted(meta_graph.signature_def.items()):
        inputs = {alias: _spec(alias, proto.inputs[alias]) for alias in sorted(proto.inputs)}
        outputs = {alias: _spec(alias, proto.outputs[alias]) for alias in sorted(proto.outputs)}
        defaults = MappingProxyType({alias: to_array(value) for alias, value in proto.defaults.items()})
        found[name] = Signature(name, inputs, outputs, proto.method_name, defaults)
    return found


def _spec(alias: str, info: Any) -> TensorSpec:
    return TensorSpec(alias, dtype_of(info.dtype), shape_of(info.tensor_shape), info.name)


def _has_variables(meta_graph: Any) -> bool:
    return bool(meta_graph.saver_def.restore_op_name) or any(
        node.op in _VARIABLE_OPERATIONS for node in _all_nodes(meta_graph.graph_def)
    )


def _all_nodes(graph_def: Any) -> Iterator[Any]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def
