"""TFRecord files: records of any bytes, each with the checksums of its length and of itself.

A record is ``uint64 length, uint32 checksum of it, the bytes, uint32 checksum of them``, little-endian. There is no
header, so files may be joined.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

_LENGTH = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
OVERHEAD = _LENGTH.size + _CHECKSUM.size
"""Bytes that a record is longer than what it holds."""


class DamagedRecordsError(ValueError):
    """A file is no TFRecord file, or not all of one. Says where."""


def masked_crc32c(data: bytes) -> int:
    """Return the Castagnoli checksum in the masked form that TensorFlow stores."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame_record(data: bytes) -> bytes:
    """Return the record that holds ``data``."""
    length = len(data).to_bytes(8, "little")
    return b"".join([length, _CHECKSUM.pack(masked_crc32c(length)), data, _CHECKSUM.pack(masked_crc32c(data))])


def read_records(path: Path) -> Iterator[bytes]:
    """Yield what the records of a file hold. ``DamagedRecordsError`` at the first that is not whole; ``OSError``.

    A length is believed only as far as the file goes, so a damaged one costs no memory.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        begin = 0
        while head := file.read(_LENGTH.size):
            if len(head) < _LENGTH.size:
                raise DamagedRecordsError(f"truncated record at {begin}")
            length, checksum = _LENGTH.unpack(head)
            if masked_crc32c(head[:8]) != checksum:
                raise DamagedRecordsError(f"corrupted record at {begin}: the checksum of its length is wrong")
            if begin + length + OVERHEAD > size:
                raise DamagedRecordsError(f"truncated record at {begin}")
            data = file.read(length)
            if file.read(_CHECKSUM.size) != _CHECKSUM.pack(masked_crc32c(data)):
                raise DamagedRecordsError(f"corrupted record at {begin}: its checksum is wrong")
            yield data
            begin += length + OVERHEAD
