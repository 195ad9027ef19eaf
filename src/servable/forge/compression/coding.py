"""How small weights could be stored: gzip of a file, and Huffman's code over the values that repeat. Pure."""

from __future__ import annotations

import gzip
import heapq
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from servable.core.tensors import Array


def gzipped_bytes(path: Path) -> int:
    """Return the size of a file, or of all files of a folder each, after gzip at its default level."""
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    return sum(len(gzip.compress(file.read_bytes(), 6, mtime=0)) for file in files)


def huffman_bytes(arrays: Iterable[Array]) -> int:
    """Return what the arrays take if each is coded for itself, its table of codes included; never more than raw."""
    return sum(min(array.nbytes, (_bits(array) + 7) // 8) for array in arrays)


def code_lengths(counts: Array) -> Array:
    """Return the length in bits of each symbol's code by Huffman; a lone symbol takes one bit."""
    if counts.size <= 1:
        return np.ones(counts.size, np.int64)
    heap = [(int(count), index) for index, count in enumerate(counts)]
    heapq.heapify(heap)
    above = np.zeros(2 * counts.size - 1, np.int64)
    for joint in range(counts.size, len(above)):
        less, first = heapq.heappop(heap)
        more, second = heapq.heappop(heap)
        above[[first, second]] = joint
        heapq.heappush(heap, (less + more, joint))
    lengths = np.zeros(len(above), np.int64)
    for joint in range(len(above) - 2, -1, -1):
        lengths[joint] = lengths[above[joint]] + 1
    return lengths[: counts.size]


def _bits(array: Array) -> int:
    """Count the bits of one array. A value that occurs once is written out, behind a code that says so."""
    width = 8 * array.dtype.itemsize
    # As integers: two zeros, and every NaN, are what they are.
    _, counts = np.unique(array.reshape(-1).view(f"u{array.dtype.itemsize}"), return_counts=True)
    repeated, single = counts[counts > 1], int(np.count_nonzero(counts == 1))
    symbols = np.append(repeated, single) if single else repeated
    lengths = code_lengths(symbols)
    table = repeated.size * (width + 8)
    return int((symbols * lengths).sum()) + single * width + table
