"""Programs of torch.export and TorchScript modules as functions of named tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from servable.core.errors import failed_precondition, unimplemented
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import dtype_named
from servable.engines.fitting import Fitted, fitted, match
from servable.engines.signature_settings import read_signature_settings, to_write
from servable.engines.torch_tensors import dtype_of

OUTPUT = "output_{}"
"""The name of an output that has none of its own."""
_KNOWN_SHAPES = 4096
_TENSOR_KINDS = frozenset({"TensorType", "OptionalType"})


@dataclass(frozen=True, slots=True)
class Program:
    """What PyTorch computes: tensors by the program's own names in, tensors by such names out."""

    fits: Mapping[str, Fitted]
    call: Callable[[Mapping[str, Any]], Mapping[str, Any]]


def load_exported(torch: Any, path: Path, settings: Path | None) -> Program:
    """Load an archive of torch.export."""
    program = torch.export.load(path)
    own = _exported_signature(program, path)
    return Program(fitted({own.name: own}, settings), _ExportedCall(torch, program))


def load_script(torch: Any, path: Path, settings: Path | None) -> Program:
    """Load a TorchScript archive; its types and shapes must stand in the settings."""
    module = torch.jit.load(path, map_location="cpu").eval()
    schema = module.forward.schema
    by_name = _takes_names(_arguments(schema))
    stated = {} if settings is None else read_signature_settings(settings)
    if not stated:
        arguments = _arguments(schema)
        needed = [each.name for each in arguments if not each.has_default_value()]
        names = ["x"] if by_name else needed or [each.name for each in arguments]
        raise failed_precondition(
            f"{path} is TorchScript, which does not say of which types and shapes its tensors are: "
            + to_write(path, {"inputs": names, "outputs": [OUTPUT.format(0)]})
        )
    fits = {name: _fit_script(each, schema, f"{settings}: signatures.{name}") for name, each in stated.items()}

    def call(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return dict(_named(module(dict(tensors)) if by_name else module(**tensors)))

    return Program(fits, call)


def _fit_script(stated: Signature, schema: Any, where: str) -> Fitted:
    arguments = _arguments(schema)
    kinds = {argument.name: argument.type.kind() for argument in arguments}
    if _takes_names(arguments):
        inputs: Mapping[str, str] = {name: spec.node for name, spec in stated.inputs.items()}
    else:
        needed = [argument.name for argument in arguments if not argument.has_default_value()]
        known = any(spec.node in kinds for spec in stated.inputs.values())
        inputs = match(stated.inputs, _untold(list(kinds) if known else needed), f"{where}.inputs", "argument")
        lacking = sorted(set(needed) - set(inputs.values()))
        if lacking:
            raise failed_precondition(f"{where}.inputs: the module's argument {lacking[0]!r} is missing")
        for own in inputs.values():
            if kinds[own] not in _TENSOR_KINDS:
                raise unimplemented(f"{where}.inputs: the module takes {own!r} as {kinds[own]}, not as a tensor")
    outputs = _outputs_of_script(stated, schema.returns[0].type, f"{where}.outputs")
    return Fitted(stated, stated, inputs, outputs)


def _outputs_of_script(stated: Signature, gives: Any, where: str) -> Mapping[str, str]:
    kind = gives.kind()
    if kind not in {"TensorType", "TupleType"}:  # how many a list has, or which keys, is known when it is there
        return {name: spec.node for name, spec in stated.outputs.items()}
    count = len(gives.elements()) if kind == "TupleType" else 1
    own = _untold([OUTPUT.format(place) for place in range(count)])
    return match(stated.outputs, own, where, "output")


def _arguments(schema: Any) -> list[Any]:
    return [argument for argument in schema.arguments if argument.name != "self"]


def _takes_names(arguments: list[Any]) -> bool:
    """Return whether a module takes one dictionary of tensors."""
    return [argument.type.kind() for argument in arguments] == ["DictType"]


def _untold(names: list[str]) -> dict[str, TensorSpec]:
    """Return tensors of which no more than the name is known."""
    return {name: TensorSpec(name, dtype_named("untold"), None, name) for name in names}


def _exported_signature(program: Any, path: Path) -> Signature:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = {}
    for given in program.graph_signature.input_specs:
        if given.kind.name != "USER_INPUT":
            continue
        name = getattr(given.arg, "name", "")
        if hasattr(values.get(name), "dtype"):
            inputs[name] = _spec(name, values[name])
        elif not hasattr(given.arg, "value"):
            raise unimplemented(f"{path} takes {name!r}, which is no tensor")
    names = _output_names(program)
    outputs = {}
    for name, given in zip(names, _user_outputs(program), strict=True):
        value = values.get(getattr(given.arg, "name", ""))
        if hasattr(value, "dtype"):
            outputs[name] = _spec(name, value)
    if not outputs:
        raise unimplemented(f"{path} gives no tensor")
    return Signature(DEFAULT_SIGNATURE, MappingProxyType(inputs), MappingProxyType(outputs))


class _ExportedCall:
    """A program of torch.export as a function of its inputs.

    What a program was specialized on it asserts at every call, which takes longer than a small network. It depends on
    shapes alone: shapes that went through once are let through from then on.
    """

    def __init__(self, torch: Any, program: Any) -> None:
        self._pytree = torch.utils._pytree  # noqa: SLF001  # where the structures of torch.export are defined
        self._asserting = program.module()
        self._bare = program.module(check_guards=False)
        self._bare._forward_pre_hooks.clear()  # noqa: SLF001  # they assert some of it again
        self._in_spec = program.call_spec.in_spec
        specs = program.graph_signature.input_specs
        given = [spec.arg for spec in specs if spec.kind.name == "USER_INPUT"]
        self._order = [
            (arg.name, getattr(arg, "value", None)) for arg in given
        ]  # a value is what export made of a number
        self._names = _output_names(program)
        self._known: set[tuple[Any, ...]] = set()

    def __call__(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        leaves = [tensors.get(name, value) for name, value in self._order]
        args, kwargs = self._pytree.tree_unflatten(leaves, self._in_spec)
        shapes = tuple([tuple(tensor.shape) for tensor in tensors.values()])
        if shapes in self._known:
            found = self._bare(*args, **kwargs)
        else:
            found = self._asserting(*args, **kwargs)
            if len(self._known) < _KNOWN_SHAPES:
                self._known.add(shapes)
        return dict(zip(self._names, self._pytree.tree_leaves(found), strict=True))


def _user_outputs(program: Any) -> list[Any]:
    return [given for given in program.graph_signature.output_specs if given.kind.name == "USER_OUTPUT"]


def _output_names(program: Any) -> list[str]:
    """Return names for what a program gives: keys of a dictionary, else ``output_0`` and so on."""
    count = len(_user_outputs(program))
    from torch.utils import _pytree as pytree

    shape = pytree.tree_unflatten(list(range(count)), program.call_spec.out_spec)
    names = {leaf: name for name, leaf in _named(shape)}
    return [names.get(place, OUTPUT.format(place)) for place in range(count)]


def _named(result: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a module gives by name: by key, or by order."""
    if isinstance(result, Mapping):
        for key, value in result.items():
            yield from _under(str(key), value)
    elif isinstance(result, tuple | list):
        for place, value in enumerate(result):
            yield from _under(OUTPUT.format(place), value)
    else:
        yield OUTPUT.format(0), result


def _under(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _under(f"{name}_{key}", inner)
    elif isinstance(value, tuple | list):
        for place, inner in enumerate(value):
            yield from _under(f"{name}_{place}", inner)
    elif value is not None:
        yield name, value


def _spec(name: str, value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(name, dtype_of(value.dtype), shape, name)
