"""Which version answers a request that names none, while a new one is on trial; and the trial's shadow requests."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef, Reply
from servable.core.tensors import Array, close
from servable.serving.canary import Canary, CanaryOptions, Outcome
from servable.serving.streaming import Consumer

log = logging.getLogger("servable.serving")

MOST_SHADOWS = 64
"""Shadow requests that may be in work; more are not made."""
SHADOW_TIMEOUT_S = 30.0
LARGE_BYTES = 65_536
"""Answers above this size are compared in a thread."""

Submit = Callable[[InferRequest, Reply], Any]


class TrialObserver(Protocol):
    """Who watches trials. Called on the loop; must be cheap."""

    def tried(self, model: str, version: int, outcome: str) -> None:
        """A request was answered by a version on trial, or an answer of its was compared."""

    def trial(self, model: str, version: int, *, ended: bool) -> None:
        """A version is on trial, or its trial has ended."""


class Router:
    """The trials of all models. Lives on one event loop."""

    def __init__(
        self, available: Callable[[str], Collection[int]], submit: Submit, observer: TrialObserver,
        loop: asyncio.AbstractEventLoop, draw: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        """``available`` returns the versions of a model that may be asked; ``draw`` a lot from 0 to 1."""
        self.canaries: dict[str, Canary] = {}
        self._available = available
        self._submit = submit
        self._observer = observer
        self._loop = loop
        self._draw = draw
        self._shadows = 0

    def follow(self, wanted: Mapping[str, CanaryOptions]) -> None:
        """Hold these trials and no others. Those whose options did not change go on as they stand."""
        before = self.canaries
        self.canaries = {
            name: before[name] if name in before and before[name].options == options else Canary(options)
            for name, options in wanted.items()
        }

    def resolve(self, ref: ModelRef) -> ModelRef:
        """Return the reference with the version that answers, if it names none and one is on trial."""
        canary = self.canaries.get(ref.name)
        if canary is None or ref.version is not None or ref.label is not None:
            return ref
        version = canary.choose(self._available(ref.name), self._draw())
        return ref if version is None else ModelRef(ref.name, version)

    def watched(self, request: InferRequest, reply: Reply) -> Reply:
        """Return a reply that counts the outcome for the trial, and may ask the shadow after it was given."""
        canary = self.canaries.get(request.model.name)
        if canary is None:
            return reply

        def judge(outcome: InferResponse | ServingError) -> None:
            reply(outcome)
            if isinstance(outcome, InferResponse):
                self._note(canary, request.model.name, outcome.model.version, Outcome.OK)
                if canary.options.shadow_percent:
                    self._ask_shadow(canary, request, outcome)
            elif outcome.code is not Code.CANCELLED:
                self._note(canary, request.model.name, request.model.version, Outcome.FAILED)

        return judge

    def watched_stream(self, request: InferRequest, consumer: Consumer) -> Consumer:
        """Return a consumer that counts how an answer in parts ended. Such answers are not compared with a shadow's."""
        canary = self.canaries.get(request.model.name)
        if canary is None:
            return consumer

        def ended(version: int | None, outcome: Outcome) -> None:
            self._note(canary, request.model.name, version, outcome)

        return _Watched(consumer, request.model.version, ended)

    def _note(self, canary: Canary, model: str, version: int | None, outcome: Outcome) -> None:
        both = canary.versions(self._available(model))
        if version is None or both is None:
            return
        if version == both[0]:
            self._observer.tried(model, version, outcome.value)
            self._observer.trial(model, version, ended=version in canary.ended)
        reason = canary.note(version, outcome, time.monotonic())
        if reason is not None:
            self._observer.trial(model, version, ended=True)
            log.warning("%s/%d is rolled back to version %d: %s", model, version, both[1], reason)

    # -- shadows --------------------------------------------------------------------------------------------------

    def _ask_shadow(self, canary: Canary, request: InferRequest, answer: InferResponse) -> None:
        name, version = request.model.name, answer.model.version
        if version is None:
            return
        shadow = canary.shadows(version, self._available(name), self._draw())
        if shadow is None:
            return
        if self._shadows >= MOST_SHADOWS:
            self._observer.tried(name, shadow, "not asked")
            return
        self._shadows += 1
        deadline = time.monotonic() + SHADOW_TIMEOUT_S
        asked = replace(request, model=ModelRef(name, shadow), deadline=deadline)

        def compare(outcome: InferResponse | ServingError) -> None:
            self._shadows -= 1
            if isinstance(outcome, ServingError):
                self._note(canary, name, shadow, Outcome.FAILED)
                return
            self._note(canary, name, shadow, Outcome.OK)
            self._compare(canary, answer, outcome)

        self._submit(asked, compare)

    def _compare(self, canary: Canary, answer: InferResponse, shadow: InferResponse) -> None:
        def settle(same: bool) -> None:
            self._note(canary, shadow.model.name, shadow.model.version, Outcome.SAME if same else Outcome.DIFFERENT)

        if sum(array.nbytes for array in answer.outputs.values()) <= LARGE_BYTES:
            settle(agree(answer.outputs, shadow.outputs, canary.options))
            return
        future = self._loop.run_in_executor(None, agree, answer.outputs, shadow.outputs, canary.options)
        future.add_done_callback(lambda done: None if done.cancelled() or done.exception() else settle(done.result()))


class _Watched:
    """Tells how an answer in parts ended, and of which version it was."""

    def __init__(self, consumer: Consumer, version: int | None, ended: Callable[[int | None, Outcome], None]) -> None:
        self._consumer = consumer
        self._version = version
        self._ended = ended

    def part(self, response: InferResponse) -> bool:
        """Hand a part on."""
        self._version = response.model.version
        return self._consumer.part(response)

    def end(self, error: ServingError | None) -> None:
        """Hand the end on, and tell of it."""
        self._consumer.end(error)
        if error is None or error.code is not Code.CANCELLED:
            self._ended(self._version, Outcome.OK if error is None else Outcome.FAILED)


def agree(answer: Mapping[str, Array], shadow: Mapping[str, Array], options: CanaryOptions) -> bool:
    """Return whether two answers are the same within the tolerance; strings and integers exactly."""
    if answer.keys() != shadow.keys():
        return False
    return all(
        array.dtype == shadow[name].dtype and close(shadow[name], array, options.rtol, options.atol)
        for name, array in answer.items()
    )
