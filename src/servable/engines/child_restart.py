"""Decisions about a child that ended: how long to wait before the next start, and which calls not to try again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from enum import Enum

from servable.core.tensors import Array

FIRST_DELAY_S = 0.1
LAST_DELAY_S = 10.0
HEALTHY_S = 60.0
KILLS_ALLOWED = 2
REMEMBERED = 4096


class Backoff:
    """Pauses between restarts: 0.1 s, doubling to 10 s; from the beginning again after a healthy minute."""

    def __init__(self) -> None:
        self._delay_s = FIRST_DELAY_S

    def delay_s(self, lived_s: float) -> float:
        """Return the pause after a process that lived so long."""
        if lived_s >= HEALTHY_S:
            self._delay_s = FIRST_DELAY_S
        delay_s = self._delay_s
        self._delay_s = min(2 * delay_s, LAST_DELAY_S)
        return delay_s


class Verdict(Enum):
    """What to do with a call."""

    RUN = 1
    APART = 2
    """Its rows may have come from different requests, and one of them is suspected: try them one by one."""
    REFUSE = 3


class Suspicion:
    """Remembers which rows were in calls that ended the process, and finds the guilty.

    Rows of several requests travel in one call, so a call that killed makes all its rows suspects. A later call with a
    suspect among several rows is sent back once (who merged the requests then tries each alone). A suspect that kills
    alone is guilty; one that survives is cleared. So is every call guilty that killed twice as a whole.
    """

    def __init__(self) -> None:
        self._suspects = _Memory()
        self._guilty = _Memory()
        self._kills = _Memory()
        self._apart = _Memory()

    @property
    def active(self) -> bool:
        """Whether anything is remembered, so that calls have to be looked at."""
        return bool(self._suspects) or bool(self._guilty)

    def judge(self, rows: frozenset[bytes]) -> Verdict:
        """Return what to do with a call of these rows."""
        if rows in self._guilty or any(row in self._guilty for row in rows):
            return Verdict.REFUSE
        if len(rows) > 1 and rows not in self._apart and any(row in self._suspects for row in rows):
            self._apart.count(rows)
            return Verdict.APART
        return Verdict.RUN

    def killed(self, rows: frozenset[bytes]) -> None:
        """Note that the process ended while it computed these."""
        kills = self._kills.count(rows)
        alone = next(iter(rows)) if len(rows) == 1 else None
        if kills >= KILLS_ALLOWED or (alone is not None and alone in self._suspects):
            self._guilty.count(rows if alone is None else alone)
        for row in rows:
            self._suspects.count(row)

    def survived(self, rows: frozenset[bytes]) -> None:
        """Note that the process computed these."""
        self._kills.forget(rows)
        for row in rows:
            self._suspects.forget(row)


class _Memory:
    """Counts of what was seen, the oldest forgotten."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Hashable, int] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, key: Hashable) -> int:
        count = self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)
        return count

    def forget(self, key: Hashable) -> None:
        self._counts.pop(key, None)


def rows_of(signature: str, inputs: Mapping[str, Array]) -> frozenset[bytes]:
    """Return digests of the rows of a call; of the whole of it where inputs do not share a first dimension."""
    arrays = [(name, inputs[name]) for name in sorted(inputs)]
    counts = {array.shape[0] if array.ndim else 0 for _, array in arrays}
    rows = counts.pop() if len(counts) == 1 else 0
    if not rows:
        return frozenset([_digest(signature, arrays)])
    return frozenset(
        _digest(signature, [(name, array[row : row + 1]) for name, array in arrays]) for row in range(rows)
    )


def _digest(signature: str, arrays: list[tuple[str, Array]]) -> bytes:
    digest = hashlib.blake2b(signature.encode(), digest_size=16)
    for name, array in arrays:
        digest.update(f"|{name}|{array.dtype}|{array.shape}|".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return digest.digest()
