"""How shapes in TensorFlow come about: windows, slices, sums, products. Nothing is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from servable.engines.tensor_proto import dtype_of
from servable.forge.inspection.tf_known import Call, Known, UnknownShapeError

Rule: TypeAlias = Callable[[Call], Sequence[Known]]
"""What is known of the outputs; raises ``UnknownShapeError`` where nothing follows."""

_DTYPE_ATTRIBUTES = ("DstT", "output_type", "out_type", "dtype", "element_dtype", "Tparams", "T", "Tidx")


def output_dtype(call: Call) -> str:
    """Return the element type that a node's attributes speak of."""
    for name in _DTYPE_ATTRIBUTES:
        if call.has(name) and call.node.attr[name].WhichOneof("value") == "type":
            return dtype_of(call.node.attr[name].type).name
    first = call.inputs[0].dtype if call.inputs else "unknown"
    return first if first not in ("resource", "variant") else "unknown"  # a default that its writer left out


# -- shapes ------------------------------------------------------------------------------------------------------------


def broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of an elementwise operation of several tensors."""
    return tuple(np.broadcast_shapes(*shapes))


def strides_of_window(
    size: int, kernel: int, stride: int, dilation: int, padding: str, explicit: tuple[int, int]
) -> int:
    """Return how many places a window has along one axis."""
    reach = (kernel - 1) * dilation + 1
    if padding == "SAME":
        return -(-size // stride)
    if padding == "EXPLICIT":
        size += sum(explicit)
    elif padding != "VALID":
        raise UnknownShapeError
    return max(0, (size - reach) // stride + 1)


def spatial_axes(format_name: str, rank: int) -> tuple[tuple[int, ...], int]:
    """Return the axes that windows move along, and that of the channels."""
    if format_name.startswith("NC"):
        return tuple(range(2, rank)), 1
    return tuple(range(1, rank - 1)), rank - 1


def windowed(call: Call, kernel: Sequence[int], channels: int) -> Known:
    """Return what a convolution or pooling gives: ``kernel`` has the extents along the spatial axes."""
    data = call.shape(0)
    axes, channel_axis = spatial_axes(call.text("data_format") or "NHWC", len(data))
    strides = call.numbers("strides")
    dilations = call.numbers("dilations") or (1,) * len(data)
    explicit = call.numbers("explicit_paddings") or (0,) * (2 * len(data))
    made = list(data)
    for place, axis in enumerate(axes):
        around = (explicit[2 * axis], explicit[2 * axis + 1])
        made[axis] = strides_of_window(
            data[axis], kernel[place], strides[axis], dilations[axis], call.text("padding"), around
        )
    made[channel_axis] = channels
    return Known(output_dtype(call), tuple(made))


def reduced(shape: tuple[int, ...], axes: Sequence[int], *, keep: bool) -> tuple[int, ...]:
    """Return a shape with some axes summed up."""
    gone = {axis % len(shape) for axis in axes} if shape else set()
    if keep:
        return tuple(1 if axis in gone else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def reshaped(count: int, wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the shape asked for, with the size that it leaves open."""
    open_axes = [axis for axis, size in enumerate(wanted) if size < 0]
    if not open_axes:
        return tuple(wanted)
    rest = math.prod(size for size in wanted if size >= 0)
    if len(open_axes) > 1 or not rest:
        raise UnknownShapeError
    return tuple(count // rest if size < 0 else size for size in wanted)


def gathered(table: tuple[int, ...], picked: tuple[int, ...], axis: int, batch: int = 0) -> tuple[int, ...]:
    """Return the shape of what is picked from a table along an axis."""
    axis %= max(1, len(table))
    return (*table[:axis], *picked[batch:], *table[axis + 1 :])


def sliced(call: Call) -> tuple[Any, ...]:
    """Return the index of a StridedSlice as Python writes it."""
    begin, end, strides = (call.integers(place) for place in (1, 2, 3))
    masks = {name: call.integer(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    index: list[Any] = []
    for place in range(len(begin)):
        bit = 1 << place
        if masks["ellipsis"] & bit:
            index.append(Ellipsis)
        elif masks["new_axis"] & bit:
            index.append(None)
        elif masks["shrink_axis"] & bit:
            index.append(begin[place])
        else:
            first = None if masks["begin"] & bit else begin[place]
            last = None if masks["end"] & bit else end[place]
            index.append(slice(first, last, strides[place]))
    return tuple(index)


def contracted(equation: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of Einstein's sum."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow or "." in equation:
        raise UnknownShapeError
    sizes: Mapping[str, int] = {
        letter: size
        for term, shape in zip(left.split(","), shapes, strict=True)
        for letter, size in zip(term, shape, strict=True)
    }
    return tuple(sizes[letter] for letter in right)
