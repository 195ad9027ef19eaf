"""An ONNX graph as a torch module, to be traced with fixed sizes.

The graph is walked node by node. What does not depend on the inputs' values (sizes, and all that is made of them) is
computed by ONNX's own reference and is a constant to torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from servable.core.errors import unimplemented
from servable.core.tensors import Array
from servable.forge.conversion.onnx_node import Node, Tensor
from servable.forge.conversion.onnx_operations import OPERATIONS


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


def _integer(proto: Any, name: str) -> int | None:
    return next((int(one.i) for one in proto.attribute if one.name == name), None)
