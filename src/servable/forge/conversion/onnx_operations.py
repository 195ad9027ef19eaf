"""ONNX's operations in torch, as ONNX defines them: what ``onnx_module`` computes a graph with.

A parameter that says how (a shape, axes, places to cut) must be known before: sizes are fixed, so it usually is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from servable.core.errors import unimplemented
from servable.forge.conversion.onnx_node import Node, Tensor


def _conv(node: Node) -> Tensor:
    x, kernel = node.tensor(0), node.tensor(1)
    rank = kernel.ndim - 2
    strides, dilations = node.attribute("strides", [1] * rank), node.attribute("dilations", [1] * rank)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel.shape[2:], dilations, strict=True)]
    x = functional.pad(x, _padding(node, x, reach, strides))
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    bias = node.tensor(2) if node.has(2) else None
    return convolve(x, kernel, bias, strides, 0, dilations, node.attribute("group", 1))


def _padding(node: Node, x: Tensor, reach: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return what is padded, last axis first, as torch wants it."""
    rank = len(reach)
    mode = node.attribute("auto_pad", "NOTSET")
    pads = node.attribute("pads", [0] * (2 * rank))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = x.shape[2:]
        whole = [
            max(0, (-(-size // step) - 1) * step + window - size)
            for size, step, window in zip(sizes, strides, reach, strict=True)
        ]
        less, more = [size // 2 for size in whole], [size - size // 2 for size in whole]
        pads = [*less, *more] if mode == "SAME_UPPER" else [*more, *less]
    elif mode == "VALID":
        pads = [0] * (2 * rank)
    return [pad for axis in reversed(range(rank)) for pad in (pads[axis], pads[axis + rank])]


def _pool(node: Node) -> Tensor:
    x, size = node.tensor(0), node.attribute("kernel_shape")
    rank = len(size)
    strides = node.attribute("strides", [1] * rank)
    node.only("ceil_mode", 0)
    if any(step != 1 for step in node.attribute("dilations", [1])):
        raise unimplemented(f"{node} has dilations, which are not translated")
    padding = _padding(node, x, size, strides)
    if node.type == "MaxPool":
        if node.outputs > 1:
            raise unimplemented(f"{node} gives the places of the largest, which is not translated")
        largest = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
        lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        return largest(functional.pad(x, padding, value=lowest) if any(padding) else x, size, strides)
    mean = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[rank]
    if not any(padding):
        return mean(x, size, strides)
    found = mean(functional.pad(x, padding), size, strides)
    if node.attribute("count_include_pad", 0):
        return found
    share = mean(functional.pad(torch.ones_like(x), padding), size, strides)
    return found / share


def _norm(node: Node) -> Tensor:
    node.only("training_mode", 0)
    x, scale, bias, mean, variance = (node.tensor(place) for place in range(5))
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, node.attribute("epsilon", 1e-5))


def _layer_norm(node: Node) -> Tensor:
    x = node.tensor(0)
    shape = x.shape[node.attribute("axis", -1) % x.ndim :]
    bias = node.tensor(2) if node.has(2) else None
    return functional.layer_norm(x, shape, node.tensor(1), bias, node.attribute("epsilon", 1e-5))


def _gemm(node: Node) -> Tensor:
    left, right = node.tensor(0), node.tensor(1)
    left = left.T if node.attribute("transA", 0) else left
    right = right.T if node.attribute("transB", 0) else right
    product = left @ right
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    product = product if alpha == 1.0 else alpha * product
    if not node.has(2):
        return product
    return product + (node.tensor(2) if beta == 1.0 else beta * node.tensor(2))


def _lstm(node: Node) -> Tensor:
    return _recurrent(node, 4, (0, 2, 3, 1))  # ONNX: input, output, forget, cell; torch: input, forget, cell, output


def _gru(node: Node) -> Tensor:
    if not node.attribute("linear_before_reset", 0):
        raise unimplemented(f"{node} resets before its product (linear_before_reset 0), which torch has not")
    return _recurrent(node, 3, (1, 0, 2))  # ONNX: update, reset, hidden; torch: reset, update, hidden


def _recurrent(node: Node, gates: int, order: tuple[int, ...]) -> Tensor:
    node.only("layout", 0)
    node.only("direction", "forward", "bidirectional")
    ways = node.known(1).shape[0]
    # What ONNX has where nothing is said, which some exporters say nevertheless.
    node.only("activations", None, ["Sigmoid", *["Tanh"] * (gates - 2)] * ways)
    for name in ("clip", "input_forget"):
        node.only(name, None, 0)
    if node.has(4) or node.has(7):
        raise unimplemented(f"{node} has lengths of sequences or peepholes, which are not translated")
    x, size = node.tensor(0), node.attribute("hidden_size")
    parts = []
    kernels = node.known(1), node.known(2)
    biases = node.known(3) if node.has(3) else np.zeros((ways, 2 * gates * size), kernels[0].dtype)
    for way in range(ways):
        for what, array in (
            ("kernel", kernels[0][way]),
            ("recurrent", kernels[1][way]),
            ("bias", biases[way][: gates * size]),
            ("recurrent_bias", biases[way][gates * size :]),
        ):
            blocks = np.split(array, gates)
            parts.append(node.kept(f"{what}{way}", np.concatenate([blocks[place] for place in order])))
    states = [
        node.tensor(place) if node.has(place) else x.new_zeros((ways, x.shape[1], size))
        for place in ((5, 6) if gates == 4 else (5,))
    ]
    if gates == 4:
        found, *last = torch.lstm(x, states, parts, True, 1, 0.0, False, ways == 2, False)
    else:
        found, *last = torch.gru(x, states[0], parts, True, 1, 0.0, False, ways == 2, False)
    steps, rows = found.shape[:2]
    return (found.reshape(steps, rows, ways, size).permute(0, 2, 1, 3), *last)


def _reshape(node: Node) -> Tensor:
    x, wanted = node.tensor(0), node.known(1).tolist()
    keep = not node.attribute("allowzero", 0)
    return x.reshape([x.shape[axis] if size == 0 and keep else size for axis, size in enumerate(wanted)])


def _axes(node: Node, place: int = 1) -> list[int] | None:
    if node.has(place):
        return [int(axis) for axis in node.known(place)]
    axes: list[int] | None = node.attribute("axes")
    return axes


def _reduced(reduce: Callable[..., Tensor]) -> Callable[[Node], Tensor]:
    def compute(node: Node) -> Tensor:
        x, axes = node.tensor(0), _axes(node)
        if not axes:
            if node.attribute("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return reduce(x, dim=tuple(axes), keepdim=bool(node.attribute("keepdims", 1)))

    return compute


def _placed(find: Callable[..., Tensor]) -> Callable[[Node], Tensor]:
    def compute(node: Node) -> Tensor:
        node.only("select_last_index", 0)
        return find(node.tensor(0), dim=node.attribute("axis", 0), keepdim=bool(node.attribute("keepdims", 1)))

    return compute


def _squeeze(node: Node) -> Tensor:
    x, axes = node.tensor(0), _axes(node)
    return x.squeeze() if axes is None else torch.squeeze(x, dim=tuple(axes))


def _unsqueeze(node: Node) -> Tensor:
    x = node.tensor(0)
    axes = _axes(node) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _gather(node: Node) -> Tensor:
    table, places = node.tensor(0), node.tensor(1)
    axis = node.attribute("axis", 0) % table.ndim
    size = table.shape[axis]
    if node.is_known(1):  # ONNX counts from the end, torch does not; of places that are computed nobody knows
        places = node.kept("places", np.asarray(node.known(1)) % size)
    if axis == 0 and table.ndim == 2:
        return functional.embedding(places, table)
    found = torch.index_select(table, axis, places.reshape(-1).long())
    return found.reshape(*table.shape[:axis], *places.shape, *table.shape[axis + 1 :])


def _slice(node: Node) -> Tensor:
    x = node.tensor(0)
    starts, ends = (node.known(place).tolist() for place in (1, 2))
    axes = [int(axis) for axis in node.known(3)] if node.has(3) else list(range(len(starts)))
    steps = node.known(4).tolist() if node.has(4) else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise unimplemented(f"{node} goes backwards, which torch does not")
        size = x.shape[axis]
        begin, stop, _ = slice(start, end, step).indices(size)
        x = x[(slice(None),) * (axis % x.ndim) + (slice(begin, max(begin, stop), step),)]
    return x


def _split(node: Node) -> Tensor:
    x, axis = node.tensor(0), node.attribute("axis", 0)
    if node.has(1):
        return torch.split(x, [int(size) for size in node.known(1)], dim=axis)
    return torch.split(x, -(-x.shape[axis] // node.outputs), dim=axis)


def _pad(node: Node) -> Tensor:
    node.only("mode", "constant", "reflect", "edge")
    if node.has(3):
        raise unimplemented(f"{node} pads chosen axes, which is not translated")
    x, pads = node.tensor(0), node.known(1).tolist()
    order = [pad for axis in reversed(range(x.ndim)) for pad in (pads[axis], pads[axis + x.ndim])]
    mode = {"edge": "replicate"}.get(node.attribute("mode", "constant"), node.attribute("mode", "constant"))
    if mode != "constant":
        return functional.pad(x, order[: 2 * (x.ndim - 2)] if x.ndim > 2 else order, mode=mode)
    return functional.pad(x, order, value=node.known(2).item() if node.has(2) else 0)


def _cast(node: Node) -> Tensor:
    import onnx.helper

    return node.tensor(0).to(getattr(torch, onnx.helper.tensor_dtype_to_np_dtype(node.attribute("to")).name))


def _clip(node: Node) -> Tensor:
    low = node.known(1).item() if node.has(1) else node.attribute("min")
    high = node.known(2).item() if node.has(2) else node.attribute("max")
    return node.tensor(0) if low is None and high is None else torch.clamp(node.tensor(0), low, high)


def _div(node: Node) -> Tensor:
    x, y = node.tensor(0), node.tensor(1)
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _all(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Node], Tensor]:
    def compute(node: Node) -> Tensor:
        found = node.tensor(0)
        for place in range(1, node.count()):
            found = combine(found, node.tensor(place))
        return found

    return compute


def _one(function: Callable[[Tensor], Tensor]) -> Callable[[Node], Tensor]:
    return lambda node: function(node.tensor(0))


def _spread(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


OPERATIONS: Final[Mapping[str, Callable[[Node], Any]]] = {
    "Abs": _one(torch.abs),
    "Add": _all(torch.add),
    "And": _all(torch.logical_and),
    "ArgMax": _placed(torch.argmax),
    "ArgMin": _placed(torch.argmin),
    "AveragePool": _pool,
    "BatchNormalization": _norm,
    "Cast": _cast,
    "Ceil": _one(torch.ceil),
    "Clip": _clip,
    "Concat": lambda node: torch.cat([node.tensor(place) for place in range(node.count())], node.attribute("axis")),
    "Conv": _conv,
    "Cos": _one(torch.cos),
    "Div": _div,
    "Dropout": _one(lambda x: x),
    "Elu": lambda node: functional.elu(node.tensor(0), node.attribute("alpha", 1.0)),
    "Equal": _all(torch.eq),
    "Erf": _one(torch.erf),
    "Exp": _one(torch.exp),
    "Expand": lambda node: node.tensor(0) * torch.ones([*node.known(1).tolist()], dtype=node.tensor(0).dtype),
    "Flatten": lambda node: node.tensor(0).reshape(math.prod(node.tensor(0).shape[: node.attribute("axis", 1)]), -1),
    "Floor": _one(torch.floor),
    "GRU": _gru,
    "Gather": _gather,
    "Gelu": lambda node: functional.gelu(node.tensor(0), approximate=node.attribute("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": _one(lambda x: x.mean(dim=_spread(x), keepdim=True)),
    "GlobalMaxPool": _one(lambda x: x.amax(dim=_spread(x), keepdim=True)),
    "Greater": _all(torch.gt),
    "GreaterOrEqual": _all(torch.ge),
    "HardSigmoid": lambda node: torch.clamp(
        node.attribute("alpha", 0.2) * node.tensor(0) + node.attribute("beta", 0.5), 0, 1
    ),
    "HardSwish": _one(functional.hardswish),
    "Identity": _one(lambda x: x),
    "LSTM": _lstm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node: functional.leaky_relu(node.tensor(0), node.attribute("alpha", 0.01)),
    "Less": _all(torch.lt),
    "LessOrEqual": _all(torch.le),
    "Log": _one(torch.log),
    "LogSoftmax": lambda node: torch.log_softmax(node.tensor(0), node.attribute("axis", -1)),
    "MatMul": _all(torch.matmul),
    "Max": _all(torch.maximum),
    "MaxPool": _pool,
    "Min": _all(torch.minimum),
    "Mul": _all(torch.mul),
    "Neg": _one(torch.neg),
    "Not": _one(torch.logical_not),
    "Or": _all(torch.logical_or),
    "Pad": _pad,
    "Pow": _all(torch.pow),
    "PRelu": lambda node: torch.where(node.tensor(0) >= 0, node.tensor(0), node.tensor(0) * node.tensor(1)),
    "Reciprocal": _one(torch.reciprocal),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _one(functional.relu),
    "Reshape": _reshape,
    "Sigmoid": _one(torch.sigmoid),
    "Sin": _one(torch.sin),
    "Slice": _slice,
    "Softmax": lambda node: torch.softmax(node.tensor(0), node.attribute("axis", -1)),
    "Softplus": _one(functional.softplus),
    "Split": _split,
    "Sqrt": _one(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _all(torch.sub),
    "Sum": _all(torch.add),
    "Tanh": _one(torch.tanh),
    "Tile": lambda node: node.tensor(0).tile(node.known(1).tolist()),
    "Transpose": lambda node: node.tensor(0).permute(
        node.attribute("perm") or list(reversed(range(node.tensor(0).ndim)))
    ),
    "Unsqueeze": _unsqueeze,
    "Where": lambda node: torch.where(node.tensor(0), node.tensor(1), node.tensor(2)),
}
"""Operation -> what computes it: a tensor, or several if it has several outputs."""
