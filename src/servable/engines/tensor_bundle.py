"""The index of a checkpoint (``variables.index``): which tensors there are, and which bytes of which shard hold them.

The file is a sorted table of blocks; each block carries a checksum. Its first entry, key "", is the header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from servable.core.errors import Code, ServingError
from servable.protos import tensorflow
from servable.protos.tfrecord import masked_crc32c

_FOOTER_LENGTH = 48
_BLOCK_TRAILER_LENGTH = 5
_MAGIC = 0xDB4775248B80FB57
_NO_COMPRESSION, _SNAPPY = 0, 1


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor, or one slice of one, lies: bytes ``offset`` to ``offset + size`` of a shard."""

    shard: int
    offset: int
    size: int
    sliced: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checkpoint's index. Keys are bytes: those of slices are not text."""

    num_shards: int
    entries: dict[bytes, Entry]

    def shard_lengths(self) -> list[int]:
        """Return how many bytes of each shard are referred to: the least that its file must hold."""
        lengths = [0] * self.num_shards
        for entry in self.entries.values():
            lengths[entry.shard] = max(lengths[entry.shard], entry.offset + entry.size)
        return lengths


def read_index(path: Path) -> Bundle:
    """Read a whole index; DATA_LOSS says what is wrong with it, NOT_FOUND that it is not there."""
    try:
        table = path.read_bytes()
    except FileNotFoundError:
        raise ServingError(Code.NOT_FOUND, f"there is no {path}") from None
    except OSError as error:
        raise ServingError(Code.UNAVAILABLE, f"{path} cannot be read: {error.strerror}") from error
    try:
        return _bundle(dict(_table(table)))
    except (IndexError, ValueError, DecodeError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error


def missing_part(variables: Path) -> str | None:
    """Return what a ``variables`` folder still lacks by its own index: the index itself, a shard, or bytes of one."""
    index = variables / "variables.index"
    try:
        bundle = read_index(index)
    except ServingError as error:
        return error.message
    for shard, needed in enumerate(bundle.shard_lengths()):
        data = variables / f"variables.data-{shard:05d}-of-{bundle.num_shards:05d}"
        try:
            length = data.stat().st_size
        except OSError:
            return f"there is no {data}"
        if length < needed:
            return f"{data} has {length} of at least {needed} bytes"
    return None


def _bundle(table: dict[bytes, bytes]) -> Bundle:
    if b"" not in table:
        raise ValueError("it has no header entry")
    header = tensorflow.BundleHeaderProto.FromString(table.pop(b""))
    if header.endianness != 0:
        raise ValueError("its tensors are big endian, which is not supported")
    entries = {}
    for key, value in table.items():
        proto = tensorflow.BundleEntryProto.FromString(value)
        if not 0 <= proto.shard_id < header.num_shards or proto.offset < 0 or proto.size < 0:
            raise ValueError(f"the entry {key!r} lies outside of its {header.num_shards} shards")
        entries[key] = Entry(proto.shard_id, proto.offset, proto.size, bool(proto.slices))
    return Bundle(header.num_shards, entries)


def _table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(table) < _FOOTER_LENGTH:
        raise ValueError(f"it has {len(table)} bytes, fewer than a footer")
    footer = table[-_FOOTER_LENGTH:]
    if int.from_bytes(footer[40:], "little") != _MAGIC:
        raise ValueError("it does not end with a table's magic number")
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)
    offset, position = _varint(footer, position)
    size, _ = _varint(footer, position)
    for _, handle in _block_entries(_block(table, offset, size)):
        block_offset, position = _varint(handle, 0)
        block_size, _ = _varint(handle, position)
        yield from _block_entries(_block(table, block_offset, block_size))


def _block(table: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _BLOCK_TRAILER_LENGTH > len(table) - _FOOTER_LENGTH:
        raise ValueError(f"a block of {size} bytes at {offset} reaches beyond its end")
    stored = int.from_bytes(table[end + 1 : end + _BLOCK_TRAILER_LENGTH], "little")
    if masked_crc32c(table[offset : end + 1]) != stored:
        raise ValueError(f"the checksum of the block at {offset} does not agree")
    compression = table[end]
    if compression == _NO_COMPRESSION:
        return table[offset:end]
    if compression == _SNAPPY:
        return unsnap(table[offset:end])
    raise ValueError(f"the block at {offset} has the unknown compression {compression}")


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise ValueError(f"a block of {len(block)} bytes claims {restarts} restart points")
    key = b""
    position = 0
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        if position + length > end:
            raise ValueError("an entry reaches beyond its block")
        yield key, block[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def unsnap(data: bytes) -> bytes:
    """Undo snappy's raw format; ``ValueError`` or ``IndexError`` if that is not what it is."""
    length, position = _varint(data, 0)
    result = bytearray()
    while position < len(data):
        tag = data[position]
        kind = tag & 3
        position += 1
        if kind == 0:
            size, position = _literal_size(data, tag >> 2, position)
            result += data[position : position + size]
            position += size
            continue
        if kind == 1:
            size = 4 + (tag >> 2 & 7)
            distance = (tag >> 5) << 8 | data[position]
            position += 1
        else:
            width = 2 if kind == 2 else 4
            size = 1 + (tag >> 2)
            distance = int.from_bytes(data[position : position + width], "little")
            position += width
        _copy(result, distance, size)
    if len(result) != length:
        raise ValueError(f"a compressed block gives {len(result)} bytes and not {length}")
    return bytes(result)


def _literal_size(data: bytes, size: int, position: int) -> tuple[int, int]:
    if size < 60:
        return size + 1, position
    width = size - 59
    return int.from_bytes(data[position : position + width], "little") + 1, position + width


def _copy(result: bytearray, distance: int, size: int) -> None:
    if not 0 < distance <= len(result):
        raise ValueError("a copy from before the start of a compressed block")
    start = len(result) - distance
    while size > 0:  # the source may overlap what is being written: then it repeats
        piece = result[start : start + size]
        result += piece
        size -= len(piece)
