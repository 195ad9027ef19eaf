"""Shapes of TensorFlow's lists of tensors, which loops collect their results in."""

from __future__ import annotations

from collections.abc import Mapping

from servable.forge.inspection.tf_known import Call, Known, UnknownShapeError
from servable.forge.inspection.tf_shapes import Rule


def _element(call: Call, place: int) -> Known:
    """Return the elements that a shape given as a tensor allows: all of it or nothing."""
    value = call.known(place).value
    shape = None if value is None or value.ndim == 0 else tuple(int(size) for size in value)
    known = shape is not None and all(size >= 0 for size in shape)
    return Known(call.dtype("element_dtype"), shape if known else None)


def _list(element: Known, length: int | None) -> list[Known]:
    return [Known("variant", (), None, element, length)]


def _reserve(call: Call) -> list[Known]:
    count = call.known(1).value
    return _list(_element(call, 0), None if count is None else int(count))


def _empty(call: Call) -> list[Known]:
    return _list(_element(call, 0), None)


def _from_tensor(call: Call) -> list[Known]:
    shape = call.shape(0)
    return _list(Known(call.dtype("element_dtype"), shape[1:]), shape[0])


def _get(call: Call) -> list[Known]:
    held = call.known(0).held
    if held is not None and held.shape is not None:
        return [held]
    return [_element(call, 2)]


def _set(call: Call) -> list[Known]:
    given, item = call.known(0), call.known(2)
    return _list(Known(item.dtype, item.shape), given.length)


def _push(call: Call) -> list[Known]:
    item = call.known(1)
    return _list(Known(item.dtype, item.shape), None)


def _stack(call: Call) -> list[Known]:
    given = call.known(0)
    count = call.integer("num_elements", -1)
    length = given.length if given.length is not None else count if count >= 0 else None
    shape = None if given.held is None else given.held.shape
    if shape is None:
        shape = _element(call, 1).shape
    if length is None or shape is None:
        raise UnknownShapeError
    return [Known(call.dtype("element_dtype"), (length, *shape))]


LIST_RULES: Mapping[str, Rule] = {
    "TensorListReserve": _reserve,
    "EmptyTensorList": _empty,
    "TensorListFromTensor": _from_tensor,
    "TensorListGetItem": _get,
    "TensorListSetItem": _set,
    "TensorListPushBack": _push,
    "TensorListStack": _stack,
}
"""Type of operation -> rule."""
