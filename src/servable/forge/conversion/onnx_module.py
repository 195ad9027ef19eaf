"""An ONNX graph as a torch module, to be traced with fixed sizes; and from there to TFLite.

The graph is walked node by node. What does not depend on the inputs' values (sizes, and all that is made of them) is
computed by ONNX's own reference and is a constant to torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from servable.core.errors import Code, ServingError, failed_precondition, unimplemented
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import STRING, Array
from servable.engines import onnx_model
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.base import Artifact
from servable.engines.fitting import match
from servable.engines.signature_settings import read_signature_settings
from servable.forge.conversion import torch_to_tflite as to_tflite
from servable.forge.conversion.onnx_node import Node, Tensor
from servable.forge.conversion.onnx_operations import OPERATIONS
from servable.forge.steps import Facts, Task

OPSET: Final = 18
"""What older files are brought to first."""
_LEAST_OPSET: Final = 13


class OnnxModule(torch.nn.Module):  # type: ignore[misc]  # torch comes without types here
    """The graph of an ONNX model: takes its inputs in order, returns a dict of its outputs."""

    def __init__(self, model: Any, inputs: Sequence[str]) -> None:
        import onnx.numpy_helper

        super().__init__()
        self._inputs = list(inputs)
        self._outputs = [value.name for value in model.graph.output]
        self._nodes = list(model.graph.node)
        self._opsets = list(model.opset_import)
        self._constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
        self._kept: dict[str, str] = {}

    def forward(self, *given: Tensor) -> dict[str, Tensor]:
        """Compute the graph."""
        values: dict[str, Any] = {**self._constants, **dict(zip(self._inputs, given, strict=True)), "": None}
        for proto in self._nodes:
            found = self._run(proto, [values[name] for name in proto.input])
            values.update(zip(proto.output, found, strict=False))
        return {name: self._tensor(name, values[name]) for name in self._outputs}

    def _run(self, proto: Any, given: list[Any]) -> Sequence[Any]:
        if proto.op_type == "Shape":
            first, last = (_integer(proto, name) for name in ("start", "end"))
            return [np.array(given[0].shape[slice(first or 0, last)], np.int64)]
        known = [value for value in given if value is not None]
        if all(isinstance(value, np.ndarray) for value in known):
            return self._folded(proto, given)
        if proto.op_type not in OPERATIONS or proto.domain not in ("", "ai.onnx"):
            raise unimplemented(f"operation {proto.op_type} ({proto.name or proto.output[0]}) is not translated")
        found = OPERATIONS[proto.op_type](Node(proto, given, self._tensor))
        return found if isinstance(found, tuple | list) else [found]

    def _folded(self, proto: Any, given: Sequence[Any]) -> Sequence[Array | None]:
        """Compute a node that depends on nothing that is given."""
        from onnx import ValueInfoProto, helper
        from onnx.reference import ReferenceEvaluator

        fed = {name: np.asarray(value) for name, value in zip(proto.input, given, strict=True) if value is not None}
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in fed.items()
        ]
        outputs = [ValueInfoProto(name=name) for name in proto.output if name]
        graph = helper.make_graph([proto], "one", inputs, outputs)
        found = iter(ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opsets)).run(None, fed))
        return [np.asarray(next(found)) if name else None for name in proto.output]

    def _tensor(self, name: str, value: Any) -> Tensor:
        """Return a constant as a tensor that the module owns: a trace takes it for a weight."""
        if not isinstance(value, np.ndarray):
            return value
        if name not in self._kept:
            self._kept[name] = f"constant_{len(self._kept)}"
            self.register_buffer(self._kept[name], torch.tensor(value))
        return getattr(self, self._kept[name])


def to_tflite_file(source: Artifact, target: Path, task: Task) -> Facts:
    """Convert an ONNX file by way of torch and litert-torch: a function of a step."""
    to_tflite.check_ready("onnx")
    rows = to_tflite.rows_of(task)
    signature = onnx_model.signature(onnx_model.read(source.path))
    texts = [name for name, spec in {**signature.inputs, **signature.outputs}.items() if spec.dtype is STRING]
    if texts:
        raise unimplemented(f"onnx to tflite: {', '.join(texts)}: text is not translated; convert what comes after it")
    model = _read(source.path)
    shapes = {name: to_tflite.sizes("onnx", spec, rows) for name, spec in signature.inputs.items()}
    module = OnnxModule(model, list(signature.inputs)).eval()
    example = tuple(
        torch.zeros(shapes[name], dtype=getattr(torch, spec.dtype.name)) for name, spec in signature.inputs.items()
    )
    task.report("reading the graph as a torch module")
    try:
        with torch.no_grad():
            found = module(*example)  # also makes all constants before the trace
            program = torch.export.export(module, example, strict=False)
    except ServingError as error:
        raise ServingError(error.code, f"{source.path}: {error.message}") from error
    except Exception as error:
        said = " ".join(str(error).split())[:400]
        raise failed_precondition(f"{source.path}: its graph cannot be traced in torch: {said}") from error
    served = _served(signature, found, shapes, rows)
    return to_tflite.write(program, list(shapes), served, rows, target, task, _further_names(target, served))


def _served(
    signature: Signature, found: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], rows: int
) -> Signature:
    """Return the signature to state: rows are free if they were, and every output has as many."""
    free = all(spec.shape and spec.shape[0] is None for spec in signature.inputs.values())
    free = free and all(value.ndim and value.shape[0] == rows for value in found.values())
    inputs = {name: replace(spec, shape=shapes[name], node="") for name, spec in signature.inputs.items()}
    outputs = {name: replace(spec, shape=tuple(found[name].shape), node="") for name, spec in signature.outputs.items()}
    return replace(signature, inputs=to_tflite.freed(inputs, free), outputs=to_tflite.freed(outputs, free))


def _further_names(target: Path, served: Signature) -> dict[str, Signature]:
    """Return the names that the source's ``servable.toml``, which came along, gives the signature and its tensors."""
    settings = target / SETTINGS_FILE
    stated = read_signature_settings(settings) if settings.is_file() else {}

    def named(said: Mapping[str, TensorSpec], own: Mapping[str, TensorSpec], where: str) -> dict[str, TensorSpec]:
        found = match(said, own, f"{settings}: signatures.{where}", where)
        return {name: replace(own[theirs], name=name, node=theirs) for name, theirs in found.items()}

    return {
        name: replace(
            served,
            name=name,
            inputs=named(one.inputs, served.inputs, "input"),
            outputs=named(one.outputs, served.outputs, "output"),
        )
        for name, one in stated.items()
        if name != served.name
    }


def _read(path: Path) -> Any:
    import onnx
    import onnx.version_converter

    try:
        model = onnx.load(path)
        opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
        return onnx.version_converter.convert_version(model, OPSET) if opset < _LEAST_OPSET else model
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise ServingError(Code.FAILED_PRECONDITION, f"{path}: its operations are too old: {said}") from error


def _integer(proto: Any, name: str) -> int | None:
    return next((int(one.i) for one in proto.attribute if one.name == name), None)
