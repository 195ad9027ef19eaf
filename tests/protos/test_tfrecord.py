from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servable.protos.tfrecord import OVERHEAD, DamagedRecordsError, frame_record, masked_crc32c, read_records

HELLO = bytes.fromhex("0500000000000000eab2043e68656c6c6fbb1f1c19")


def test_the_masked_checksum_is_that_of_tensorflow() -> None:
    assert masked_crc32c((5).to_bytes(8, "little")) == int.from_bytes(bytes.fromhex("eab2043e"), "little")
    assert masked_crc32c(b"hello") == int.from_bytes(bytes.fromhex("bb1f1c19"), "little")


def test_a_record_is_framed_as_everybody_does() -> None:
    assert frame_record(b"hello") == HELLO
    assert len(HELLO) == OVERHEAD + 5


@settings(deadline=None)
@given(records=st.lists(st.binary(max_size=300), max_size=8))
def test_records_come_back(tmp_path_factory: pytest.TempPathFactory, records: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("records") / "file"
    path.write_bytes(b"".join(map(frame_record, records)))
    assert list(read_records(path)) == records


@pytest.mark.parametrize("position", range(len(HELLO)))
def test_any_byte_that_changed_is_noticed(tmp_path: Path, position: int) -> None:
    damaged = bytearray(HELLO)
    damaged[position] ^= 1
    path = tmp_path / "file"
    path.write_bytes(frame_record(b"first") + damaged)
    found = read_records(path)
    assert next(found) == b"first"
    with pytest.raises(DamagedRecordsError, match=f"record at {OVERHEAD + 5}"):
        next(found)


@pytest.mark.parametrize("length", range(1, len(HELLO)))
def test_a_file_that_ends_early_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(HELLO[:length])
    with pytest.raises(DamagedRecordsError, match="truncated record at 0"):
        list(read_records(path))


def test_a_length_beyond_the_file_costs_no_memory(tmp_path: Path) -> None:
    length = (1 << 40).to_bytes(8, "little")
    path = tmp_path / "file"
    path.write_bytes(length + masked_crc32c(length).to_bytes(4, "little") + b"x")
    with pytest.raises(DamagedRecordsError, match="truncated"):
        list(read_records(path))


@pytest.mark.tensorflow
def test_tensorflow_reads_and_writes_the_same(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    records = [b"", b"one", bytes(range(256)) * 40]
    theirs = tmp_path / "theirs"
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in records:
            writer.write(record)
    assert list(read_records(theirs)) == records
    ours = tmp_path / "ours"
    ours.write_bytes(b"".join(map(frame_record, records)))
    assert ours.read_bytes() == theirs.read_bytes()
    assert [item.numpy() for item in tf.data.TFRecordDataset(str(ours))] == records
