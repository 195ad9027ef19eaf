"""Runs in a worker, with torch: a TorchScript file as JSON. With shapes it runs once, on zeros, and that is noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servable.core.errors import Code, ServingError
from servable.core.progress import Progress

_SIMPLE = (int, float, bool, str)


def describe(path: str, shapes: Sequence[tuple[Sequence[int], str]] | None, report: Progress) -> dict[str, Any]:
    """Return nodes, tensors and parameters; nodes are ``[name, type, inputs, outputs, attributes]``."""
    import torch

    del report
    try:
        module = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not TorchScript: {reason}") from error
    found = _written(torch, module) if shapes is None else _run(torch, module, shapes)
    arguments = [argument.name for argument in module.forward.schema.arguments[1:]]
    return {**found, "arguments": arguments}


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _weights(module: Any) -> list[tuple[str, Any]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _written(torch: Any, module: Any) -> dict[str, Any]:
    """Return the operations as the code has them; of their tensors nothing is known."""
    graph = module.inlined_graph
    nodes = [
        [output, node.kind().partition("::")[2], [v.debugName() for v in node.inputs()],
         [v.debugName() for v in node.outputs()], {}]
        for node in graph.nodes()
        if node.kind() not in ("prim::Constant", "prim::GetAttr", "prim::ListConstruct")
        for output in [next((v.debugName() for v in node.outputs()), node.kind())]
    ]  # fmt: skip
    parameters = {name: [name, _dtype(weight), list(weight.shape)] for name, weight in _weights(module)}
    return {
        "nodes": nodes, "tensors": {}, "parameters": parameters,
        "inputs": [v.debugName() for v in graph.inputs()][1:], "outputs": [v.debugName() for v in graph.outputs()],
    }  # fmt: skip


def _run(torch: Any, module: Any, shapes: Sequence[tuple[Sequence[int], str]]) -> dict[str, Any]:
    from torch.utils._python_dispatch import TorchDispatchMode

    names: dict[int, str] = {}
    kept: list[Any] = []  # a tensor that is gone would lend its identity to another
    tensors: dict[str, Any] = {}
    nodes: list[Any] = []

    def name_of(tensor: Any, name: str) -> str:
        if id(tensor) not in names:
            names[id(tensor)] = name
            kept.append(tensor)
            tensors[name] = [_dtype(tensor), list(tensor.shape)]
        return names[id(tensor)]

    class Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch has no types here
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            schema = function._schema  # noqa: SLF001  # the only place where torch tells it
            kind = schema.name.partition("::")[2]
            given = [*args, *(kwargs or {}).values()]
            labels = [argument.name for argument in schema.arguments]
            inputs = [name_of(value, f"tensor_{len(names)}") for value in _flat(torch, given)]
            number = len(nodes)
            outputs = [
                name_of(value, f"{kind}_{number}" + (f":{place}" if place else ""))
                for place, value in enumerate(_flat(torch, [made]))
            ]
            nodes.append([f"{kind}_{number}", kind, inputs, outputs, _attributes(labels, given)])
            return made

    parameters = {}
    for name, weight in _weights(module):
        parameters[name_of(weight, name)] = [name, _dtype(weight), list(weight.shape)]
    feeds = [torch.zeros(list(shape), dtype=getattr(torch, dtype)) for shape, dtype in shapes]
    starts = [name_of(feed, f"input_{place}") for place, feed in enumerate(feeds)]
    try:
        with torch.no_grad(), torch.jit.optimized_execution(False), Recorder():
            made = module(*feeds)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[-200:]
        raise ServingError(Code.INVALID_ARGUMENT, f"it does not run with such inputs: {reason}") from error
    ends = [name_of(value, f"output_{place}") for place, value in enumerate(_flat(torch, [made]))]
    return {"nodes": nodes, "tensors": tensors, "parameters": parameters, "inputs": starts, "outputs": ends}


def _flat(torch: Any, values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _flat(torch, value)
        elif isinstance(value, dict):
            found += _flat(torch, list(value.values()))
    return found


def _attributes(labels: Sequence[str], values: Sequence[Any]) -> Mapping[str, Any]:
    return {
        label: value
        for label, value in zip(labels, values, strict=False)
        if isinstance(value, _SIMPLE) or (isinstance(value, list) and all(isinstance(part, _SIMPLE) for part in value))
    }
