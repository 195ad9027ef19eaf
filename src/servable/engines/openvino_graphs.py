"""Artifacts as OpenVINO graphs: one graph per signature, with the shapes that are asked for.

A SavedModel is read from a copy of its ``saved_model.pb`` in which one signature is the only one, is the default and
has input and output names of its own: with several, or with a name that is both an input's and an output's, OpenVINO
merges them in silence. The variables and assets stay where they are; the copy refers to them.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servable.core.errors import failed_precondition
from servable.core.signatures import DEFAULT_SIGNATURE, Shape, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME, DType
from servable.engines import onnx_model, savedmodel
from servable.engines.base import Artifact, EngineOptions
from servable.engines.graph import edge
from servable.engines.openvino_flow import Bounds, exact_bounds
from servable.engines.openvino_limits import UNHELD_DTYPES, check, refusal
from servable.engines.openvino_messages import unconverted, useful
from servable.engines.tensor_bundle import read_index
from servable.protos import tensorflow

Shapes = Mapping[str, Shape]
"""Input -> the shape to read it with, in place of the declared one."""


@dataclass(frozen=True)
class Wiring:
    """A graph, and at which place each named input and output is. An input that nothing uses has none.

    ``matrices_only``: every product in it is one of two matrices, where OpenVINO would take any rank.
    """

    graph: Any
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    matrices_only: bool = False


class Source(ABC):
    """What graphs are read from. ``bounds``: signature -> integer input -> what it may hold."""

    signatures: Mapping[str, Signature]
    bounds: Mapping[str, dict[str, Bounds]]
    shapes_are_binding: bool
    """Whether a request must have the declared shapes; for a SavedModel they are documentation."""

    @abstractmethod
    def read(self, signature: str, shapes: Shapes | None = None) -> Wiring:
        """Return a new graph for a signature, as declared or with other shapes; ``ServingError`` if there is none."""


def source(core: Any, artifact: Artifact, options: EngineOptions) -> Source:
    """Open an artifact; UNIMPLEMENTED names what in it OpenVINO cannot hold."""
    if artifact.kind == "saved_model":
        return _SavedModelSource(core, savedmodel.read(artifact.path, options.saved_model_tags))
    return _FileSource(core, artifact)


def runnable(signature: Signature) -> bool:
    """Return whether a signature can be called: ``__saved_model_init_op`` has an output that is no tensor."""
    specs = (*signature.inputs.values(), *signature.outputs.values())
    return bool(signature.outputs) and all(spec.dtype.name in DTYPES_BY_NAME for spec in specs)


class _FileSource(Source):
    """An ONNX file or an OpenVINO model: one signature, whose shapes mean what they say."""

    shapes_are_binding = True

    def __init__(self, core: Any, artifact: Artifact) -> None:
        self._core = core
        self._path = artifact.path
        if artifact.kind == "onnx":
            signature = onnx_model.signature(onnx_model.read(artifact.path))
        else:
            signature = _signature_of(self._graph())
        for spec in (*signature.inputs.values(), *signature.outputs.values()):
            if spec.dtype.name in UNHELD_DTYPES:
                instead = "; the engine onnxruntime runs it" if artifact.kind == "onnx" else ""
                raise failed_precondition(
                    f"OpenVINO cannot hold {spec.dtype} exactly: {spec.name!r} of {artifact.path}{instead}"
                )
        self.signatures = {signature.name: signature}
        self.bounds = {signature.name: _exact(signature)}
        self._unused: Wiring | None = None
        self._unused = self.read(signature.name)
        for name, bounds in _table_bounds(self._unused).items():
            self.bounds[signature.name][name] = bounds.within(self.bounds[signature.name].get(name))

    def read(self, signature: str, shapes: Shapes | None = None) -> Wiring:
        if shapes is None and self._unused is not None:
            unused, self._unused = self._unused, None
            return unused
        graph = self._graph()
        spec = self.signatures[signature]
        inputs = _places(graph.inputs, {name: name for name in spec.inputs})
        outputs = _places(graph.outputs, {name: name for name in spec.outputs})
        if lost := spec.outputs.keys() - outputs.keys():
            raise failed_precondition(f"OpenVINO drops the outputs {sorted(lost)} of {self._path}")
        if shapes:
            graph.reshape({inputs[name]: partial_shape(shape) for name, shape in shapes.items() if name in inputs})
        return Wiring(graph, inputs, outputs)

    def _graph(self) -> Any:
        try:
            return self._core.read_model(str(self._path))
        except Exception as error:
            raise failed_precondition(f"OpenVINO cannot read {self._path}: {useful(error)}") from error


class _SavedModelSource(Source):
    """A SavedModel. Its graph is kept until every signature was read once; to read again, the file is parsed again."""

    shapes_are_binding = False

    def __init__(self, core: Any, model: savedmodel.SavedModel) -> None:
        self._core = core
        self._directory = model.directory
        self._tags = tuple(model.meta_graph.meta_info_def.tags)
        self._identity = _identity(model.directory)
        self._model: savedmodel.SavedModel | None = model
        self.signatures = model.signatures
        callable_ones = {name: spec for name, spec in model.signatures.items() if runnable(spec)}
        self.bounds = {name: check(model, spec) for name, spec in callable_ones.items()}
        for spec in callable_ones.values():
            _check_variables(model, spec)

    def read(self, signature: str, shapes: Shapes | None = None) -> Wiring:
        model = self._model or self._again()
        spec = model.signatures[signature]
        with tempfile.TemporaryDirectory(prefix="servable-") as folder:
            _write_copy(Path(folder), model, spec, shapes or {})
            try:
                graph = self._core.read_model(folder)
            except Exception as error:
                operations = unconverted(error)
                reason = f"operation {operations}" if operations else useful(error)
                raise refusal(model, spec, reason) from error
        inputs = _places(graph.inputs, _aliases(spec.inputs, "input"))
        outputs = _places(graph.outputs, _aliases(spec.outputs, "output"))
        for name in spec.outputs.keys() - outputs.keys():
            raise refusal(model, spec, f"it drops the output {name!r}, which depends on no input")
        batched = any(name.startswith(("BatchMatMul", "Einsum")) for name in model.operations(signature))
        return Wiring(graph, inputs, outputs, matrices_only=not batched)

    def forget(self) -> None:
        """Free the parsed graph, which holds the model's constants a second time."""
        self._model = None

    def _again(self) -> savedmodel.SavedModel:
        if _identity(self._directory) != self._identity:
            raise failed_precondition(f"{self._directory} is no longer what was loaded from it")
        return savedmodel.read(self._directory, self._tags)


def forget(opened: Source) -> None:
    """Free what a source keeps only until each signature was read once."""
    if isinstance(opened, _SavedModelSource):
        opened.forget()


def partial_shape(shape: Shape) -> Any:
    """Return OpenVINO's form of a shape with free dimensions."""
    from openvino import PartialShape

    return PartialShape([-1 if size is None else size for size in shape])


def _check_variables(model: savedmodel.SavedModel, spec: Signature) -> None:
    if "VarHandleOp" not in model.operations(spec.name):
        return
    entries = read_index(model.directory / "variables" / "variables.index").entries
    if any(entry.sliced for entry in entries.values()):
        raise refusal(model, spec, "operation VarHandleOp: its variables are stored in slices, which OpenVINO mixes up")


def _identity(directory: Path) -> tuple[int, ...]:
    found = (directory / savedmodel.MODEL_FILE).stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _aliases(specs: Mapping[str, TensorSpec], role: str) -> dict[str, str]:
    return {name: f"servable_{role}_{index}" for index, name in enumerate(specs)}


def _write_copy(folder: Path, model: savedmodel.SavedModel, spec: Signature, shapes: Shapes) -> None:
    """Write a SavedModel whose only signature is this one; its placeholders take the given shapes."""
    copy = tensorflow.SavedModel(saved_model_schema_version=1, meta_graphs=[model.meta_graph])
    meta_graph = copy.meta_graphs[0]
    meta_graph.meta_info_def.tags[:] = ["serve"]
    given = model.meta_graph.signature_def[spec.name]
    meta_graph.signature_def.clear()
    written = meta_graph.signature_def[DEFAULT_SIGNATURE]
    written.method_name = given.method_name
    for name, alias in _aliases(spec.inputs, "input").items():
        written.inputs[alias].CopyFrom(given.inputs[name])
    for name, alias in _aliases(spec.outputs, "output").items():
        written.outputs[alias].CopyFrom(given.outputs[name])
    placeholders = {edge(spec.inputs[name].node).source: shape for name, shape in shapes.items()}
    for node in meta_graph.graph_def.node:
        if node.name in placeholders:
            node.attr.pop("_output_shapes", None)
            _set_shape(node.attr["shape"].shape, placeholders[node.name])
    for name, shape in shapes.items():
        _set_shape(written.inputs[_aliases(spec.inputs, "input")[name]].tensor_shape, shape)
    (folder / savedmodel.MODEL_FILE).write_bytes(copy.SerializeToString())
    for name in ("variables", "assets"):
        if (model.directory / name).is_dir():
            (folder / name).symlink_to((model.directory / name).absolute())


def _set_shape(proto: Any, shape: Shape) -> None:
    proto.Clear()
    for size in shape:
        proto.dim.add().size = -1 if size is None else size


def _places(ports: Any, tensor_names: Mapping[str, str]) -> dict[str, int]:
    """Return the place of each named port. Two outputs that are one tensor share all of their names."""
    found = {}
    for name, tensor_name in tensor_names.items():
        for place, port in enumerate(ports):
            if tensor_name in port.get_names() or tensor_name == _own_name(port):
                found[name] = place
                break
    return found


def _own_name(port: Any) -> str:
    return min(port.get_names(), default="") or str(port.get_node().get_friendly_name())


def _signature_of(graph: Any) -> Signature:
    inputs = [_spec(port, _own_name(port)) for port in graph.inputs]
    outputs = [_spec(port, _own_name(port)) for port in graph.outputs]
    return Signature(DEFAULT_SIGNATURE, {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs})


def _spec(port: Any, name: str) -> TensorSpec:
    shape = port.partial_shape
    sizes = None if shape.rank.is_dynamic else tuple(None if dim.is_dynamic else dim.get_length() for dim in shape)
    return TensorSpec(name, _dtype(port, name), sizes, name)


_NAMES = {
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "i4": "int4", "u4": "uint4",
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "u8": "uint8", "u16": "uint16", "u32": "uint32",
    "u64": "uint64", "boolean": "bool", "string": "string", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
}  # fmt: skip


def _dtype(port: Any, name: str) -> DType:
    type_name = port.element_type.get_type_name()
    if type_name not in _NAMES:
        raise failed_precondition(f"{name!r} is {type_name}, which is not a type of tensors that can be served")
    return DTYPES_BY_NAME[_NAMES[type_name]]


_INDEX_KEEPERS = frozenset({"Convert", "Reshape", "Squeeze", "Unsqueeze", "Transpose"})


def _table_bounds(wiring: Wiring) -> dict[str, Bounds]:
    """Return the bounds of inputs that pick rows of a constant table: OpenVINO gives zeros for rows beyond it."""
    names = {wiring.graph.inputs[place].get_node().get_friendly_name(): name for name, place in wiring.inputs.items()}
    found: dict[str, Bounds] = {}
    for operation in wiring.graph.get_ops():
        if operation.get_type_name() != "Gather":
            continue
        table, index, axis = (operation.input_value(place).get_node() for place in range(3))
        while table.get_type_name() == "Convert":
            table = table.input_value(0).get_node()
        while index.get_type_name() in _INDEX_KEEPERS:
            index = index.input_value(0).get_node()
        name = names.get(index.get_friendly_name())
        if name is not None and table.get_type_name() == axis.get_type_name() == "Constant" and not axis.data.any():
            rows = table.get_output_shape(0)[0]
            bounds = Bounds(-rows, rows - 1, f"it is not in [{-rows}, {rows})")
            found[name] = bounds.within(found.get(name))
    return found


def _exact(signature: Signature) -> dict[str, Bounds]:
    found = {name: exact_bounds(spec.dtype.numpy) for name, spec in signature.inputs.items()}
    return {name: bounds for name, bounds in found.items() if bounds is not None}
