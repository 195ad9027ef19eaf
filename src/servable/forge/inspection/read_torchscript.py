"""TorchScript as graphs. Only torch can read it, and it is code: both happen in a process of its own."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError, failed_precondition, invalid_argument, not_found
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import dtype_named
from servable.forge.inspection.assumed import assumed_shape, check_names, notes
from servable.forge.inspection.graph import Bound, Graph, Inspection, Node, Parameter, tensor_bytes
from servable.forge.inspection.names import unique_names
from servable.forge.inspection.stated import stated_signatures
from servable.forge.worker import run_apart


def read(path: Path, bound: Bound) -> Inspection:
    """Read a TorchScript file. With the shapes of all inputs known it is run once, on zeros, and what runs is counted.

    NOT_FOUND, DATA_LOSS; FAILED_PRECONDITION if torch is not here.
    """
    _check(path)
    stated = stated_signatures(path)
    signature = next(iter(stated.values()), None)
    if signature is None:
        shapes: list[tuple[list[int], str]] | None = [(list(shape), "float32") for shape in bound.values()] or None
    else:
        check_names(bound, {signature.name: signature})
        assumed = [(assumed_shape(spec, bound), spec.dtype.name) for spec in signature.inputs.values()]
        known = [([s for s in shape if s is not None], dtype) for shape, dtype in assumed if shape is not None]
        closed = len(known) == len(assumed) and all(None not in (shape or ()) for shape, _ in assumed)
        shapes = known if closed else None
    words = {"path": str(path), "shapes": shapes}
    found = run_apart("servable.forge.inspection.torchscript_graph:describe", words)
    if signature is None:
        signature, said = _own(found, bound)
    else:
        said = notes(signature.inputs.values(), bound)
    graph = _graph(found)
    facts = {"producer": "torch, TorchScript", "operations": "as they ran" if shapes else "as they are written"}
    return Inspection(
        "torchscript", path, stated or {signature.name: signature}, {signature.name: graph}, facts, tuple(said)
    )


def _check(path: Path) -> None:
    if not path.exists():
        raise not_found(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: it is not a zip file")
    if importlib.util.find_spec("torch") is None:
        raise failed_precondition(f"reading {path} needs torch: pip install 'servable[torch]'")


def _own(found: Any, bound: Bound) -> tuple[Signature, list[str]]:
    names = [str(name) for name in found["arguments"]]
    for name in bound:
        if name not in names:
            raise invalid_argument(f"--shape {name}=...: there is no input {name!r}; there are {', '.join(names)}")
    specs = {name: TensorSpec(name, dtype_named("float32"), None, name) for name in names}
    said = ["the file names no types or shapes: write them into servable.toml, or give --shape for every input"]
    return Signature(DEFAULT_SIGNATURE, specs, {}), said


def _graph(found: Any) -> Graph:
    tensors = {
        name: TensorSpec(name, dtype_named(dtype), None if shape is None else tuple(shape), name)
        for name, (dtype, shape) in found["tensors"].items()
    }
    parameters = {
        name: Parameter(own, dtype, tuple(shape), tensor_bytes(dtype, tuple(shape)) or 0)
        for name, (own, dtype, shape) in found["parameters"].items()
    }
    nodes = [
        Node(name, kind, tuple(inputs), tuple(outputs), {key: _tupled(value) for key, value in attributes.items()})
        for name, (_, kind, inputs, outputs, attributes) in zip(
            unique_names(node[0] for node in found["nodes"]), found["nodes"], strict=True
        )
    ]
    return Graph("torch", tuple(nodes), tensors, tuple(found["inputs"]), tuple(found["outputs"]), parameters)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
