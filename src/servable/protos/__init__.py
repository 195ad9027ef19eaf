"""DESCRIPTORS: our own message definitions in a descriptor pool of our own.

``protos.serving.PredictRequest``, ``protos.tensorflow.DataType.DT_FLOAT``, ``protos.onnx.ModelProto``: one attribute
of this package for each proto package, one attribute of that for each message or enum, found when first asked for.

The pool is private because ``tensorflow``, ``tensorflow-serving-api`` and ``tritonclient`` register the same full
names in protobuf's default pool, each from files of its own. Their messages and ours meet as bytes. For the same
reason no module here is generated code: that registers itself in the default pool.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DESCRIPTORS = Path(__file__).with_name("descriptors.binpb")


class Package:
    """The messages and enums of one proto package, as attributes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """Find a message class or enum by its short name, once."""
        if name.startswith("__"):
            raise AttributeError(name)
        found = _find(f"{self._name}.{name}")
        setattr(self, name, found)
        return found

    def __repr__(self) -> str:
        """Return the package's full name."""
        return f"<Package {self._name}>"


google = Package("google.protobuf")
tensorflow = Package("tensorflow")
error = Package("tensorflow.error")
serving = Package("tensorflow.serving")
serving_internal = Package("tensorflow.serving.internal")
onnx = Package("onnx")
profiler = Package("tensorflow.profiler")
reflection = Package("grpc.reflection.v1")
inference = Package("inference")


@functools.cache
def pool() -> Any:
    """Return the descriptor pool that holds all of ``descriptors.binpb``. Loading it takes about a millisecond."""
    from google.protobuf import descriptor_pool

    found = descriptor_pool.DescriptorPool()
    for file in _files(DESCRIPTORS.read_bytes()):
        found.AddSerializedFile(file)
    return found


def _find(full_name: str) -> Any:
    from google.protobuf import message_factory
    from google.protobuf.internal import enum_type_wrapper

    try:
        return message_factory.GetMessageClass(pool().FindMessageTypeByName(full_name))
    except KeyError:
        pass
    try:
        return enum_type_wrapper.EnumTypeWrapper(pool().FindEnumTypeByName(full_name))
    except KeyError:
        raise AttributeError(f"{full_name} is neither a message nor an enum of servable.protos") from None


def _files(descriptor_set: bytes) -> Iterator[bytes]:
    """Yield the serialized files of a FileDescriptorSet: field 1, repeated. Spares the import of descriptor_pb2."""
    position = 0
    while position < len(descriptor_set):
        if descriptor_set[position] != 0x0A:
            raise ValueError(f"{DESCRIPTORS} is damaged at byte {position}; python -m servable.protos.compile makes it")
        position += 1
        size = shift = 0
        while True:
            byte = descriptor_set[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield descriptor_set[position : position + size]
        position += size
