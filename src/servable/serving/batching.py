"""The pure decision which queued requests run together, and when. It owns no clock, no thread and no model.

Guarantees of every batcher:

1. Every item that was added comes out of ``take`` exactly once, in a batch or among its ``dropped``; an item that was
   cut comes out as parts that together are the item.
2. Only items with equal keys share a batch; an item with key ``None`` is always alone.
3. A batch has at most ``max_rows`` rows, unless it is a single item that is larger by itself.
4. Items of one key come out in the order in which they were added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, Protocol, TypeVar

from servable.core.errors import unavailable


class Waiting(Protocol):
    """What a batcher must know of an item."""

    added: float
    """When it was added, in seconds of the caller's clock. Set by ``add``."""

    @property
    def key(self) -> Hashable | None:
        """What it must share with others to run beside them; ``None``: it runs alone."""

    @property
    def rows(self) -> int:
        """How many rows it adds to a batch."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""

    def cut(self, sizes: list[int]) -> list[Any]:
        """Return items of so many rows each, in order, which together are this one."""


Item = TypeVar("Item", bound=Waiting)


class Batch(Generic[Item]):
    """Items that run together, and items that left the queue without being run."""

    __slots__ = ("dropped", "items", "rows")

    def __init__(self, items: list[Item], rows: int, dropped: list[Item]) -> None:
        self.items = items
        self.rows = rows
        self.dropped = dropped

    def __repr__(self) -> str:
        """Return the sizes."""
        return f"<Batch {len(self.items)} items, {self.rows} rows, {len(self.dropped)} dropped>"


class Batcher(ABC, Generic[Item]):
    """A bounded queue that decides which of its items run next."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of queued items."""

    @abstractmethod
    def add(self, item: Item, now: float) -> None:
        """Queue an item. UNAVAILABLE if the queue is full, INVALID_ARGUMENT if the item can never be run."""

    @abstractmethod
    def take(self, now: float, running: int = 0) -> Batch[Item] | None:
        """Return what to run now, or ``None`` if nothing is due. A batch may hold dropped items only.

        ``running`` is the number of batches that are being computed.
        """

    @abstractmethod
    def next_deadline(self) -> float | None:
        """Return when ``take`` may have something at the latest, ``None`` if nothing waits for a time."""


class ContinuousBatcher(Batcher[Item]):
    """Whatever is queued when the engine is free runs next, without a timer; the key that waits longest comes first."""

    def __init__(self, max_rows: int, max_queued: int, owner: str = "the model") -> None:
        self.max_rows = max_rows
        self.max_queued = max_queued
        self._owner = owner
        self._queues: dict[Hashable, deque[Item]] = {}
        self._length = 0

    def __len__(self) -> int:
        """Return the number of queued items."""
        return self._length

    def add(self, item: Item, now: float) -> None:
        """Queue an item; UNAVAILABLE if the queue is full."""
        if self._length >= self.max_queued:
            raise unavailable(f"the queue of {self._owner} is full: {self._length} requests wait")
        item.added = now
        queue = self._queues.get(item.key)
        if queue is None:
            queue = self._queues[item.key] = deque()
        queue.append(item)
        self._length += 1

    def take(self, now: float, running: int = 0) -> Batch[Item] | None:
        """Return what to run next, or ``None`` if nothing is queued."""
        if not self._length:
            return None
        queues = self._queues
        if len(queues) == 1:
            key, queue = next(iter(queues.items()))
        else:
            key, queue = min(queues.items(), key=lambda entry: entry[1][0].added)
        room = self.max_rows
        items: list[Item] = []
        dropped: list[Item] = []
        rows = 0
        while queue:
            item = queue[0]
            if item.abandoned:
                dropped.append(queue.popleft())
                continue
            if items and (key is None or rows + item.rows > room):
                break
            items.append(queue.popleft())
            rows += item.rows
        if not queue:
            # Keys come from clients (shapes): an empty queue must not stay behind.
            del queues[key]
        self._length -= len(items) + len(dropped)
        return Batch(items, rows, dropped)

    def next_deadline(self) -> float | None:
        """Return ``None``: no item waits for a time."""
        return None
