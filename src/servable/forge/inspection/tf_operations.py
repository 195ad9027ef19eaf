"""What a TensorFlow graph does not say of itself: the names of an operation's outputs, and who calls functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servable.engines.graph import attribute
from servable.engines.tensor_proto import dtype_of, shape_of
from servable.forge.inspection.graph import Attribute

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "RemoteCall"})
LOOPS = frozenset({"While", "StatelessWhile"})
BRANCHES: Mapping[str, tuple[str, ...]] = {
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
}
"""Operation -> attributes that name the functions of which it runs one."""

_OUTPUTS = {
    "Split": "output*num_split", "SplitV": "output*num_split", "Unpack": "output*num", "ShapeN": "output*N",
    "IdentityN": "output#T", "While": "output#T", "StatelessWhile": "output#T", "If": "output#Tout",
    "StatelessIf": "output#Tout", "Case": "output#Tout", "StatelessCase": "output#Tout",
    "PartitionedCall": "output#Tout", "StatefulPartitionedCall": "output#Tout", "TopKV2": "values indices",
    "TopK": "values indices", "Unique": "y idx", "UniqueV2": "y idx", "UniqueWithCounts": "y idx count",
    "MaxPoolWithArgmax": "output argmax", "TensorListPopBack": "output_handle tensor",
    "FusedBatchNorm": "y batch_mean batch_variance reserve_space_1 reserve_space_2",
    "FusedBatchNormV2": "y batch_mean batch_variance reserve_space_1 reserve_space_2",
    "FusedBatchNormV3": "y batch_mean batch_variance reserve_space_1 reserve_space_2 reserve_space_3",
    "LookupTableExportV2": "keys values", "Switch": "output_false output_true", "Merge": "output value_index",
    "NonMaxSuppressionV4": "selected_indices valid_outputs", "Qr": "q r", "Svd": "s u v",
    "NonMaxSuppressionV5": "selected_indices selected_scores valid_outputs",
    "BlockLSTM": "i cs f o ci co h", "BlockLSTMV2": "i cs f o ci co h", "LSTMBlockCell": "i cs f o ci co h",
}  # fmt: skip
"""For graphs that do not carry the definitions of their operations. ``*N``: as many as that attribute says; ``#T``: as
many as that list of types has."""


def output_places(node: Any, definition: Any | None) -> dict[str, int]:
    """Return each named output of a node with the number of its first tensor; "" with how many there are."""
    places: dict[str, int] = {}
    count = 0
    if definition is not None:
        for given in definition.output_arg:
            places[given.name] = count
            if given.number_attr:
                count += int(attribute(node, given.number_attr).i)
            elif given.type_list_attr:
                count += len(attribute(node, given.type_list_attr).list.type)
            else:
                count += 1
    else:
        for text in _OUTPUTS.get(node.op, "output").split():
            name, number = text.partition("*")[0].partition("#")[0], text.rpartition("*")[2].rpartition("#")[2]
            places[name] = count
            if "*" in text:
                count += int(attribute(node, number).i)
            elif "#" in text:
                count += len(attribute(node, number).list.type)
            else:
                count += 1
    places[""] = count
    return places


def plain_attributes(node: Any) -> dict[str, Attribute]:
    """Return a node's attributes for people: no hidden ones, and of a tensor only what it is."""
    return {name: _plain(value) for name, value in sorted(node.attr.items()) if not name.startswith("_")}


def _plain(value: Any) -> Attribute:
    kind = value.WhichOneof("value")
    if kind == "list":
        parts: list[Attribute] = []
        for field, elements in value.list.ListFields():
            parts += [_of_kind(field.name, element) for element in elements]
        return tuple(parts)
    return None if kind is None else _of_kind(kind, getattr(value, kind))


def _of_kind(kind: str, value: Any) -> Attribute:
    if kind == "s":
        return str(value.decode(errors="replace"))
    if kind == "type":
        return dtype_of(value).name
    if kind == "shape":
        return _shape_text(value)
    if kind == "tensor":
        return f"{dtype_of(value.dtype).name}{_shape_text(value.tensor_shape)}"
    if kind == "func":
        return str(value.name)
    return value if isinstance(value, int | float | bool | str) else str(value)


def _shape_text(proto: Any) -> str:
    shape = shape_of(proto)
    return "[...]" if shape is None else f"[{','.join('?' if size is None else str(size) for size in shape)}]"
