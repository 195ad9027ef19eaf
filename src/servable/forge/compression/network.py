"""An ONNX graph as a function that torch can differentiate: what was learnt goes back into the very same graph.

So a network is trained as it is served, with its own names and signature, and no code that made it. Runs in a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from servable.core.errors import unimplemented
from servable.forge.compression.graph import BINARIZE, Graph, attribute

_LEARNT: Final[Mapping[str, tuple[int, ...]]] = {
    "Conv": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "Gather": (0,),
    BINARIZE: (0,),
}
"""Operation -> which of its inputs learn, if they are float constants."""
_MOMENTUM: Final = 0.1
Tensor: TypeAlias = Any  # torch comes without types here


class Network:
    """A graph up to one tensor, ``output``. ``learnt`` are its weights by name, ``fixed`` its other constants."""

    def __init__(self, graph: Graph, output: str) -> None:
        self.graph = graph
        self.output = output
        self._nodes = _needed(graph, output)
        for node in self._nodes:
            if node.op_type not in _OPERATIONS and node.op_type != "BatchNormalization":
                raise unimplemented(
                    f"training does not know the operation {node.op_type} (node {node.name or node.output[0]}); "
                    "without --data nothing is trained"
                )
        names = self._learning_names()
        self.learnt = {name: torch.tensor(graph.array(name), requires_grad=True) for name in names}
        self.fixed = {
            name: torch.tensor(graph.array(name))
            for node in self._nodes
            for name in node.input
            if graph.is_constant(name) and name not in names
        }

    def __call__(self, inputs: Mapping[str, Tensor], *, learning: bool = False) -> Tensor:
        """Compute ``output``. While ``learning``, normalization uses the batch's statistics and follows them."""
        values: dict[str, Tensor] = {**inputs, **self.fixed, **self.learnt}
        for node in self._nodes:
            given = [values[name] if name else None for name in node.input]
            if node.op_type == "BatchNormalization":
                values[node.output[0]] = self._normalize(node, given, learning)
            else:
                values[node.output[0]] = _OPERATIONS[node.op_type](node, given)
        return values[self.output]

    def state(self) -> dict[str, Tensor]:
        """Return copies of all that a training changes."""
        return {name: value.detach().clone() for name, value in {**self.fixed, **self.learnt}.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state."""
        with torch.no_grad():
            for name, value in {**self.fixed, **self.learnt}.items():
                value.copy_(state[name])

    def write_back(self) -> None:
        """Give the graph what was learnt."""
        for name, value in self.learnt.items():
            self.graph.set(name, value.detach().numpy().copy())
        for node in self._nodes:
            if node.op_type == "BatchNormalization":
                for name in node.input[3:5]:
                    self.graph.set(name, self.fixed[name].numpy().copy())

    def _normalize(self, node: Any, given: list[Any], learning: bool) -> Tensor:
        x, scale, bias, mean, variance = given
        epsilon = attribute(node, "epsilon", 1e-5)
        # One value a channel has no variance: keep to what is known.
        learning = learning and x.numel() > x.shape[1]
        return functional.batch_norm(x, mean, variance, scale, bias, learning, _MOMENTUM, epsilon)

    def _learning_names(self) -> set[str]:
        found = set()
        for node in self._nodes:
            places = _LEARNT.get(node.op_type, ())
            if node.op_type in {"Add", "Mul"}:
                places = _beside_product(self.graph, node)
            for place in places:
                name = node.input[place] if place < len(node.input) else ""
                if self.graph.is_constant(name) and self.graph.array(name).dtype == np.float32:
                    found.add(name)
        return found


def _beside_product(graph: Graph, node: Any) -> tuple[int, ...]:
    """Return which input of an addition is a bias, or of a multiplication a scale, of a product's result."""
    for place in (0, 1):
        maker = graph.maker(node.input[1 - place])
        if graph.is_constant(node.input[place]) and maker is not None and maker.op_type in {"MatMul", "Conv", "Gemm"}:
            return (place,)
    return ()


def _needed(graph: Graph, output: str) -> list[Any]:
    wanted, kept = {output}, []
    for node in reversed(graph.nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


class _Binarized(torch.autograd.Function):  # type: ignore[misc]  # untyped
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return torch.where(x > 0, 1.0, -1.0)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        (x,) = context.saved_tensors
        return gradients[0] * (x.abs() <= 1)


def _window(node: Any, x: Tensor, rank: int, fill: float) -> Tensor:
    """Pad by the node's attributes: they may differ before and after."""
    mode = attribute(node, "auto_pad", b"NOTSET")
    pads = attribute(node, "pads", [0] * (2 * rank))
    if mode not in {b"NOTSET", b"VALID"}:
        raise unimplemented(f"training does not know auto_pad {mode.decode()} (node {node.name or node.output[0]})")
    if mode == b"VALID" or not any(pads):
        return x
    order = [size for axis in reversed(range(rank)) for size in (pads[axis], pads[axis + rank])]
    return functional.pad(x, order, value=fill)


def _conv(node: Any, given: list[Any]) -> Tensor:
    x, kernel, *bias = given
    rank = kernel.ndim - 2
    convolve = {1: functional.conv1d, 2: functional.conv2d}[rank]
    return convolve(
        _window(node, x, rank, 0.0),
        kernel,
        bias[0] if bias else None,
        attribute(node, "strides", [1] * rank),
        0,
        attribute(node, "dilations", [1] * rank),
        attribute(node, "group", 1),
    )


def _average(node: Any, given: list[Any]) -> Tensor:
    x = given[0]
    if any(attribute(node, "pads", [0])):
        raise unimplemented(f"training does not know a mean over padding (node {node.name or node.output[0]})")
    size = attribute(node, "kernel_shape")
    return functional.avg_pool2d(x, size, attribute(node, "strides", [1] * len(size)))


def _largest(node: Any, given: list[Any]) -> Tensor:
    size = attribute(node, "kernel_shape")
    x = _window(node, given[0], len(size), -torch.inf)
    return functional.max_pool2d(x, size, attribute(node, "strides", [1] * len(size)))


def _gemm(node: Any, given: list[Any]) -> Tensor:
    left, right, *bias = given
    left = left.T if attribute(node, "transA", 0) else left
    right = right.T if attribute(node, "transB", 0) else right
    product: Tensor = attribute(node, "alpha", 1.0) * (left @ right)
    return product + attribute(node, "beta", 1.0) * bias[0] if bias else product


def _flatten(node: Any, given: list[Any]) -> Tensor:
    axis = attribute(node, "axis", 1)
    shape = given[0].shape
    first = int(np.prod(shape[:axis]))
    flat: Tensor = given[0].reshape(first, -1)
    return flat


def _reshape(node: Any, given: list[Any]) -> Tensor:
    x, wanted = given
    sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted.tolist())]
    shaped: Tensor = x.reshape(sizes)
    return shaped


def _axes(node: Any, given: list[Any]) -> list[int]:
    axes: list[int] = given[1].tolist() if len(given) > 1 else attribute(node, "axes")
    return axes


def _mean(node: Any, given: list[Any]) -> Tensor:
    mean: Tensor = given[0].mean(dim=_axes(node, given), keepdim=bool(attribute(node, "keepdims", 1)))
    return mean


def _squeeze(node: Any, given: list[Any]) -> Tensor:
    return torch.squeeze(given[0], dim=tuple(_axes(node, given)))


def _unsqueeze(node: Any, given: list[Any]) -> Tensor:
    x: Tensor = given[0]
    for axis in sorted(_axes(node, given)):
        x = x.unsqueeze(axis)
    return x


def _gather(node: Any, given: list[Any]) -> Tensor:
    table, places = given
    axis = attribute(node, "axis", 0)
    found = torch.index_select(table, axis, places.reshape(-1).long())
    return found.reshape(*table.shape[:axis], *places.shape, *table.shape[axis + 1 :])


def _cast(node: Any, given: list[Any]) -> Tensor:
    import onnx.helper

    wanted = onnx.helper.tensor_dtype_to_np_dtype(attribute(node, "to"))
    cast: Tensor = given[0].to(getattr(torch, wanted.name))
    return cast


def _clip(node: Any, given: list[Any]) -> Tensor:
    low = given[1] if len(given) > 1 else attribute(node, "min")
    high = given[2] if len(given) > 2 else attribute(node, "max")
    return torch.clamp(given[0], low, high)


_OPERATIONS: Final[Mapping[str, Callable[[Any, list[Any]], Tensor]]] = {
    BINARIZE: lambda node, given: _Binarized.apply(given[0]),
    "Add": lambda node, given: given[0] + given[1],
    "AveragePool": _average,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, given: torch.cat(given, dim=attribute(node, "axis")),
    "Conv": _conv,
    "Div": lambda node, given: given[0] / given[1],
    "Dropout": lambda node, given: given[0],
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, given: given[0].mean(dim=tuple(range(2, given[0].ndim)), keepdim=True),
    "GlobalMaxPool": lambda node, given: given[0].amax(dim=tuple(range(2, given[0].ndim)), keepdim=True),
    "Identity": lambda node, given: given[0],
    "LeakyRelu": lambda node, given: functional.leaky_relu(given[0], attribute(node, "alpha", 0.01)),
    "MatMul": lambda node, given: given[0] @ given[1],
    "MaxPool": _largest,
    "Mul": lambda node, given: given[0] * given[1],
    "ReduceMean": _mean,
    "Relu": lambda node, given: functional.relu(given[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda node, given: torch.sigmoid(given[0]),
    "Softmax": lambda node, given: torch.softmax(given[0], dim=attribute(node, "axis", -1)),
    "Squeeze": _squeeze,
    "Sub": lambda node, given: given[0] - given[1],
    "Tanh": lambda node, given: torch.tanh(given[0]),
    "Transpose": lambda node, given: given[0].permute(attribute(node, "perm")),
    "Unsqueeze": _unsqueeze,
}
