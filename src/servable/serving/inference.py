"""The one request path: resolve -> validate -> queue -> run -> reply. Every listener ends here.

Guarantees:

1. ``reply`` is called exactly once for each submitted request, on the loop; at the deadline if nothing came before.
2. A request holds its version from ``submit`` until its work has really ended: unloading waits for that.
3. What one request sends never fails another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from servable.core.errors import Code, ServingError, unavailable
from servable.core.messages import InferRequest, InferResponse, ModelRef, Reply
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.lifecycle.manager import LoadedVersion, Manager
from servable.lifecycle.warmup import SignatureProfile
from servable.serving.batching import Batcher
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.execution import Outcome
from servable.serving.pending import Pending
from servable.serving.runner import ModelRunner
from servable.serving.validation import chosen_outputs, complete_inputs, missing_signature

log = logging.getLogger("servable.serving")

DEADLINE_SWEEP_S = 0.02
DEADLINE_MESSAGE = "Deadline exceeded"


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """``auto``: merge rows of signatures that warm-up proved row-wise; ``off``: never.

    A batch of at most ``inline_s`` measured seconds runs on the event loop. Queues are bounded, unbatched ones too.
    ``parameters`` are TensorFlow Serving's for all models, with ``--enable_batching``; else ``None``.
    """

    mode: str = "auto"
    max_rows: int = 32
    max_queued: int = 4096
    inline_s: float = 0.0003
    parameters: BatchingParameters | None = None


class Observer(Protocol):
    """Who watches the path. Called on the loop; must be cheap."""

    def batch(self, ref: ModelRef, items: int, rows: int, seconds: float) -> None:
        """A batch was computed."""

    def queued(self, ref: ModelRef, seconds: float) -> None:
        """A request left the queue after so long."""


@dataclass(frozen=True, slots=True)
class SignaturePlan:
    """How requests of one signature are run, decided once at load."""

    signature: Signature
    outputs: tuple[str, ...]
    merge: bool
    inline_rows: int
    reason: str


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
        self._limited: dict[Pending, None] = {}
        self._sweeping = False

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
        options = self._options
        plans = {
            name: plan_signature(signature, profiles[name], options, local=not loaded.choice.isolated)
            for name, signature in loaded.model.signatures.items()
        }
        ref, observer = loaded.ref, self._observer
        runner = ModelRunner(
            loaded.model,
            self._loop,
            Batcher(options.max_rows, options.max_queued),
            self._finish,
            lambda items, rows, seconds: observer.batch(ref, items, rows, seconds),
            f"{loaded.name}/{loaded.version}",
        )
        return Executor(plans, runner, parameters)

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
        """Start a request. Returns what can be cancelled, or ``None`` if the reply was given already."""
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
            item = self._item(request, loaded, executor, reply)
            if not executor.runner.submit(item, now):
                raise unavailable(
                    f"the queue of model {loaded.name} version {loaded.version} is full: "
                    f"{executor.runner.queued} requests wait"
                )
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

    def _item(self, request: InferRequest, loaded: LoadedVersion, executor: Executor, reply: Reply) -> Pending:
        name = request.signature or DEFAULT_SIGNATURE
        plan = executor.plans.get(name)
        if plan is None:
            raise missing_signature(name)
        inputs = complete_inputs(plan.signature, request.inputs)
        outputs = plan.outputs if not request.output_filter else chosen_outputs(plan.signature, request.output_filter)
        item = Pending(loaded, name, inputs, outputs, reply, request.deadline)
        if plan.merge:
            rows = -1
            shapes = []
            for array in inputs.values():
                shape = array.shape
                if not shape or (rows >= 0 and shape[0] != rows):
                    return item
                rows = shape[0]
                shapes.append(shape[1:])
            if rows > 0:
                item.rows = rows
                item.inline_rows = plan.inline_rows
                item.key = (name, outputs, *shapes)
        return item

    def _finish(self, item: Pending, outcome: Outcome, began: float, seconds: float) -> None:
        loaded = item.loaded
        if item.deadline is not None:
            self._limited.pop(item, None)
        reply = item.reply
        if reply is not None:
            item.reply = None
            queue_s = began - item.added
            if isinstance(outcome, ServingError):
                _give(reply, outcome)
            else:
                self._observer.queued(loaded.ref, queue_s)
                _give(reply, InferResponse(loaded.ref, item.signature, outcome, queue_s, seconds))
        self._manager.release(loaded)

    def _sweep(self) -> None:
        """Answer those whose deadline has passed, wherever they are. One coarse timer for all."""
        now = time.monotonic()
        late = [item for item in self._limited if item.deadline is not None and item.deadline <= now]
        for item in late:
            del self._limited[item]
            item.abandoned = True
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


def plan_signature(
    signature: Signature, profile: SignatureProfile, options: BatchingOptions, *, local: bool
) -> SignaturePlan:
    """Decide how requests of a signature run.

    Only a model in this process whose rows all have the measured shape may run on the loop: the measured time would
    say nothing of a longer row.
    """
    merge = options.mode == "auto" and profile.rowwise
    fixed = all(spec.shape is not None and None not in spec.shape[1:] for spec in signature.inputs.values())
    inline_rows = profile.rows_within(options.inline_s) if merge and local and fixed else 0
    return SignaturePlan(signature, tuple(signature.outputs), merge, inline_rows, profile.reason)
