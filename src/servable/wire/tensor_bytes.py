"""numpy -> the bytes of a TensorProto, without building the message: the reply's half of the hot path.

What precedes the data depends on name, type and shape alone, so it is remembered: a float tensor costs one look-up
and one copy. ``HeadMemory`` is bounded; when it is full it starts again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from servable import protos
from servable.core import tensors
from servable.core.tensors import Array, DType, dtype_of
from servable.wire.tensor_proto import NUMBERS
from servable.wire.varints import pack_varints, varint

_CONTENT_TAG = b"\x22"
_STRING_TAG = b"\x42"
_TAGS = {
    "float32": b"\x2a",
    "float64": b"\x32",
    "complex64": b"\x4a",
    "complex128": b"\x62",
    "int64": b"\x52",
    "bool": b"\x5a",
    "float16": b"\x6a",
    "bfloat16": b"\x6a",
    "uint32": b"\x82\x01",
    "uint64": b"\x8a\x01",
    "float8_e5m2": b"\x92\x01",
    "float8_e4m3fn": b"\x92\x01",
}
_INT_TAG = b"\x3a"
_RAW = frozenset(("bool", "float32", "float64", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn"))
"""Types whose values go into their typed field as they lie in memory."""

_MAX_SIZES = 16
_COPY_BELOW = 4096
Chunk = bytes | memoryview


class HeadMemory:
    """Encodes named tensors as entries of a ``map<string, TensorProto>``, and remembers what precedes their data.

    ``field`` is the map's number in its message (below 16); ``tensor_content`` chooses raw bytes for every type.
    """

    def __init__(self, field: int, *, tensor_content: bool = False, capacity: int = 1024) -> None:
        self._tag = bytes((field << 3 | 2,))
        self._tensor_content = tensor_content
        self._capacity = capacity
        self._heads: dict[tuple[str, np.dtype[Any], tuple[int, ...]], bytes | _VarintHead] = {}

    def append(self, chunks: list[Chunk], name: str, array: Array) -> None:
        """Add the entry of one tensor to ``chunks``. ``ValueError`` if the array is no tensor."""
        head = self._heads.get((name, array.dtype, array.shape))
        if isinstance(head, bytes):
            chunks.append(head)
            chunks.append(array.tobytes() if array.nbytes < _COPY_BELOW else _view(array))
        elif head is not None:
            data = pack_varints(_integers(array))
            chunks.append(head.before(len(data)))
            chunks.append(data)
        else:
            self._append_new(chunks, name, array)

    def _append_new(self, chunks: list[Chunk], name: str, array: Array) -> None:
        dtype, array = _checked(array)
        intro = _intro(dtype, array.shape)
        if dtype is tensors.STRING or not array.size:
            data = _data(dtype, array, tensor_content=self._tensor_content)
            chunks += (_entry_head(self._tag, name, intro, len(data)), data)
            return
        if len(self._heads) >= self._capacity:
            self._heads.clear()
        key = (name, array.dtype, array.shape)
        if self._tensor_content or dtype.name in _RAW:
            tag = _CONTENT_TAG if self._tensor_content else _TAGS[dtype.name]
            self._heads[key] = _entry_head(self._tag, name, intro + tag + varint(array.nbytes), array.nbytes)
        else:
            self._heads[key] = _VarintHead(self._tag, name, intro + _TAGS.get(dtype.name, _INT_TAG))
        self.append(chunks, name, array)


class _VarintHead:
    """What precedes a tensor of integers: it depends on how many bytes they take together."""

    __slots__ = ("_by_size", "_intro", "_name", "_tag")

    def __init__(self, tag: bytes, name: str, intro: bytes) -> None:
        self._tag = tag
        self._name = name
        self._intro = intro
        self._by_size: dict[int, bytes] = {}

    def before(self, size: int) -> bytes:
        head = self._by_size.get(size)
        if head is None:
            head = _entry_head(self._tag, self._name, self._intro + varint(size), size)
            if len(self._by_size) >= _MAX_SIZES:
                self._by_size.clear()
            self._by_size[size] = head
        return head


def _entry_head(tag: bytes, name: str, intro: bytes, data_size: int) -> bytes:
    encoded = name.encode()
    entry = b"\x0a%b%b\x12%b%b" % (varint(len(encoded)), encoded, varint(len(intro) + data_size), intro)
    return b"%b%b%b" % (tag, varint(len(entry) + data_size), entry)


def tensor_message(array: Array, *, tensor_content: bool = False) -> bytes:
    """Return the serialized TensorProto of an array: every value in its typed field, or all of them as raw bytes.

    ``ValueError`` for an array that is no tensor (dates, records) or holds something else than bytes or text.
    """
    dtype, array = _checked(array)
    return _intro(dtype, array.shape) + _data(dtype, array, tensor_content=tensor_content)


def encode_tensor(array: Array, *, tensor_content: bool = False) -> Any:
    """Return ``tensor_message`` as a message object, for those who put it into another one."""
    return protos.tensorflow.TensorProto.FromString(tensor_message(array, tensor_content=tensor_content))


def _checked(array: Array) -> tuple[DType, Array]:
    try:
        dtype = dtype_of(array)
        if dtype is tensors.STRING:
            return dtype, tensors.as_tensor(array)
    except TypeError as failure:
        raise ValueError(str(failure)) from None
    return dtype, array if array.dtype == dtype.numpy else array.astype(dtype.numpy)


def _intro(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """Return the fields dtype and tensor_shape; a scalar's shape is there and empty."""
    dims = b"".join(
        [b"\x12%b\x08%b" % (varint(1 + len(varint(size))), varint(size)) if size else b"\x12\x00" for size in shape]
    )
    return b"\x08%b\x12%b%b" % (varint(NUMBERS[dtype.name]), varint(len(dims)), dims)


def _data(dtype: DType, array: Array, *, tensor_content: bool) -> bytes:
    if not array.size:
        return b""
    if dtype is tensors.STRING:
        strings: list[bytes] = array.reshape(-1).tolist()
        if not tensor_content:
            return b"".join([b"%b%b%b" % (_STRING_TAG, varint(len(item)), item) for item in strings])
        data = b"".join([varint(len(item)) for item in strings] + strings)
        return _CONTENT_TAG + varint(len(data)) + data
    if tensor_content:
        tag, data = _CONTENT_TAG, array.tobytes()
    elif dtype.name in _RAW:
        tag, data = _TAGS[dtype.name], array.tobytes()
    else:
        tag, data = _TAGS.get(dtype.name, _INT_TAG), pack_varints(_integers(array))
    return tag + varint(len(data)) + data


def _integers(array: Array) -> Array:
    """Return what goes into the typed field: integers as they are, the bit patterns of 16-bit floats."""
    if array.dtype.kind in "iub":
        return array
    if array.dtype.itemsize == 2:
        return np.ascontiguousarray(array).view(np.uint16)
    return array.astype(np.int8)


def _view(array: Array) -> memoryview:
    """Return the data of a large array in C order. It is copied once, when the chunks are joined."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
