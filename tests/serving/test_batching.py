from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servable.core.errors import ServingError
from servable.serving.batching import ContinuousBatcher


@dataclass(eq=False)
class Item:
    key: str | None
    rows: int
    abandoned: bool = False
    added: float = field(default=0.0)

    def cut(self, sizes: list[int]) -> list[Item]:
        raise AssertionError("continuous batching cuts nothing")


ITEMS = st.lists(
    st.builds(
        Item,
        key=st.sampled_from(["a", "b", None]),
        rows=st.integers(1, 9),
        abandoned=st.sampled_from([False, False, False, True]),
    ),
    max_size=40,
)


@given(items=ITEMS, takes=st.lists(st.booleans(), max_size=80), max_rows=st.integers(1, 12))
def test_every_item_comes_out_once_and_in_order(items: list[Item], takes: list[bool], max_rows: int) -> None:
    batcher: ContinuousBatcher[Item] = ContinuousBatcher(max_rows=max_rows, max_queued=1000)
    waiting = list(items)
    batches = []
    clock = 0.0
    for take in [*takes, *[False] * len(items), *[True] * (len(items) + 1)]:
        if take:
            batch = batcher.take(clock)
            if batch is not None:
                batches.append(batch)
        elif waiting:
            clock += 1
            batcher.add(waiting.pop(0), clock)
    assert batcher.take(clock) is None
    assert len(batcher) == 0
    out = [item for batch in batches for item in (*batch.items, *batch.dropped)]
    assert sorted(map(id, out)) == sorted(map(id, items))
    for batch in batches:
        assert all(item.abandoned for item in batch.dropped)
        assert not any(item.abandoned for item in batch.items)
        assert batch.rows == sum(item.rows for item in batch.items)
        assert batch.rows <= max_rows or len(batch.items) == 1
        assert len({item.key for item in batch.items}) <= 1
        if batch.items and batch.items[0].key is None:
            assert len(batch.items) == 1
    for key in ("a", "b", None):
        run = [item.added for batch in batches for item in batch.items if item.key == key]
        assert run == sorted(run)


def test_the_key_that_waits_longest_runs_first() -> None:
    batcher: ContinuousBatcher[Item] = ContinuousBatcher(max_rows=8, max_queued=10)
    first, second, third = Item("a", 1), Item("b", 1), Item("a", 1)
    for now, item in enumerate((second, first, third)):
        batcher.add(item, float(now))
    batch = batcher.take(0.0)
    assert batch is not None
    assert batch.items == [second]
    batch = batcher.take(0.0)
    assert batch is not None
    assert batch.items == [first, third]


def test_a_full_queue_refuses_and_leaves_the_rest_alone() -> None:
    batcher: ContinuousBatcher[Item] = ContinuousBatcher(max_rows=8, max_queued=2)
    batcher.add(Item("a", 1), 0.0)
    batcher.add(Item(None, 1), 0.0)
    with pytest.raises(ServingError, match="full: 2 requests wait"):
        batcher.add(Item("b", 1), 0.0)
    assert len(batcher) == 2
    assert batcher.take(0.0) is not None
    batcher.add(Item("b", 1), 0.0)


def test_a_request_larger_than_a_batch_runs_alone() -> None:
    batcher: ContinuousBatcher[Item] = ContinuousBatcher(max_rows=4, max_queued=10)
    for rows in (2, 100, 1):
        batcher.add(Item("a", rows), 0.0)
    taken = []
    while (batch := batcher.take(0.0)) is not None:
        taken.append(batch.rows)
    assert taken == [2, 100, 1]


def test_keys_leave_nothing_behind() -> None:
    batcher: ContinuousBatcher[Item] = ContinuousBatcher(max_rows=4, max_queued=10)
    for number in range(1000):
        batcher.add(Item(f"shape {number}", 1), float(number))
        batcher.take(0.0)
    assert not batcher._queues
