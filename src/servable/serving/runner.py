"""Runs one loaded model: requests of a loop tick are queued, one flush decides, one wake-up starts the engine.

Batches that warm-up measured as short run on the loop itself; others on the model's own engine thread, which gets a
batch by one put and answers by one ``call_soon_threadsafe``. While the engine works, requests queue and merge.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from servable.core.errors import Code, ServingError
from servable.engines.base import Model
from servable.serving.batching import Batch, Batcher
from servable.serving.execution import Outcome, run_batch
from servable.serving.pending import Pending

Finish = Callable[[Pending, Outcome, float, float], None]
"""Called on the loop for each item: the item, its outcome, when its batch began, and how long it computed."""
BatchDone = Callable[[int, int, float], None]
"""Called on the loop for each batch: items, rows, seconds of computing."""

_ABANDONED = ServingError(Code.CANCELLED, "the client gave up while the request was queued")


class ModelRunner:
    """The queue and the engine thread of one loaded version. All methods are called on the event loop."""

    def __init__(
        self,
        model: Model,
        loop: asyncio.AbstractEventLoop,
        batcher: Batcher[Pending],
        finish: Finish,
        batch_done: BatchDone,
        name: str,
    ) -> None:
        self._model = model
        self._loop = loop
        self._batcher = batcher
        self._finish = finish
        self._batch_done = batch_done
        self._name = name
        self._scheduled = False
        self._computing = False
        self._inbox: SimpleQueue[list[Pending] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __repr__(self) -> str:
        """Return the state for people."""
        state = "closed" if self._closed else "computing" if self._computing else "idle"
        return f"<ModelRunner {self._name} {state}, {len(self._batcher)} queued>"

    @property
    def queued(self) -> int:
        """Return how many requests wait."""
        return len(self._batcher)

    def submit(self, item: Pending, now: float) -> bool:
        """Queue an item; false if the queue is full or the runner was closed."""
        if self._closed or not self._batcher.add(item, now):
            return False
        if not self._scheduled and not self._computing:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return True

    def _flush(self) -> None:
        self._scheduled = False
        if self._computing:
            return
        batch = self._take()
        if batch is None:
            return
        items = batch.items
        if batch.rows <= items[0].inline_rows:
            began = time.monotonic()
            outcomes = run_batch(self._model, items)
            self._deliver(items, outcomes, began, time.monotonic() - began)
            if len(self._batcher) and not self._scheduled:
                # Let the loop read and write between batches.
                self._scheduled = True
                self._loop.call_soon(self._flush)
            return
        self._start(items)

    def _take(self) -> Batch[Pending] | None:
        """Return the next batch that has something to run; settle what nobody waits for."""
        while (batch := self._batcher.take()) is not None:
            for item in batch.dropped:
                self._finish(item, _ABANDONED, item.added, 0.0)
            if batch.items:
                return batch
        return None

    def _start(self, items: list[Pending]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._compute, name=f"engine {self._name}", daemon=True)
            self._thread.start()
        self._computing = True
        self._inbox.put(items)

    def _compute(self) -> None:
        """Work through the inbox, on the engine thread."""
        while (items := self._inbox.get()) is not None:
            began = time.monotonic()
            outcomes = run_batch(self._model, items)
            seconds = time.monotonic() - began
            try:
                self._loop.call_soon_threadsafe(self._computed, items, outcomes, began, seconds)
            except RuntimeError:
                return  # the loop is closed: nobody is left to answer

    def _computed(self, items: list[Pending], outcomes: list[Outcome], began: float, seconds: float) -> None:
        self._computing = False
        following = self._take()
        if following is not None:
            # The engine starts on the next batch before this one's replies are written.
            self._start(following.items)
        self._deliver(items, outcomes, began, seconds)
        if self._closed and not self._computing:
            self._inbox.put(None)

    def _deliver(self, items: list[Pending], outcomes: list[Outcome], began: float, seconds: float) -> None:
        rows = 0
        for item, outcome in zip(items, outcomes, strict=True):
            rows += item.rows
            self._finish(item, outcome, began, seconds)
        self._batch_done(len(items), rows, seconds)

    def close(self) -> None:
        """Stop the engine thread. Called when no request holds the version any more."""
        self._closed = True
        if not self._computing:
            self._inbox.put(None)
