"""gRPC routes of methods that take tf.Examples: Classify, Regress and MultiInference."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from servable.core.errors import ServingError, internal
from servable.core.messages import InferResponse, ModelRef
from servable.listeners.examples import Examples
from servable.listeners.grpc import MeteredRoute
from servable.observe.metrics import Metrics
from servable.serving.joint import Answers
from servable.transport.exchange import Exchange, Route
from servable.wire import grpc as wire
from servable.wire import tfserving_grpc as tfserving

log = logging.getLogger("servable.listeners")

Encode = Callable[[Answers], bytes]


class ExampleService:
    """What the routes need of the server."""

    def __init__(self, examples: Examples, metrics: Metrics) -> None:
        self.examples = examples
        self.metrics = metrics

    def routes(self) -> dict[bytes, Callable[[wire.Call], Route]]:
        """Return the methods by their paths."""
        return {
            tfserving.CLASSIFY: partial(ClassifyRoute, self),
            tfserving.REGRESS: partial(RegressRoute, self),
            tfserving.MULTI_INFERENCE: partial(MultiInferenceRoute, self),
        }


class ExampleRoute(MeteredRoute):
    """What the three have in common: the reply."""

    __slots__ = ("service",)
    api: ClassVar[str] = "Classify"

    def __init__(self, service: ExampleService, call: wire.Call) -> None:
        super().__init__(call)
        self.service = service
        self.meter = service.metrics.meter("grpc", self.api)

    def deadline(self, exchange: Exchange) -> float | None:
        """Return when the client gives up."""
        return None if self.call.timeout_s is None else exchange.arrived + self.call.timeout_s

    def conclude(self, exchange: Exchange, asked: ModelRef, outcome: Answers | ServingError, encode: Encode) -> None:
        """Send what ``encode`` makes of the answers."""
        if isinstance(outcome, ServingError):
            self._refuse(exchange, asked, outcome)
            return
        try:
            message = encode(outcome)
        except ServingError as error:
            self._refuse(exchange, asked, error)
            return
        except Exception:
            log.exception("an answer over gRPC could not be written")
            self._refuse(exchange, asked, internal("the server failed; its log says why"))
            return
        if exchange.watched:
            exchange.note(outcome[0])
        self.send(exchange, message, self.trailers(outcome[0]))
        self.meter.answered(outcome[0], time.monotonic() - exchange.arrived)


class ClassifyRoute(ExampleRoute):
    """``PredictionService/Classify``."""

    __slots__ = ()
    method: ClassVar[tfserving.ExampleMethod] = tfserving.CLASSIFY_EXAMPLES

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Submit the request, if its signature is for this."""
        request = tfserving.decode_example_request(body, start)

        def reply(outcome: Answers | ServingError) -> None:
            self.conclude(exchange, request.model, outcome, lambda answers: self.encode(answers[0], len(request)))

        item = self.service.examples.submit(self.method, request, self.deadline(exchange), self.call.metadata, reply)
        exchange.on_cancel = item.cancel

    @staticmethod
    def encode(response: InferResponse, rows: int) -> bytes:
        """Return the reply's message."""
        return tfserving.encode_classification_response(response, rows)


class RegressRoute(ClassifyRoute):
    """``PredictionService/Regress``."""

    __slots__ = ()
    api = "Regress"
    method = tfserving.REGRESS_EXAMPLES

    @staticmethod
    def encode(response: InferResponse, rows: int) -> bytes:
        """Return the reply's message."""
        return tfserving.encode_regression_response(response, rows)


class MultiInferenceRoute(ExampleRoute):
    """``PredictionService/MultiInference``: every task meets the same version."""

    __slots__ = ()
    api = "MultiInference"

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Submit a request for every task."""
        request = tfserving.decode_multi_inference_request(body, start)

        def reply(tasks: tuple[tfserving.InferenceTask, ...], outcome: Answers | ServingError) -> None:
            self.conclude(
                exchange,
                request.model,
                outcome,
                lambda answers: self._encode(tasks, answers, len(request)),
            )

        item = self.service.examples.submit_tasks(request, self.deadline(exchange), self.call.metadata, reply)
        exchange.on_cancel = item.cancel

    def _encode(self, tasks: tuple[tfserving.InferenceTask, ...], answers: Answers, rows: int) -> bytes:
        self.service.metrics.tfserving.examples(answers[0].model.name, rows)
        return tfserving.encode_multi_inference_response(tasks, answers, rows)
