"""TensorFlow Serving's batching as a decision, against an oracle that knows only the rules and no data structure."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servable.core.errors import Code, ServingError
from servable.serving.batching import Batch
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.plans import schedule_of
from servable.serving.scheduling import Schedule, ScheduledBatcher

WAIT = 5.0


@dataclass(eq=False)
class Item:
    key: str | None
    rows: int
    abandoned: bool = False
    added: float = 0.0
    whole: Item | None = None

    def cut(self, sizes: list[int]) -> list[Item]:
        assert sum(sizes) == self.rows
        return [Item(self.key, size, self.abandoned, whole=self) for size in sizes]


class Oracle:
    """What must come out, found by going through all arrivals from the first for each question."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.batches: list[tuple[str | None, list[list[float]]]] = []
        """In order of opening: key, and [item number, rows, arrival] of each member."""

    def queue(self, key: str | None) -> list[list[list[float]]]:
        return [members for its_key, members in self.batches if its_key == key]

    def add(self, number: int, key: str | None, rows: int, now: float) -> bool:
        limit = self.schedule.batch_rows
        queue = self.queue(key)
        if key is None:
            self.batches.append((None, [[number, rows, now]]))
            return True
        if rows > self.schedule.max_rows:
            return False
        used = sum(int(member[1]) for member in queue[-1]) if queue else 0
        if queue and used + rows <= limit:
            queue[-1].append([number, rows, now])
            return True
        if not self.schedule.split:
            if len(queue) >= self.schedule.max_batches:
                return False
            self.batches.append((key, [[number, rows, now]]))
            return True
        free = (limit - used if queue else 0) + (self.schedule.max_batches - len(queue)) * limit
        if rows > free:
            return False
        for _ in range(rows):  # a row at a time: rows of one item in one batch are one member
            queue = self.queue(key)
            if not queue or sum(int(member[1]) for member in queue[-1]) == limit:
                self.batches.append((key, []))
                queue = self.queue(key)
            if queue[-1] and queue[-1][-1][0] == number:
                queue[-1][-1][1] += 1
            else:
                queue[-1].append([number, 1, now])
        return True

    def due(self, now: float) -> set[str | None]:
        found = set()
        for key in {key for key, _ in self.batches}:
            queue = self.queue(key)
            full = sum(int(member[1]) for member in queue[0]) >= self.schedule.batch_rows
            if len(queue) > 1 or key is None or full or now >= queue[0][0][2] + self.schedule.timeout_s:
                found.add(key)
        return found

    def take(self, key: str | None) -> list[list[float]]:
        index = next(index for index, (its_key, _) in enumerate(self.batches) if its_key == key)
        return self.batches.pop(index)[1]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["a", "b", None]), st.integers(1, 12)),
        st.tuples(st.just("take"), st.just(None), st.just(0)),
        st.tuples(st.just("wait"), st.just(None), st.integers(1, 4)),
    ),
    max_size=60,
)
SCHEDULES = st.builds(
    Schedule,
    max_rows=st.just(10),
    batch_rows=st.integers(1, 10),
    timeout_s=st.sampled_from([0.0, WAIT]),
    max_batches=st.integers(1, 4),
    split=st.just(True),
) | st.builds(
    Schedule,
    max_rows=st.just(8),
    batch_rows=st.just(8),
    timeout_s=st.sampled_from([0.0, WAIT]),
    max_batches=st.integers(1, 4),
)


@settings(max_examples=400, deadline=None)
@given(schedule=SCHEDULES, steps=STEPS)
def test_batches_are_those_that_the_rules_make(schedule: Schedule, steps: list[tuple[str, str | None, int]]) -> None:
    batcher: ScheduledBatcher[Item] = ScheduledBatcher(schedule)
    oracle = Oracle(schedule)
    numbers: dict[int, int] = {}
    items: list[Item] = []
    now = 0.0

    def members(batch: Batch[Item]) -> list[list[float]]:
        return [[numbers[id(item.whole or item)], item.rows, item.added] for item in batch.items]

    def take(running: int = 1) -> bool:
        batch = batcher.take(now, running)
        due = oracle.due(now)
        if batch is None:
            assert not due, "what is due must not wait"
            return False
        assert batch.items[0].key in due, "nothing runs before it is due"
        assert members(batch) == oracle.take(batch.items[0].key)
        assert batch.rows == sum(item.rows for item in batch.items)
        assert batch.rows <= schedule.batch_rows or batch.items[0].key is None
        return True

    for step, key, size in steps:
        if step == "add":
            item = Item(key, size)
            items.append(item)
            numbers[id(item)] = len(items)
            accepted = oracle.add(len(items), key, size, now)
            if accepted:
                batcher.add(item, now)
            else:
                with pytest.raises(ServingError) as raised:
                    batcher.add(item, now)
                wanted = Code.INVALID_ARGUMENT if size > schedule.max_rows else Code.UNAVAILABLE
                assert raised.value.code is wanted
        elif step == "take":
            take()
        else:
            now += size
        due_at = batcher.next_deadline()
        assert (due_at is None) == (not oracle.batches)
        if due_at is not None and due_at > now:
            assert not oracle.due(now)
            assert oracle.due(due_at)
    now += WAIT
    while take():
        pass
    assert not oracle.batches
    assert len(batcher) == 0
    assert not batcher._queues, "keys come from clients and must leave nothing behind"


@given(
    keys=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=30),
)
def test_what_nobody_waits_for_comes_out_as_dropped(keys: list[tuple[str, bool]]) -> None:
    batcher: ScheduledBatcher[Item] = ScheduledBatcher(Schedule(max_rows=3, batch_rows=3, max_batches=99))
    items = [Item(key, 1, abandoned) for key, abandoned in keys]
    for item in items:
        batcher.add(item, 0.0)
    ran, dropped = [], []
    while (batch := batcher.take(0.0)) is not None:
        assert batch.rows == len(batch.items)
        ran += batch.items
        dropped += batch.dropped
    assert sorted(map(id, ran)) == sorted(id(item) for item in items if not item.abandoned)
    assert sorted(map(id, dropped)) == sorted(id(item) for item in items if item.abandoned)


def test_keys_take_turns() -> None:
    batcher: ScheduledBatcher[Item] = ScheduledBatcher(Schedule(max_rows=1, batch_rows=1))
    for key in ("a", "a", "a", "b", "c"):
        batcher.add(Item(key, 1), 0.0)
    order = []
    while (batch := batcher.take(0.0, 1)) is not None:
        order.append(batch.items[0].key)
    assert order == ["a", "b", "c", "a", "a"]


def test_one_client_after_the_other_does_not_wait_for_company() -> None:
    batcher: ScheduledBatcher[Item] = ScheduledBatcher(Schedule(timeout_s=WAIT))
    batcher.add(Item("a", 1), 0.0)
    assert batcher.take(0.0) is None, "nothing is known of the load yet: the first request waits"
    assert batcher.take(WAIT) is not None
    batcher.add(Item("a", 1), 10.0)
    assert batcher.take(10.0) is not None, "it was alone before, it is alone now"
    batcher.add(Item("a", 1), 20.0)
    assert batcher.take(20.0, running=1) is None, "another one is being computed"
    batcher.add(Item("a", 1), 20.0)
    assert batcher.take(20.0) is None, "there are two"
    assert batcher.take(20.0 + WAIT) is not None
    batcher.add(Item("a", 1), 30.0)
    assert batcher.take(30.0) is None, "the last batch was not of one request: others will follow"


def test_words_that_clients_know() -> None:
    parameters = BatchingParameters(max_batch_size=2, max_enqueued_batches=1)
    batcher: ScheduledBatcher[Item] = ScheduledBatcher(schedule_of(parameters, 3))
    with pytest.raises(ServingError, match=r"Task size 5 is larger than maximum batch size 2$"):
        batcher.add(Item("a", 5), 0.0)
    batcher.add(Item("a", 2), 0.0)
    with pytest.raises(ServingError, match="currently 1 batches enqueued and max_enqueued_batches is 1"):
        batcher.add(Item("a", 1), 0.0)
    batcher.add(Item("b", 1), 0.0)  # another signature has its own queue
    for _ in range(3):
        batcher.add(Item(None, 1), 0.0)
    with pytest.raises(ServingError, match="cannot be batched is full"):
        batcher.add(Item(None, 1), 0.0)
    splitting = BatchingParameters(
        max_batch_size=10, max_execution_batch_size=4, max_enqueued_batches=2, enable_large_batch_splitting=True
    )
    batcher = ScheduledBatcher(schedule_of(splitting, 3))
    batcher.add(Item("a", 5), 0.0)
    with pytest.raises(
        ServingError, match=r"task size is 4 but scheduling capacity is only 3 \(num_enqueued_batches=2"
    ):
        batcher.add(Item("a", 4), 0.0)
