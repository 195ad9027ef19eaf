"""gRPC routes of methods that take tf.Examples: Classify, Regress and MultiInference."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from servable.core.errors import ServingError, internal
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.lifecycle.manager import Manager
from servable.listeners.grpc import OK_HEAD, OK_TRAILERS, MessageRoute, error_head
from servable.observe.metrics import Meter
from servable.serving.inference import Inference
from servable.serving.joint import Answers, submit_all
from servable.transport.exchange import Exchange, Route
from servable.wire import grpc as wire
from servable.wire import tfserving_grpc as tfserving

log = logging.getLogger("servable.listeners")

Encode = Callable[[Answers], bytes]


class ExampleService:
    """What the routes need of the server. ``check_method``: whether a signature must have been made for its method."""

    def __init__(self, inference: Inference, manager: Manager, meter: Meter, *, check_method: bool = False) -> None:
        self.inference = inference
        self.manager = manager
        self.meter = meter
        self.check_method = check_method

    def routes(self) -> dict[bytes, Callable[[wire.Call], Route]]:
        """Return the methods by their paths."""
        return {
            tfserving.CLASSIFY: partial(ClassifyRoute, self),
            tfserving.REGRESS: partial(RegressRoute, self),
            tfserving.MULTI_INFERENCE: partial(MultiInferenceRoute, self),
        }


class ExampleRoute(MessageRoute):
    """What the three have in common: from a submitted request to its reply."""

    __slots__ = ("service",)

    def __init__(self, service: ExampleService, call: wire.Call) -> None:
        super().__init__(call)
        self.service = service

    def deadline(self, exchange: Exchange) -> float | None:
        """Return when the client gives up."""
        return None if self.call.timeout_s is None else exchange.arrived + self.call.timeout_s

    def submit(self, exchange: Exchange, asked: ModelRef, requests: list[InferRequest], encode: Encode) -> None:
        """Run the requests, which are of one version, and answer with what ``encode`` makes of all their answers."""
        joint = submit_all(self.service.inference, requests, partial(self._answer, exchange, asked, encode))
        exchange.on_cancel = joint.cancel

    def _answer(self, exchange: Exchange, asked: ModelRef, encode: Encode, outcome: Answers | ServingError) -> None:
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
        first = outcome[0]
        if exchange.watched:
            exchange.note(first)
        exchange.respond(OK_HEAD, wire.wrap_message(message), OK_TRAILERS)
        self.service.meter.answered(first.model, time.monotonic() - exchange.arrived)

    def fail(self, exchange: Exchange, error: ServingError) -> None:
        """Count a request that did not get as far as a model, and answer."""
        self._refuse(exchange, None, error)

    def _refuse(self, exchange: Exchange, asked: ModelRef | None, error: ServingError) -> None:
        self.service.meter.failed(asked, error.code)
        if exchange.watched:
            exchange.note(asked)
        exchange.respond(error_head(error))


class OneSignatureRoute(ExampleRoute):
    """Classify or Regress."""

    __slots__ = ()
    method: tfserving.Classify | tfserving.Regress
    encode: Callable[[InferResponse, int], bytes]

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Submit the request, if its signature is for this."""
        request = tfserving.decode_example_request(body, start)
        service = self.service
        loaded = service.manager.acquire(request.model)
        try:
            signature = loaded.model.signatures.get(request.signature or DEFAULT_SIGNATURE)
            if signature is None:
                raise tfserving.missing_signature(request.signature)
            outputs = tfserving.example_outputs(
                self.method, signature, loaded.ref, loaded.model.engine, check_method=service.check_method
            )
        finally:
            service.manager.release(loaded)
        submitted = InferRequest(
            request.model, request.inputs(), signature.name, outputs, self.deadline(exchange), self.call.metadata
        )
        rows, encode = len(request.examples), type(self).encode
        self.submit(exchange, request.model, [submitted], lambda answers: encode(answers[0], rows))


class ClassifyRoute(OneSignatureRoute):
    """``PredictionService/Classify``."""

    __slots__ = ()
    method = tfserving.CLASSIFY_EXAMPLES
    encode = staticmethod(tfserving.encode_classification_response)


class RegressRoute(OneSignatureRoute):
    """``PredictionService/Regress``."""

    __slots__ = ()
    method = tfserving.REGRESS_EXAMPLES
    encode = staticmethod(tfserving.encode_regression_response)


class MultiInferenceRoute(ExampleRoute):
    """``PredictionService/MultiInference``: every task meets the same version."""

    __slots__ = ()

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Submit a request for every task."""
        request = tfserving.decode_multi_inference_request(body, start)
        service = self.service
        loaded = service.manager.acquire(request.model)
        try:
            model = loaded.model
            tasks = request.tasks(loaded.ref, model.signatures, model.engine, check_method=service.check_method)
            inputs, deadline, metadata = request.inputs(), self.deadline(exchange), self.call.metadata
            requests = [
                InferRequest(loaded.ref, inputs, task.signature, task.outputs, deadline, metadata) for task in tasks
            ]
            rows = len(request.examples)
            self.submit(
                exchange,
                request.model,
                requests,
                lambda answers: tfserving.encode_multi_inference_response(tasks, answers, rows),
            )
        finally:
            service.manager.release(loaded)
