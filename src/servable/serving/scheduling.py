"""TensorFlow Serving's batching as a pure decision: batches fill, close, wait for a timeout, and are bounded in number.

One queue for each key. Its last batch is open: an item joins it if it fits, else it closes and a new one opens; with
``split`` an item is cut instead, so that every batch but the last is full. A closed batch is due at once, the open one
when it is full or its first item has waited ``timeout_s``. Queues take turns, a batch each.

Two differences, both to the good of the one who waits: an item that is alone with the model, as the one before it was,
does not wait for company; and an item with key ``None`` runs by itself instead of being refused.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic

from servable.core.errors import invalid_argument, unavailable
from servable.serving.batching import Batch, Batcher, Item


@dataclass(frozen=True, slots=True)
class Schedule:
    """``max_rows`` bounds a request, ``batch_rows`` a batch. ``max_batches`` bounds each queue, the open one counted.

    ``max_alone`` bounds the items that share with nobody.
    """

    max_rows: int = 1000
    batch_rows: int = 1000
    timeout_s: float = 0.0
    max_batches: int = 10
    split: bool = False
    max_alone: int = 4096


class _Forming(Generic[Item]):
    """A batch that may still grow."""

    __slots__ = ("items", "opened", "rows")

    def __init__(self, opened: float) -> None:
        self.items: list[Item] = []
        self.rows = 0
        self.opened = opened


class ScheduledBatcher(Batcher[Item]):
    """Batches as TensorFlow Serving's batching parameters say."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._queues: OrderedDict[Hashable, deque[_Forming[Item]]] = OrderedDict()
        self._length = 0
        self._in_company = True

    def __len__(self) -> int:
        """Return the number of queued items, parts counted."""
        return self._length

    def add(self, item: Item, now: float) -> None:
        """Queue an item, whole or cut; UNAVAILABLE if its queue is full, INVALID_ARGUMENT if it is too large."""
        item.added = now
        key, rows, schedule = item.key, item.rows, self.schedule
        if key is None:
            self._add_alone(item, now)
            return
        if rows > schedule.max_rows:
            raise invalid_argument(f"Task size {rows} is larger than maximum batch size {schedule.max_rows}")
        queue = self._queues.get(key)
        used = queue[-1].rows if queue else 0
        if used + rows <= schedule.batch_rows:
            self._put(key, item, now)
            return
        length = len(queue) if queue else 0
        if not schedule.split:
            if length >= schedule.max_batches:
                raise unavailable(
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{length} batches enqueued and max_enqueued_batches is {schedule.max_batches}"
                )
            self._put(key, item, now)
            return
        capacity = self._capacity(length, used)
        if rows > capacity:
            raise unavailable(
                "The batch scheduling queue to which this task was submitted is full; task size is "
                f"{rows} but scheduling capacity is only {capacity} (num_enqueued_batches={length}, "
                f"max_enqueued_batches={schedule.max_batches}, open_batch_size={used}, "
                f"max_execution_batch_size={schedule.batch_rows})"
            )
        for part in item.cut(self._sizes(rows, used)):
            part.added = now
            self._put(key, part, now)

    def _capacity(self, length: int, used: int) -> int:
        """Return how many rows a queue of so many batches takes, the last of which has ``used`` rows."""
        room = self.schedule.batch_rows - used if length else 0
        return max(0, self.schedule.max_batches - length) * self.schedule.batch_rows + room

    def _sizes(self, rows: int, used: int) -> list[int]:
        """Return the parts of a large item: the first fills the open batch."""
        limit = self.schedule.batch_rows
        sizes = [limit - used] if 0 < used < limit else []
        left = rows - sum(sizes)
        sizes += [limit] * (left // limit)
        return [*sizes, left % limit] if left % limit else sizes

    def _add_alone(self, item: Item, now: float) -> None:
        queue = self._queues.get(None)
        if queue is not None and len(queue) >= self.schedule.max_alone:
            raise unavailable(f"the queue of requests that cannot be batched is full: {len(queue)} wait")
        self._put(None, item, now)

    def _put(self, key: Hashable, item: Item, now: float) -> None:
        """Append to the open batch if the item fits, else to a new one."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        if not queue or key is None or queue[-1].rows + item.rows > self.schedule.batch_rows:
            queue.append(_Forming(now))
        batch = queue[-1]
        batch.items.append(item)
        batch.rows += item.rows
        self._length += 1

    def take(self, now: float, running: int = 0) -> Batch[Item] | None:
        """Return the next batch that is due; queues take turns."""
        for key, queue in self._queues.items():
            if self._due_at(key, queue, running) <= now:
                return self._pop(key, queue, running)
        return None

    def _due_at(self, key: Hashable, queue: deque[_Forming[Item]], running: int) -> float:
        first = queue[0]
        if len(queue) > 1 or key is None or first.rows >= self.schedule.batch_rows:
            return first.opened
        if self._length == 1 and not running and not self._in_company:
            return first.opened
        return first.opened + self.schedule.timeout_s

    def _pop(self, key: Hashable, queue: deque[_Forming[Item]], running: int) -> Batch[Item]:
        self._in_company = self._length > 1 or running > 0
        formed = queue.popleft()
        if queue:
            self._queues.move_to_end(key)
        else:
            # Keys come from clients (shapes): an empty queue must not stay behind.
            del self._queues[key]
        self._length -= len(formed.items)
        dropped = [item for item in formed.items if item.abandoned]
        if not dropped:
            return Batch(formed.items, formed.rows, dropped)
        items = [item for item in formed.items if not item.abandoned]
        return Batch(items, sum(item.rows for item in items), dropped)

    def next_deadline(self) -> float | None:
        """Return when the oldest open batch is due, whatever is running then; ``None`` if nothing is queued."""
        if not self._length:
            return None
        return min(self._due_at(key, queue, running=1) for key, queue in self._queues.items())
