"""One rule for each operation of TensorFlow whose output's shape follows from its inputs and attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from servable.engines.graph import attribute
from servable.engines.tensor_proto import shape_of, to_array
from servable.forge.inspection.tf_known import LEFT_OUT, Call, Known, UnknownShapeError, is_followed, whole
from servable.forge.inspection.tf_lists import LIST_RULES
from servable.forge.inspection.tf_shapes import (
    Rule,
    broadcast,
    contracted,
    gathered,
    output_dtype,
    reduced,
    reshaped,
    sliced,
    spatial_axes,
    windowed,
)
from servable.forge.inspection.tf_values import value_of


def _made(call: Call, shape: Sequence[int]) -> list[Known]:
    return [Known(output_dtype(call), tuple(shape))]


def _same(call: Call) -> list[Known]:
    given = call.known(0)
    return [Known(given.dtype if given.dtype != "unknown" else output_dtype(call), given.shape, None, given.held)]


def _like(call: Call) -> list[Known]:
    return _made(call, call.shape(0))


def _elementwise(call: Call) -> list[Known]:
    return _made(call, broadcast([call.shape(place) for place in range(len(call.inputs))]))


def _compared(call: Call) -> list[Known]:
    return [Known("bool", broadcast([call.shape(place) for place in range(len(call.inputs))]))]


def _constant(call: Call) -> list[Known]:
    is_whole = "value" in call.node.attr
    proto = attribute(call.node, "value" if is_whole else LEFT_OUT).tensor
    shape = whole(shape_of(proto.tensor_shape))
    dtype = call.dtype("dtype")
    value = to_array(proto) if is_whole and shape is not None and is_followed(dtype, shape) else None
    return [Known(dtype, shape, value)]


def _placeholder(call: Call) -> list[Known]:
    return [Known(call.dtype("dtype"), call.declared("shape"))]


def _variable(call: Call) -> list[Known]:
    held = Known(call.dtype("dtype"), call.declared("shape"))
    return [Known("resource", (), None, held)] if call.node.op == "VarHandleOp" else [held]


def _read(call: Call) -> list[Known]:
    held = call.known(0).held
    return [held if held is not None else Known(call.dtype("dtype"))]


def _convolution(call: Call) -> list[Known]:
    kernel = call.shape(1)
    return [windowed(call, kernel[:-2], kernel[-1])]


def _depthwise(call: Call) -> list[Known]:
    kernel = call.shape(1)
    return [windowed(call, kernel[:-2], kernel[-1] * kernel[-2])]


def _pool(call: Call) -> list[Known]:
    data, sizes = call.shape(0), call.numbers("ksize")
    axes, channel = spatial_axes(call.text("data_format") or "NHWC", len(data))
    if sizes[channel] != 1 or sizes[0] != 1:
        raise UnknownShapeError
    return [windowed(call, [sizes[axis] for axis in axes], data[channel])]


def _normalized(call: Call) -> list[Known]:
    statistics = Known("float32", call.known(1).shape)
    return [*_like(call), *[statistics] * 4]


def _matrix_product(call: Call) -> list[Known]:
    turn_left, turn_right = (
        call.flag(name) for name in (("transpose_a", "transpose_b") if call.has("transpose_a") else ("adj_x", "adj_y"))
    )
    left, right = call.shape(0), call.shape(1)
    rows, columns = left[-1 if turn_left else -2], right[-2 if turn_right else -1]
    return _made(call, (*broadcast([left[:-2], right[:-2]]), rows, columns))


def _einsum(call: Call) -> list[Known]:
    return _made(call, contracted(call.text("equation"), [call.shape(place) for place in range(len(call.inputs))]))


def _reshape(call: Call) -> list[Known]:
    return _made(call, reshaped(math.prod(call.shape(0)), call.integers(1)))


def _expand(call: Call) -> list[Known]:
    shape, axis = call.shape(0), call.number(1)
    axis = axis + len(shape) + 1 if axis < 0 else axis
    return _made(call, (*shape[:axis], 1, *shape[axis:]))


def _squeeze(call: Call) -> list[Known]:
    shape = call.shape(0)
    axes = {axis % len(shape) for axis in call.numbers("squeeze_dims")}
    kept = [size for axis, size in enumerate(shape) if (axis not in axes if axes else size != 1)]
    return _made(call, kept)


def _transpose(call: Call) -> list[Known]:
    shape = call.shape(0)
    return _made(call, [shape[axis] for axis in call.integers(1)])


def _pack(call: Call) -> list[Known]:
    shape, axis = call.shape(0), call.integer("axis")
    axis = axis + len(shape) + 1 if axis < 0 else axis
    return _made(call, (*shape[:axis], len(call.inputs), *shape[axis:]))


def _unpack(call: Call) -> list[Known]:
    shape = call.shape(0)
    axis = call.integer("axis") % len(shape)
    return _made(call, (*shape[:axis], *shape[axis + 1 :])) * call.integer("num")


def _concat(call: Call) -> list[Known]:
    shapes = [call.shape(place) for place in range(len(call.inputs) - 1)]
    axis = call.number(len(call.inputs) - 1) % len(shapes[0])
    return _made(call, (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :]))


def _split(call: Call) -> list[Known]:
    shape, count = call.shape(1), call.integer("num_split")
    axis = call.number(0) % len(shape)
    return _made(call, (*shape[:axis], shape[axis] // count, *shape[axis + 1 :])) * count


def _split_by_sizes(call: Call) -> list[Known]:
    shape, sizes = call.shape(0), call.integers(1)
    axis = call.number(2) % len(shape)
    rest = shape[axis] - sum(size for size in sizes if size >= 0)
    return [
        Known(output_dtype(call), (*shape[:axis], rest if size < 0 else size, *shape[axis + 1 :])) for size in sizes
    ]


def _slice(call: Call) -> list[Known]:
    shape, begin, size = call.shape(0), call.integers(1), call.integers(2)
    kept = [full - start if wanted < 0 else wanted for full, start, wanted in zip(shape, begin, size, strict=True)]
    return _made(call, kept)


def _strided_slice(call: Call) -> list[Known]:
    # A view of one zero: nothing is allocated, and numpy's rules of slicing are TensorFlow's.
    return _made(call, np.broadcast_to(np.int8(0), call.shape(0))[sliced(call)].shape)


def _gather(call: Call) -> list[Known]:
    axis = call.number(2) if len(call.inputs) > 2 else 0
    return _made(call, gathered(call.shape(0), call.shape(1), axis, call.integer("batch_dims")))


def _resource_gather(call: Call) -> list[Known]:
    table = call.known(0).held
    if table is None or table.shape is None:
        raise UnknownShapeError
    return [Known(table.dtype, gathered(table.shape, call.shape(1), call.integer("batch_dims")))]


def _gather_places(call: Call) -> list[Known]:
    table, picked = call.shape(0), call.shape(1)
    return _made(call, (*picked[:-1], *table[picked[-1] :]))


def _pad(call: Call) -> list[Known]:
    around = call.value(1).reshape(-1, 2)
    return _made(call, [size + int(sum(pair)) for size, pair in zip(call.shape(0), around, strict=True)])


def _tile(call: Call) -> list[Known]:
    return _made(call, [size * times for size, times in zip(call.shape(0), call.integers(1), strict=True)])


def _fill(call: Call) -> list[Known]:
    return [Known(call.known(1).dtype, call.integers(0))]


def _broadcast_to(call: Call) -> list[Known]:
    return _made(call, call.integers(1))


def _range(call: Call) -> list[Known]:
    start, stop, step = (call.value(place).item() for place in range(3))
    return [Known(call.known(0).dtype, (max(0, math.ceil((stop - start) / step)),))]


def _one_hot(call: Call) -> list[Known]:
    shape, axis = call.shape(0), call.integer("axis", -1)
    axis = len(shape) if axis < 0 else axis
    return _made(call, (*shape[:axis], call.number(1), *shape[axis:]))


def _reduce(call: Call) -> list[Known]:
    shape = reduced(call.shape(0), call.integers(1), keep=call.flag("keep_dims"))
    return [Known("bool" if call.node.op in ("All", "Any") else output_dtype(call), shape)]


def _largest(call: Call) -> list[Known]:
    return [Known(call.dtype("output_type", "int64"), reduced(call.shape(0), [call.number(1)], keep=False))]


def _top(call: Call) -> list[Known]:
    shape = (*call.shape(0)[:-1], call.number(1))
    return [Known(output_dtype(call), shape), Known("int32", shape)]


def _shape(call: Call) -> list[Known]:
    return [Known(call.dtype("out_type", "int32"), (len(call.shape(0)),))]


def _scalar(call: Call) -> list[Known]:
    return [Known(call.dtype("out_type", "int32"), ())]


def _resize(call: Call) -> list[Known]:
    batch, _, _, channels = call.shape(0)
    dtype = "float32" if call.node.op == "ResizeBilinear" else output_dtype(call)
    return [Known(dtype, (batch, *call.integers(1), channels))]


def _spread(call: Call) -> list[Known]:
    return _made(call, call.integers(0))


def _to_batch(call: Call) -> list[Known]:
    shape, block = list(call.shape(0)), call.integers(1)
    for place, (size, pair) in enumerate(zip(block, call.value(2).reshape(-1, 2), strict=True), start=1):
        shape[place] = (shape[place] + int(sum(pair))) // size
    shape[0] *= math.prod(block)
    return _made(call, shape)


def _from_batch(call: Call) -> list[Known]:
    shape, block = list(call.shape(0)), call.integers(1)
    for place, (size, pair) in enumerate(zip(block, call.value(2).reshape(-1, 2), strict=True), start=1):
        shape[place] = shape[place] * size - int(sum(pair))
    shape[0] //= math.prod(block)
    return _made(call, shape)


def _all_same(call: Call) -> list[Known]:
    return list(call.inputs)


_TABLE: Mapping[Rule, str] = {
    _same: "Identity StopGradient PreventGradient Snapshot EnsureShape PlaceholderWithDefault CheckNumerics",
    _all_same: "IdentityN",
    _like: "Relu Relu6 Elu Selu LeakyRelu Softplus Softsign Sigmoid Tanh Erf Erfc Exp Expm1 Log Log1p Sqrt Rsqrt "
    "Square Reciprocal Inv Abs Neg Sign Floor Ceil Round Rint Sin Cos Tan Softmax LogSoftmax Cast "
    "ZerosLike OnesLike BiasAdd BiasAddV1 Invert ReverseV2 Cumsum Cumprod InvertPermutation Dequantize "
    "MatrixBandPart Roll FakeQuantWithMinMaxVars FakeQuantWithMinMaxArgs TensorScatterUpdate Sinh Cosh "
    "Atan Asin Acos",
    _elementwise: "Add AddV2 AddN Sub Mul Div RealDiv FloorDiv TruncateDiv DivNoNan MulNoNan Maximum Minimum Pow Mod "
    "FloorMod SquaredDifference SelectV2 Select BitwiseAnd BitwiseOr BitwiseXor LeftShift RightShift "
    "Atan2 ClipByValue",
    _compared: "Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr LogicalNot IsNan IsInf "
    "IsFinite",
    _constant: "Const HostConst",
    _placeholder: "Placeholder PlaceholderV2",
    _variable: "VarHandleOp VariableV2 Variable",
    _read: "ReadVariableOp",
    _convolution: "Conv2D Conv3D _FusedConv2D",
    _depthwise: "DepthwiseConv2dNative",
    _pool: "MaxPool AvgPool MaxPool3D AvgPool3D",
    _normalized: "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3",
    _matrix_product: "MatMul _FusedMatMul BatchMatMul BatchMatMulV2 BatchMatMulV3",
    _einsum: "Einsum",
    _reshape: "Reshape",
    _expand: "ExpandDims",
    _squeeze: "Squeeze",
    _transpose: "Transpose",
    _pack: "Pack",
    _unpack: "Unpack",
    _concat: "ConcatV2",
    _split: "Split",
    _split_by_sizes: "SplitV",
    _slice: "Slice",
    _strided_slice: "StridedSlice",
    _gather: "GatherV2 Gather",
    _resource_gather: "ResourceGather",
    _gather_places: "GatherNd",
    _pad: "Pad PadV2 MirrorPad",
    _tile: "Tile",
    _fill: "Fill",
    _broadcast_to: "BroadcastTo",
    _range: "Range",
    _one_hot: "OneHot",
    _reduce: "Sum Mean Max Min Prod All Any EuclideanNorm",
    _largest: "ArgMax ArgMin",
    _top: "TopKV2",
    _shape: "Shape",
    _scalar: "Size Rank",
    _resize: "ResizeBilinear ResizeNearestNeighbor",
    _spread: "Conv2DBackpropInput Conv3DBackpropInputV2",
    _to_batch: "SpaceToBatchND",
    _from_batch: "BatchToSpaceND",
}

RULES: Mapping[str, Rule] = {**{name: rule for rule, names in _TABLE.items() for name in names.split()}, **LIST_RULES}
"""Type of operation -> rule."""


def infer(node: Any, inputs: Sequence[Known], count: int) -> list[Known]:
    """Return what is known of the outputs of a node; ``count`` is how many it has.

    An operation without a rule gives what the graph itself states, else a tensor of unknown shape.
    """
    call = Call(node, tuple(inputs))
    found: Sequence[Known] = ()
    rule = RULES.get(node.op)
    if rule is not None:
        try:
            found = rule(call)
        except (UnknownShapeError, ValueError, IndexError, ZeroDivisionError):
            found = ()
    stated = [whole(shape_of(shape)) for shape in attribute(node, "_output_shapes").list.shape]
    outputs = []
    for index in range(max(count, len(found), 1)):
        known = found[index] if index < len(found) else Known(output_dtype(call))
        if known.shape is None and index < len(stated):
            known = Known(known.dtype, stated[index], known.value, known.held, known.length)
        outputs.append(known)
    first = outputs[0]
    if len(outputs) == 1 and first.value is None and first.shape is not None:
        outputs[0] = Known(first.dtype, first.shape, value_of(call, first), first.held, first.length)
    return outputs
