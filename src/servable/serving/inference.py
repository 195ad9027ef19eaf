"""The one request path: resolve -> validate -> queue -> run -> reply. Every listener ends here.

Guarantees:

1. ``reply`` is called exactly once for each submitted request, on the loop; at the deadline if nothing came before.
   So is ``Consumer.end`` for each that is answered in parts.
2. A request holds its version from ``submit`` until its work has really ended: unloading waits for that.
3. What one request sends never fails another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Protocol

from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef, Reply
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.engines.plan import cpu_threads
from servable.lifecycle.manager import LoadedVersion, Manager
from servable.lifecycle.warmup import SignatureProfile
from servable.serving.batching import Batcher, ContinuousBatcher
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.calls import Calls
from servable.serving.canary import CanaryOptions
from servable.serving.execution import AS_IT_IS, Outcome, run_batch
from servable.serving.pending import Pending, Work
from servable.serving.plans import BatchingOptions, SignaturePlan, padding_of, plan_signature, schedule_of
from servable.serving.routing import Router
from servable.serving.runner import ModelRunner
from servable.serving.scheduling import ScheduledBatcher
from servable.serving.slots import Slots
from servable.serving.streaming import Consumer, Joining, PartOutcome, Pulling, Stream, Whole
from servable.serving.validation import chosen_outputs, complete_inputs, missing_signature

log = logging.getLogger("servable.serving")

DEADLINE_SWEEP_S = 0.02
DEADLINE_MESSAGE = "Deadline exceeded"


class Observer(Protocol):
    """Who watches the path. Called on the loop; must be cheap."""

    def batch(
        self, ref: ModelRef, signature: str, items: int, rows: int, computed: int, began: float, seconds: float
    ) -> None:
        """A batch was computed, filled up with padding to so many rows."""

    def queued(self, ref: ModelRef, signature: str, rows: int, tensors: int, seconds: float) -> None:
        """A request with so many inputs of so many rows left the queue after so long."""

    def tried(self, model: str, version: int, outcome: str) -> None:
        """See ``TrialObserver``."""

    def trial(self, model: str, version: int, *, ended: bool) -> None:
        """See ``TrialObserver``."""


class RequestLog(Protocol):
    """Who writes down some of a model's requests. Called on the loop; must be cheap."""

    def picks(self) -> bool:
        """Return whether the next request is one of them."""

    def take(self, request: InferRequest, response: InferResponse) -> None:
        """Take a picked request that was answered."""


class Executor:
    """What ``Manager`` keeps for the request path beside a loaded version.

    ``parameters`` are TensorFlow Serving's for this version; ``None``: its requests are batched by ``BatchingOptions``.
    """

    __slots__ = ("parameters", "plans", "runner")

    def __init__(
        self, plans: Mapping[str, SignaturePlan], runner: ModelRunner, parameters: BatchingParameters | None = None
    ) -> None:
        self.plans = plans
        self.runner = runner
        self.parameters = parameters


class Inference:
    """Submits requests to loaded versions. Lives on one event loop."""

    def __init__(
        self, manager: Manager, options: BatchingOptions, observer: Observer, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._manager = manager
        self._options = options
        self._observer = observer
        self._loop = loop
        threads = None if options.parameters is None else options.parameters.num_batch_threads
        self._slots = Slots(threads or cpu_threads(), loop)
        self._logs: Mapping[str, RequestLog] = {}
        self._router = Router(manager.available, self._start, observer, loop)
        self._limited: dict[Pending, None] = {}
        self._sweeping = False

    def log_to(self, logs: Mapping[str, RequestLog]) -> None:
        """Have requests of these models, and of no others, written down from now on."""
        self._logs = logs

    def try_out(self, wanted: Mapping[str, CanaryOptions]) -> None:
        """Try new versions of these models, and of no others, on some of their requests from now on."""
        self._router.follow(wanted)

    def resolve(self, ref: ModelRef) -> ModelRef:
        """Return which version a request is for, if it names none and a lot decides; for wires that must know before.

        ``submit`` does the same with what still names none.
        """
        return self._router.resolve(ref) if self._router.canaries else ref

    # -- the life of a version ------------------------------------------------------------------------------------

    def prepare(
        self,
        loaded: LoadedVersion,
        profiles: Mapping[str, SignatureProfile],
        parameters: BatchingParameters | None = None,
    ) -> Executor:
        """Return the executor of a version that is about to become available. May be called in any thread.

        ``parameters`` are TensorFlow Serving's for this version, if it is batched by them.
        """
        options, local = self._options, not loaded.choice.isolated
        plans = {
            name: plan_signature(signature, profiles[name], options, parameters, local=local)
            for name, signature in loaded.model.signatures.items()
        }
        ref, observer = loaded.ref, self._observer
        runner = ModelRunner(
            loaded.model,
            self._loop,
            self._batcher(loaded, parameters),
            self._finish,
            partial(observer.batch, ref),
            f"{loaded.name}/{loaded.version}",
            padding=AS_IT_IS if parameters is None else padding_of(parameters),
            # A model that calls others must not hold a slot that they wait for.
            slots=None if parameters is None or loaded.model.uses else self._slots,
            calls=self._calls_of if loaded.model.uses else None,
        )
        return Executor(plans, runner, parameters)

    def _batcher(self, loaded: LoadedVersion, parameters: BatchingParameters | None) -> Batcher[Work]:
        options = self._options
        if parameters is not None:
            return ScheduledBatcher(schedule_of(parameters, options.max_queued))
        owner = f"model {loaded.name} version {loaded.version}"
        return ContinuousBatcher(options.max_rows, options.max_queued, owner)

    def calls_for(self, loaded: LoadedVersion) -> Calls:
        """Return what a model calls others by while nobody's request is computed: in its warm-up."""
        return Calls(self.submit, self._loop, (loaded.name,))

    def _calls_of(self, items: Sequence[Pending]) -> Calls:
        return Calls.of(items, self.submit, self._loop)

    def rehearse(self, loaded: LoadedVersion, executor: Executor, request: InferRequest) -> None:
        """Compute a request in this thread as it would be if it came now; ``ServingError`` if it fails.

        For a version that is not available yet.
        """
        model = loaded.model.calling(self.calls_for(loaded))
        item = self._item(request, loaded, executor, _nobody, None)
        if isinstance(item, Stream):
            for _part in model.stream(item.signature, item.inputs, item.outputs):
                pass
            return
        batcher = self._batcher(loaded, executor.parameters)
        batcher.add(item, 0.0)
        while (batch := batcher.take(inf)) is not None:
            for outcome in run_batch(model, batch.items, executor.runner.padding_of(batch.items)):
                if isinstance(outcome, ServingError):
                    raise outcome

    @staticmethod
    def retire(loaded: LoadedVersion) -> None:
        """Stop the threads of a version that no request holds any more."""
        executor: Executor | None = loaded.executor
        if executor is not None:
            executor.runner.close()

    # -- requests -------------------------------------------------------------------------------------------------

    def signature(self, ref: ModelRef, name: str) -> Signature:
        """Return the signature that a request would meet now, for wires that decode by it."""
        loaded = self._manager.acquire(ref)
        try:
            executor: Executor = loaded.executor
            plan = executor.plans.get(name or DEFAULT_SIGNATURE)
        finally:
            self._manager.release(loaded)
        if plan is None:
            raise missing_signature(name or DEFAULT_SIGNATURE)
        return plan.signature

    def submit(self, request: InferRequest, reply: Reply) -> Pending | None:
        """Start a request. Returns what can be cancelled, or ``None`` if the reply was given already.

        An answer that is made in parts is given whole: joined along the first axis.
        """
        if self._logs:
            reply = self._logged(request, reply)
        if self._router.canaries:
            request = replace(request, model=self.resolve(request.model))
            reply = self._router.watched(request, reply)
        return self._start(request, reply)

    def _logged(self, request: InferRequest, reply: Reply) -> Reply:
        """Return a reply that writes the answer down too, if this request is picked."""
        log = self._logs.get(request.model.name)
        if log is None or not log.picks():
            return reply

        def write_down(outcome: InferResponse | ServingError) -> None:
            if isinstance(outcome, InferResponse):
                log.take(request, outcome)
            reply(outcome)

        return write_down

    def submit_stream(self, request: InferRequest, consumer: Consumer) -> Pending | None:
        """Start a request whose answer is taken in parts. Returns what can be cancelled, as ``submit`` does.

        A ``Stream`` of it can be resumed too; an answer that is not made in parts comes as one, in no stream.
        """
        if self._router.canaries:
            request = replace(request, model=self.resolve(request.model))
            consumer = self._router.watched_stream(request, consumer)
        return self._start(request, Whole(consumer), consumer)

    def _start(self, request: InferRequest, reply: Reply, consumer: Consumer | None = None) -> Pending | None:
        now = time.monotonic()
        deadline = request.deadline
        if deadline is not None and deadline <= now:
            reply(ServingError(Code.DEADLINE_EXCEEDED, DEADLINE_MESSAGE))
            return None
        try:
            loaded = self._manager.acquire(request.model)
        except ServingError as error:
            reply(error)
            return None
        executor: Executor = loaded.executor
        try:
            item = self._item(request, loaded, executor, reply, consumer)
            executor.runner.submit(item, now)
        except ServingError as error:
            self._manager.release(loaded)
            reply(error)
            return None
        if deadline is not None:
            self._limited[item] = None
            if not self._sweeping:
                self._sweeping = True
                self._loop.call_later(DEADLINE_SWEEP_S, self._sweep)
        return item

    async def infer(self, request: InferRequest) -> InferResponse:
        """Submit and wait; the form for people's code. Cancelling it cancels the request."""
        future: asyncio.Future[InferResponse | ServingError] = self._loop.create_future()

        def settle(outcome: InferResponse | ServingError) -> None:
            if not future.done():
                future.set_result(outcome)

        item = self.submit(request, settle)
        try:
            outcome = await future
        except asyncio.CancelledError:
            if item is not None:
                item.cancel()
            raise
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    async def infer_stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """Submit and yield the answer's parts; the form for people's code. Closing it cancels the request."""
        consumer = Pulling()
        item = self.submit_stream(request, consumer)
        try:
            while (response := await consumer.take()) is not None:
                if isinstance(item, Stream):
                    item.resume()
                yield response
        finally:
            if item is not None:
                item.cancel()

    def _item(
        self,
        request: InferRequest,
        loaded: LoadedVersion,
        executor: Executor,
        reply: Reply,
        consumer: Consumer | None,
    ) -> Pending:
        name = request.signature or DEFAULT_SIGNATURE
        plan = executor.plans.get(name)
        if plan is None:
            raise missing_signature(name)
        inputs = complete_inputs(plan.signature, request.inputs)
        outputs = plan.outputs if not request.output_filter else chosen_outputs(plan.signature, request.output_filter)
        if plan.signature.streamed:
            taker = consumer or Joining(reply)
            stream = Stream(loaded, name, inputs, outputs, request.deadline, taker, executor.runner.step)
            if isinstance(taker, Joining):
                taker.stream = stream
            stream.callers = request.callers
            return stream
        item = Pending(loaded, name, inputs, outputs, reply, request.deadline)
        item.callers = request.callers
        if plan.merge:
            batch = plan.batch_of(inputs, outputs)
            if batch is not None:
                item.key, item.rows = batch
                item.inline_rows = plan.inline_rows
        return item

    def _finish(self, item: Pending, outcome: Outcome | PartOutcome, began: float, seconds: float) -> None:
        loaded = item.loaded
        if isinstance(item, Stream) and isinstance(outcome, dict):
            if not item.started:
                self._observer.queued(loaded.ref, item.signature, item.rows, len(item.inputs), began - item.added)
            item.took(InferResponse(loaded.ref, item.signature, outcome, began - item.added, seconds, began))
            return
        if item.deadline is not None:
            self._limited.pop(item, None)
        reply = item.reply
        if reply is not None:
            item.reply = None
            queue_s = began - item.added
            if isinstance(outcome, ServingError):
                _give(reply, outcome)
            elif outcome is None:
                _give(reply, InferResponse(loaded.ref, item.signature, {}))
            else:
                self._observer.queued(loaded.ref, item.signature, item.rows, len(item.inputs), queue_s)
                _give(reply, InferResponse(loaded.ref, item.signature, outcome, queue_s, seconds, began))
        self._manager.release(loaded)

    def _sweep(self) -> None:
        """Answer those whose deadline has passed, wherever they are. One coarse timer for all."""
        now = time.monotonic()
        late = [item for item in self._limited if item.deadline is not None and item.deadline <= now]
        for item in late:
            del self._limited[item]
            item.cancel()
            reply, item.reply = item.reply, None
            if reply is not None:
                _give(reply, ServingError(Code.DEADLINE_EXCEEDED, DEADLINE_MESSAGE))
        if self._limited:
            self._loop.call_later(DEADLINE_SWEEP_S, self._sweep)
        else:
            self._sweeping = False


def _give(reply: Reply, outcome: InferResponse | ServingError) -> None:
    """Reply. What goes wrong with one reply must not cost those that are due with it theirs."""
    try:
        reply(outcome)
    except Exception:
        log.exception("a reply could not be given")


def _nobody(_outcome: InferResponse | ServingError) -> None:
    """Take the reply to a request that nobody made."""
