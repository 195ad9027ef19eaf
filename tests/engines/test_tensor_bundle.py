"""The index of a checkpoint, against tables written here, byte by byte."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from servable.core.errors import Code, ServingError
from servable.engines.tensor_bundle import Entry, missing_part, read_index, unsnap
from servable.protos import tensorflow
from servable.protos.tfrecord import masked_crc32c


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return a block whose keys are written by what differs from the key before."""
    body, before = b"", b""
    for key, value in entries:
        shared = next((i for i in range(min(len(key), len(before))) if key[i] != before[i]), min(len(key), len(before)))
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return body + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def snapped(data: bytes) -> bytes:
    """Return snappy's raw format of some data, as literals."""
    pieces = [data[start : start + 60] for start in range(0, len(data), 60)]
    return varint(len(data)) + b"".join(bytes([len(piece) - 1 << 2]) + piece for piece in pieces)


class Table:
    def __init__(self, *, compressed: bool = False) -> None:
        self._compressed = compressed
        self._bytes = b""

    def add(self, content: bytes) -> bytes:
        stored = snapped(content) if self._compressed else content
        kind = b"\x01" if self._compressed else b"\x00"
        handle = varint(len(self._bytes)) + varint(len(stored))
        self._bytes += stored + kind + masked_crc32c(stored + kind).to_bytes(4, "little")
        return handle

    def finished(self, blocks: list[list[tuple[bytes, bytes]]]) -> bytes:
        index = [(entries[-1][0] + b"~", self.add(block(entries))) for entries in blocks]
        footer = self.add(block([])) + self.add(block(index))
        return self._bytes + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def header(shards: int, **fields: Any) -> tuple[bytes, bytes]:
    return b"", tensorflow.BundleHeaderProto(num_shards=shards, **fields).SerializeToString()


def entry(name: bytes, shard: int, offset: int, size: int) -> tuple[bytes, bytes]:
    return name, tensorflow.BundleEntryProto(shard_id=shard, offset=offset, size=size).SerializeToString()


BLOCKS = [
    [header(2), entry(b"layer/bias", 0, 0, 40), entry(b"layer/kernel", 0, 40, 400)],
    [entry(b"other", 1, 0, 7), entry(b"other_still", 1, 7, 0)],
]


def put(folder: Path, table: bytes, *lengths: int) -> Path:
    (folder / "variables.index").write_bytes(table)
    for shard, length in enumerate(lengths):
        (folder / f"variables.data-{shard:05d}-of-{len(lengths):05d}").write_bytes(bytes(length))
    return folder


@pytest.mark.parametrize("compressed", [False, True])
def test_entries_are_read_from_all_blocks(tmp_path: Path, *, compressed: bool) -> None:
    put(tmp_path, Table(compressed=compressed).finished(BLOCKS))
    bundle = read_index(tmp_path / "variables.index")
    assert bundle.num_shards == 2
    assert bundle.entries[b"layer/kernel"] == Entry(0, 40, 400, sliced=False)
    assert list(bundle.entries) == [b"layer/bias", b"layer/kernel", b"other", b"other_still"]
    assert bundle.shard_lengths() == [440, 7]


def test_slices_are_noticed(tmp_path: Path) -> None:
    sliced = tensorflow.BundleEntryProto(slices=[tensorflow.TensorSliceProto()]).SerializeToString()
    put(tmp_path, Table().finished([[header(1), (b"whole", sliced)]]))
    assert read_index(tmp_path / "variables.index").entries[b"whole"].sliced


@pytest.mark.parametrize("compressed", [False, True])
def test_an_index_cut_anywhere_is_data_loss(tmp_path: Path, *, compressed: bool) -> None:
    whole = Table(compressed=compressed).finished(BLOCKS)
    for length in range(len(whole)):
        put(tmp_path, whole[:length])
        with pytest.raises(ServingError) as failure:
            read_index(tmp_path / "variables.index")
        assert failure.value.code is Code.DATA_LOSS


def test_a_changed_bit_is_data_loss(tmp_path: Path) -> None:
    whole = Table().finished(BLOCKS)
    blocks_end = len(whole) - 48
    for position in random.Random(3).sample(range(blocks_end), 60):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        put(tmp_path, bytes(changed))
        try:
            assert read_index(tmp_path / "variables.index").shard_lengths() == [440, 7]  # the unused second index
        except ServingError as error:
            assert error.code is Code.DATA_LOSS  # noqa: PT017  # either may be


def test_big_endian_tensors_and_impossible_shards_are_refused(tmp_path: Path) -> None:
    put(tmp_path, Table().finished([[header(1, endianness=1)]]))
    with pytest.raises(ServingError, match="big endian"):
        read_index(tmp_path / "variables.index")
    put(tmp_path, Table().finished([[header(1), entry(b"x", 1, 0, 4)]]))
    with pytest.raises(ServingError, match="lies outside"):
        read_index(tmp_path / "variables.index")


def test_variables_are_whole_when_every_shard_is_long_enough(tmp_path: Path) -> None:
    assert missing_part(put(tmp_path, Table().finished(BLOCKS), 440, 7)) is None


@pytest.mark.parametrize("lengths", [(439, 7), (440, 6), (440,), ()])
def test_a_shard_that_is_short_or_not_there_is_named(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    put(tmp_path, Table().finished(BLOCKS))
    for shard, length in enumerate(lengths):
        (tmp_path / f"variables.data-{shard:05d}-of-00002").write_bytes(bytes(length))
    assert "variables.data-0000" in (missing_part(tmp_path) or "")


def test_an_index_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert missing_part(tmp_path) == f"there is no {tmp_path / 'variables.index'}"


@pytest.mark.parametrize(
    ("packed", "data"),
    [
        (b"\x05\x10hello", b"hello"),
        (b"\x0b\x04ab\x15\x02", b"ab" * 5 + b"a"),  # 9 bytes from 2 before: the copy overlaps itself
        (b"\x06\x08abc\x0a\x03\x00", b"abcabc"),
        (b"\x06\x08abc\x0b\x03\x00\x00\x00", b"abcabc"),
        (varint(100) + b"\xf0\x63" + bytes(range(100)), bytes(range(100))),
    ],
)
def test_snappy_literals_and_copies(packed: bytes, data: bytes) -> None:
    assert unsnap(packed) == data


@pytest.mark.parametrize("packed", [b"\x05\x10hell", b"\x06\x10hello", b"\x04\x01\x09", b"\x08\x04ab\x0a\x03\x00"])
def test_snappy_that_lies_is_refused(packed: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        unsnap(packed)
