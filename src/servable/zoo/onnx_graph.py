"""An ONNX graph in the making. The ``onnx`` package is passed in: only who builds needs it."""

from __future__ import annotations

from typing import Any

import numpy as np

from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array

OPSET = 17
IR_VERSION = 8
"""With opset 17 the widest range of readers that still has every operator used here."""


class Graph:
    """Nodes and constants in the order in which they were added. Tensors are known by name."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}
        self.float_type: int = onnx.TensorProto.FLOAT

    def constant(self, name: str, value: Array) -> str:
        self._constants[name] = value
        return name

    def axis(self, number: int) -> str:
        """Return a constant that names one axis, which operators take as an int64 vector."""
        return self.constant(f"axis{number}", np.array([number], dtype=np.int64))

    def add(self, operator: str, *inputs: str, out: str, skip: int = 0, **attributes: Any) -> str:
        """Add a node and return the name of its output; ``skip`` leaves out that many outputs before it."""
        outputs = [""] * skip + [out]
        self._nodes.append(
            self._onnx.helper.make_node(operator, list(inputs), outputs, name=f"{out}/{operator}", **attributes)
        )
        return out

    def model(self, name: str, signature: Signature) -> Any:
        helper = self._onnx.helper
        graph = helper.make_graph(
            self._nodes,
            name,
            [self._value(spec) for spec in signature.inputs.values()],
            [self._value(spec) for spec in signature.outputs.values()],
            [self._onnx.numpy_helper.from_array(value, key) for key, value in self._constants.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="servable")

    def _value(self, spec: TensorSpec) -> Any:
        helper = self._onnx.helper
        names = ("batch", "time")
        shape = [names[axis] if size is None else size for axis, size in enumerate(spec.shape or ())]
        return helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(spec.dtype.numpy), shape)
