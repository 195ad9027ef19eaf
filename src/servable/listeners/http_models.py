"""HTTP routes that ask models: predict, classify and regress of TensorFlow Serving's REST API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from servable.core.errors import Code, ServingError, internal, invalid_argument
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.listeners.examples import Examples
from servable.listeners.http_replies import Replies, RestOptions
from servable.listeners.server_timing import timed_head
from servable.observe.metrics import Metrics
from servable.serving.inference import Inference
from servable.serving.joint import Answers
from servable.transport.exchange import Exchange, Route
from servable.wire import tfserving_rest as tfserving

log = logging.getLogger("servable.listeners")

MAX_DECOMPRESSED = 256 * 1024 * 1024
"""Bytes a compressed body may grow to."""

Start = Callable[[], None]
"""The second half of a request: what is to be done on the loop after its body was read."""


class ModelRoutes:
    """What the routes need of the server."""

    def __init__(
        self,
        inference: Inference,
        examples: Examples,
        metrics: Metrics,
        replies: Replies,
        options: RestOptions,
        more: Mapping[str, type[ModelRoute]] | None = None,
    ) -> None:
        """``more``: routes of actions that are not in this module."""
        self.inference = inference
        self.examples = examples
        self.metrics = metrics
        self.replies = replies
        self.options = options
        self._kinds: dict[str, type[ModelRoute]] = {
            "predict": PredictRoute, "classify": ClassifyRoute, "regress": RegressRoute, **(more or {})
        }  # fmt: skip

    def route(self, target: tfserving.Target, encoding: bytes, *, timed: bool = False) -> Route:
        """Return the route for an action; ``encoding`` is that of the body. ``timed``: the client asks for times."""
        return self._kinds[target.action](self, target.model, encoding, timed=timed)


class ModelRoute(Route):
    """Reads the body here if that is quick, in a thread if it is not; then asks the model, and answers."""

    __slots__ = ("_encoding", "_timed", "meter", "model", "routes")
    api: ClassVar[str] = "Predict"

    def __init__(self, routes: ModelRoutes, model: ModelRef, encoding: bytes, *, timed: bool) -> None:
        self.routes = routes
        self.meter = routes.metrics.meter("rest", self.api)
        self.model = model
        self._encoding = encoding
        self._timed = timed

    def read(self, exchange: Exchange, body: bytes) -> Start:
        """Read the body, in any thread, and return what is to be done next, on the loop."""
        raise NotImplementedError

    def too_large(self, exchange: Exchange, limit: int) -> None:
        """Answer 413 in the API's own form."""
        self._note_failure(exchange, Code.RESOURCE_EXHAUSTED)
        self.routes.replies.too_large(exchange, invalid_argument(f"the request body exceeds {limit} bytes"))

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Begin."""
        if self._encoding or len(body) > self.routes.options.offload_bytes:
            task = asyncio.get_running_loop().run_in_executor(None, self._unpack, exchange, body)
            task.add_done_callback(lambda done: self._start(exchange, done.result))
            return
        self._start(exchange, partial(self.read, exchange, body))

    def deadline(self, exchange: Exchange) -> float | None:
        """Return when the request has taken too long."""
        timeout_s = self.routes.options.timeout_s
        return None if timeout_s is None else exchange.arrived + timeout_s

    def answer(
        self, exchange: Exchange, outcome: InferResponse | ServingError, encode: Callable[[InferResponse], bytes]
    ) -> None:
        """Send what ``encode`` makes of the model's answer."""
        if isinstance(outcome, ServingError):
            self.fail(exchange, outcome)
            return
        try:
            body = encode(outcome)
        except ServingError as error:
            self.fail(exchange, error)
            return
        except Exception:
            log.exception("an answer over REST could not be written")
            self.fail(exchange, internal("the server failed; its log says why"))
            return
        if exchange.watched:
            exchange.note(outcome)
        replies = self.routes.replies
        replies.answer(exchange, body, timed_head(replies.ok, outcome) if self._timed else None)
        self.meter.answered(outcome, time.monotonic() - exchange.arrived)

    def _unpack(self, exchange: Exchange, body: bytes) -> Start:
        return self.read(exchange, tfserving.decompress(body, self._encoding, MAX_DECOMPRESSED))

    def _start(self, exchange: Exchange, read: Callable[[], Start]) -> None:
        try:
            read()()
        except ServingError as error:
            self.fail(exchange, error)
        except Exception:
            log.exception("a REST request failed")
            self.fail(exchange, internal("the server failed; its log says why"))

    def fail(self, exchange: Exchange, error: ServingError) -> None:
        """Answer with an error."""
        self._note_failure(exchange, error.code)
        self.routes.replies.error(exchange, error)

    def _note_failure(self, exchange: Exchange, code: Code) -> None:
        if exchange.watched:
            exchange.note(self.model)
        self.meter.failed(self.model, code)


class PredictRoute(ModelRoute):
    """``POST /v1/models/...:predict``, the hot path."""

    __slots__ = ()

    def read(self, exchange: Exchange, body: bytes) -> Start:
        """Read the body as far as that is possible without the signature."""
        return partial(self._submit, exchange, tfserving.parse_predict_body(body))

    def _submit(self, exchange: Exchange, document: tfserving.PredictBody) -> None:
        inference = self.routes.inference
        model = inference.resolve(self.model)
        try:
            signature = inference.signature(model, document.signature_name)
        except ServingError as error:
            raise tfserving.lookup_error(error, document.signature_name) from None
        self.routes.examples.check_predict(model, signature.name)
        request = InferRequest(
            model,
            document.to_inputs(signature),
            signature.name,
            document.output_filter,
            self.deadline(exchange),
        )
        self.ask(exchange, request, _encode_rows if document.row_format else _encode_columns)

    def ask(self, exchange: Exchange, request: InferRequest, encode: Callable[[InferResponse], bytes]) -> None:
        """Have the request answered."""
        item = self.routes.inference.submit(request, lambda outcome: self.answer(exchange, outcome, encode))
        if item is not None:
            exchange.on_cancel = item.cancel


class ClassifyRoute(ModelRoute):
    """``POST /v1/models/...:classify``."""

    __slots__ = ()
    api = "Classify"
    action: ClassVar[str] = "classify"
    method: ClassVar[tfserving.ExampleMethod] = tfserving.CLASSIFY_EXAMPLES

    def read(self, exchange: Exchange, body: bytes) -> Start:
        """Make the Examples."""
        return partial(self._submit, exchange, tfserving.parse_examples_body(body, self.action, self.model))

    def _submit(self, exchange: Exchange, request: tfserving.ExampleRequest) -> None:
        def reply(outcome: Answers | ServingError) -> None:
            first = outcome if isinstance(outcome, ServingError) else outcome[0]
            self.answer(exchange, first, lambda response: self.encode(response, len(request)))

        item = self.routes.examples.submit(self.method, request, self.deadline(exchange), (), reply)
        exchange.on_cancel = item.cancel

    @staticmethod
    def encode(response: InferResponse, rows: int) -> bytes:
        """Return the reply's body."""
        return tfserving.encode_classification(tfserving.CLASSIFY_EXAMPLES.read(response.outputs, rows))


class RegressRoute(ClassifyRoute):
    """``POST /v1/models/...:regress``."""

    __slots__ = ()
    api = "Regress"
    action = "regress"
    method = tfserving.REGRESS_EXAMPLES

    @staticmethod
    def encode(response: InferResponse, rows: int) -> bytes:
        """Return the reply's body."""
        return tfserving.encode_regression(tfserving.REGRESS_EXAMPLES.read(response.outputs, rows))


def _encode_rows(response: InferResponse) -> bytes:
    return tfserving.encode_predict_response(response.outputs, row_format=True)


def _encode_columns(response: InferResponse) -> bytes:
    return tfserving.encode_predict_response(response.outputs, row_format=False)
