"""Programs of torch.export as graphs: a zip with JSON in it, read without torch."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError, not_found, unimplemented
from servable.core.signatures import DEFAULT_SIGNATURE, Shape, Signature, TensorSpec
from servable.core.tensors import dtype_named
from servable.forge.inspection.assumed import assumed_shape, check_names, notes
from servable.forge.inspection.graph import Attribute, Bound, Graph, Inspection, Node, Parameter, tensor_bytes
from servable.forge.inspection.names import unique_names
from servable.forge.inspection.sizes import evaluate, symbol
from servable.forge.inspection.stated import stated_signatures

_PROGRAM = "models/model.json"
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 34: "uint32", 35: "uint64",
}  # fmt: skip
_WEIGHTS = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}


def read(path: Path, bound: Bound) -> Inspection:
    """Read a ``.pt2`` file. NOT_FOUND, or DATA_LOSS if it cannot be understood."""
    program = _load(path)
    try:
        reader = _Reader(program["graph_module"])
        own = reader.signature()
        stated = stated_signatures(path)
        shown = next(iter(stated.values()), own)
        check_names(bound, {shown.name: shown})
        of_own = _renamed(own, shown)
        reader.bind({spec.node: assumed_shape(spec, bound) for spec in of_own.inputs.values()})
        graph = reader.graph()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is not a program of torch.export: {error!r}") from error
    facts = {"producer": f"torch {program.get('torch_version', '')}".strip()}
    said = notes(of_own.inputs.values(), bound)
    return Inspection("torch_export", path, stated or {own.name: own}, {shown.name: graph}, facts, tuple(said))


def _renamed(own: Signature, shown: Signature) -> Signature:
    """Return the program's signature under the names that ``servable.toml`` gives its inputs, in their order."""
    if shown is own or len(own.inputs) != len(shown.inputs):
        return own
    by_node = {spec.node: spec for spec in own.inputs.values()}
    inputs = {}
    for (name, spec), fallback in zip(shown.inputs.items(), own.inputs.values(), strict=True):
        found = by_node.get(spec.node, by_node.get(name, fallback))
        inputs[name] = TensorSpec(name, found.dtype, found.shape, found.node)
    return Signature(shown.name, inputs, own.outputs)


def _load(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise not_found(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith(_PROGRAM)), None)
            if name is None:
                raise unimplemented(f"{path} has no {_PROGRAM}: it is no program of torch.export, or an old one")
            found = json.loads(archive.read(name))
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error
    except OSError as error:
        raise ServingError(Code.UNAVAILABLE, f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(found, dict):
        raise ServingError(Code.DATA_LOSS, f"{path} is not a program of torch.export")
    return found


@dataclass
class _Reader:
    module: Mapping[str, Any]
    symbols: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metas: Mapping[str, Any] = self.module["graph"]["tensor_values"]

    def signature(self) -> Signature:
        parts = self.module["signature"]
        inputs = [spec["user_input"]["arg"] for spec in parts["input_specs"] if "user_input" in spec]
        outputs = [spec["user_output"]["arg"] for spec in parts["output_specs"] if "user_output" in spec]
        specs = [
            {name: self._spec(name, {}) for argument in part for name in _tensors(argument)}
            for part in (inputs, outputs)
        ]
        return Signature(DEFAULT_SIGNATURE, specs[0], specs[1])

    def bind(self, shapes: Mapping[str, Shape | None]) -> None:
        """Give the symbols of inputs the sizes that are assumed for these."""
        for name, shape in shapes.items():
            for size, assumed in zip(self.metas[name]["sizes"], shape or (), strict=False):
                name_of_size = symbol(size["as_expr"]["expr_str"]) if "as_expr" in size else None
                if assumed is not None and name_of_size is not None:
                    self.symbols.setdefault(name_of_size, assumed)

    def graph(self) -> Graph:
        tensors = {name: self._spec(name, self.symbols) for name in self.metas}
        parameters: dict[str, Parameter] = {}
        for spec in self.module["signature"]["input_specs"]:
            for kind, key in _WEIGHTS.items():
                if kind in spec:
                    argument, own = spec[kind]["arg"]["name"], str(spec[kind][key])
                    shape = tuple(size for size in tensors[argument].shape or () if size is not None)
                    dtype = tensors[argument].dtype.name
                    parameters[argument] = Parameter(own, dtype, shape, tensor_bytes(dtype, shape) or 0)
        nodes = self.module["graph"]["nodes"]
        names = unique_names(_name(node, index) for index, node in enumerate(nodes))
        made = tuple(_node(node, name) for node, name in zip(nodes, names, strict=True))
        signature = self.signature()
        return Graph("torch", made, tensors, tuple(signature.inputs), tuple(signature.outputs), parameters)

    def _spec(self, name: str, symbols: Mapping[str, int]) -> TensorSpec:
        meta = self.metas[name]
        number = meta["dtype"]
        shape = tuple(
            int(size["as_int"]) if "as_int" in size else evaluate(size["as_expr"]["expr_str"], symbols)
            for size in meta["sizes"]
        )
        return TensorSpec(name, dtype_named(_DTYPES.get(number, f"type {number}")), shape, name)


def _name(node: Mapping[str, Any], index: int) -> str:
    """Return the path of the module that an operation stands in, and the name of what it makes."""
    outputs = [name for argument in node["outputs"] for name in _tensors(argument)]
    own = outputs[0] if outputs else f"{operation(node['target'])}_{index}"
    stack = str(node.get("metadata", {}).get("nn_module_stack", "")).split(";")[-1].split(",")
    module = stack[1] if len(stack) > 1 else ""
    return "/".join([*module.split("."), own]) if module else own


def operation(target: str) -> str:
    """Return ATen's name without namespace and overload: ``torch.ops.aten.conv2d.default`` is ``conv2d``."""
    if target.startswith("torch.ops."):
        return target.split(".")[3]
    return target


def _node(node: Mapping[str, Any], name: str) -> Node:
    inputs: list[str] = []
    attributes: dict[str, Attribute] = {}
    for given in node["inputs"]:
        argument = given["arg"]
        found = list(_tensors(argument))
        if found or "as_none" in argument:
            inputs += found or [""]
        elif (value := _plain(argument)) is not None:
            attributes[str(given["name"])] = value
    while inputs and not inputs[-1]:
        inputs.pop()
    outputs = tuple(made for argument in node["outputs"] for made in _tensors(argument))
    return Node(name, operation(str(node["target"])), tuple(inputs), outputs, attributes)


def _tensors(argument: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the tensors that an argument is or holds."""
    for kind, value in argument.items():
        if kind == "as_tensor":
            yield str(value["name"])
        elif kind == "as_tensors":
            yield from (str(tensor["name"]) for tensor in value)
        elif kind == "as_optional_tensor":
            yield from _tensors(value)
        elif kind == "as_optional_tensors":
            for part in value:
                yield from _tensors(part)


def _plain(argument: Mapping[str, Any]) -> Attribute:
    for kind, value in argument.items():
        if kind in ("as_int", "as_float", "as_bool", "as_string"):
            return value  # type: ignore[no-any-return]  # JSON's own types
        if kind in ("as_ints", "as_floats", "as_bools", "as_strings"):
            return tuple(value)
        if kind == "as_scalar_type":
            return _DTYPES.get(value, str(value))
    return None
