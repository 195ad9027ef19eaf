"""Runs one loaded model: requests of a loop tick are queued, one flush decides, one wake-up starts the engine.

Batches that warm-up measured as short run on the loop itself; others on the model's own engine threads, which get a
batch by one put and answer by one ``call_soon_threadsafe``. While the engine works, requests queue and merge.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from servable.core.errors import Code, ServingError, unavailable
from servable.engines.base import Caller, Model
from servable.serving.batching import Batch, Batcher
from servable.serving.execution import AS_IT_IS, Outcome, Padding, run_batch
from servable.serving.pending import Part, Pending, Work
from servable.serving.slots import Slots
from servable.serving.streaming import PartOutcome, Stream

Finish = Callable[[Pending, Outcome | PartOutcome, float, float], None]
"""Called on the loop for each request: itself, its outcome, when its batch began, and how long it computed."""
BatchDone = Callable[[str, int, int, int, float, float], None]
"""Called on the loop for each batch: signature, items, their rows, rows computed (with padding), when it began, and
how many seconds it was computed."""

_ABANDONED = ServingError(Code.CANCELLED, "the client gave up while the request was queued")


class ModelRunner:
    """The queue and the engine threads of one loaded version. All methods are called on the event loop.

    ``slots`` bounds the batches of several runners together. ``calls`` gives a model that calls others its way to them,
    for each batch.
    """

    def __init__(
        self,
        model: Model,
        loop: asyncio.AbstractEventLoop,
        batcher: Batcher[Work],
        finish: Finish,
        batch_done: BatchDone,
        name: str,
        *,
        padding: Padding = AS_IT_IS,
        slots: Slots | None = None,
        calls: Callable[[list[Pending]], Caller] | None = None,
    ) -> None:
        self._model = model
        self._loop = loop
        self._batcher = batcher
        self._finish = finish
        self._batch_done = batch_done
        self._name = name
        self._padding = padding
        self._slots = slots or Slots(1, loop)
        self._most = self._slots.limit if model.concurrent else 1
        self._scheduled = False
        self._waits_for_slot = False
        self._timer: asyncio.TimerHandle | None = None
        self._running = 0
        self._calls = calls
        self._streams: deque[Stream] = deque()
        self._stream_is_next = True
        self._inbox: SimpleQueue[tuple[Model, list[Work]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def __repr__(self) -> str:
        """Return the state for people."""
        state = "closed" if self._closed else f"{self._running} running"
        return f"<ModelRunner {self._name} {state}, {len(self._batcher)} queued>"

    @property
    def running(self) -> int:
        """Return how many batches the engine threads have."""
        return self._running

    def submit(self, item: Pending, now: float) -> None:
        """Queue an item; UNAVAILABLE if the queue is full or the runner was closed."""
        if self._closed:
            raise unavailable(f"{self._name} is being unloaded")
        self._batcher.add(item, now)
        if not self._scheduled and self._running < self._most:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def step(self, stream: Stream) -> None:
        """Queue a stream that was accepted before for its next part. Streams and other requests take turns."""
        stream.added = time.monotonic()
        self._streams.append(stream)
        if not self._scheduled and self._running < self._most:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Run what is due: on the loop if it is short, else on the engine's threads."""
        self._scheduled = False
        if self._running >= self._most or not self._has_slot():
            return
        batch = self._take()
        if batch is None:
            self._slots.release()
            self._arm()
            return
        items = batch.items
        if batch.rows > items[0].inline_rows:
            self._start(items)
            self._feed()
            return
        self._slots.release()
        began = time.monotonic()
        outcomes = run_batch(self._model, items, self.padding_of(items))
        self._deliver(items, [*outcomes], began, time.monotonic() - began)
        if (len(self._batcher) or self._streams) and not self._scheduled:
            # Let the loop read and write between batches.
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _feed(self) -> None:
        """Start batches that are due while there are threads for them."""
        while self._running < self._most and self._has_slot():
            batch = self._take()
            if batch is None:
                self._slots.release()
                self._arm()
                return
            self._start(batch.items)

    def _has_slot(self) -> bool:
        """Take a slot, or see to it that ``_granted`` is called with one."""
        if self._waits_for_slot:
            return False
        if self._slots.take():
            return True
        self._waits_for_slot = True
        self._slots.wait(self._granted)
        return False

    def _granted(self) -> None:
        self._waits_for_slot = False
        batch = self._take() if self._running < self._most else None
        if batch is None:
            self._slots.release()
            self._arm()
            return
        self._start(batch.items)
        self._feed()

    def _take(self) -> Batch[Work] | None:
        """Return the next batch that has something to run; settle what nobody waits for."""
        if self._streams and (self._stream_is_next or not len(self._batcher)):
            self._stream_is_next = False
            return Batch([self._streams.popleft()], 1, [])
        self._stream_is_next = True
        while (batch := self._batcher.take(time.monotonic(), self._running)) is not None:
            for item in batch.dropped:
                self._settle(item, _ABANDONED, item.added, 0.0)
            if batch.items:
                return batch
        return Batch([self._streams.popleft()], 1, []) if self._streams else None

    def _arm(self) -> None:
        """Come back when the batch that fills is due."""
        due = self._batcher.next_deadline()
        if due is not None and self._timer is None:
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._come_back)

    def _come_back(self) -> None:
        self._timer = None
        if not self._scheduled:
            self._flush()

    def padding_of(self, items: Sequence[Work]) -> Padding:
        """Return how a batch of these is filled up."""
        return AS_IT_IS if items[0].key is None else self._padding

    def _start(self, items: list[Work]) -> None:
        self._running += 1
        if self._running > len(self._threads):
            name = f"engine {self._name}"
            self._threads.append(threading.Thread(target=self._compute, name=name, daemon=True))
            self._threads[-1].start()
        self._inbox.put((self._model_for(items), items))

    def _model_for(self, items: list[Work]) -> Model:
        if self._calls is None or (isinstance(items[0], Stream) and items[0].started):
            return self._model
        return self._model.calling(self._calls([item.request for item in items]))

    def _compute(self) -> None:
        """Work through the inbox, on an engine thread."""
        while (work := self._inbox.get()) is not None:
            model, items = work
            began = time.monotonic()
            outcomes: list[Outcome | PartOutcome]
            if isinstance(items[0], Stream):
                outcomes = [items[0].advance(model)]
            else:
                outcomes = [*run_batch(model, items, self.padding_of(items))]
            seconds = time.monotonic() - began
            try:
                self._loop.call_soon_threadsafe(self._computed, items, outcomes, began, seconds)
            except RuntimeError:
                return  # the loop is closed: nobody is left to answer

    def _computed(self, items: list[Work], outcomes: list[Outcome | PartOutcome], began: float, seconds: float) -> None:
        self._running -= 1
        self._slots.release()
        # The engine starts on the next batch before this one's replies are written.
        self._feed()
        self._deliver(items, outcomes, began, seconds)
        if self._closed and not self._running:
            self._end_threads()

    def _deliver(self, items: list[Work], outcomes: list[Outcome | PartOutcome], began: float, seconds: float) -> None:
        rows = 0
        for item, outcome in zip(items, outcomes, strict=True):
            rows += item.rows
            self._settle(item, outcome, began, seconds)
        computed = self.padding_of(items).rows(rows)
        self._batch_done(items[0].signature, len(items), rows, computed, began, seconds)

    def _settle(self, item: Work, outcome: Outcome | PartOutcome, began: float, seconds: float) -> None:
        if isinstance(item, Part):
            assert outcome is not None, "only streams end without an outcome"
            settled = item.settle(outcome, began, seconds)
            if settled is not None:
                self._finish(*settled)
            return
        self._finish(item, outcome, began, seconds)

    def close(self) -> None:
        """Stop the engine threads. Called when no request holds the version any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._running:
            self._end_threads()

    def _end_threads(self) -> None:
        for _ in self._threads:
            self._inbox.put(None)
        self._threads.clear()
