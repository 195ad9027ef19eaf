"""HTTP routes: TensorFlow Serving's REST API, health, readiness and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from servable.core.errors import Code, ServingError, internal, invalid_argument, not_found, unimplemented
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.lifecycle.manager import Manager
from servable.observe.metrics import CONTENT_TYPE, Meter
from servable.serving.inference import Inference
from servable.transport.exchange import Exchange, ReplyHead, RequestHead, Route
from servable.wire import overview
from servable.wire import tfserving_rest as tfserving

log = logging.getLogger("servable.listeners")

JSON_FIELDS = ((b"content-type", b"application/json"),)
OK_JSON = ReplyHead(tfserving.http_status(Code.OK), JSON_FIELDS)
ERROR_HEADS = {code: ReplyHead(tfserving.http_status(code), JSON_FIELDS) for code in Code}
OK_METRICS = ReplyHead(tfserving.http_status(Code.OK), ((b"content-type", CONTENT_TYPE.encode()),))
ROUTES_KEPT = 1024
"""How many distinct request lines are remembered with their routes."""
MAX_DECOMPRESSED = 256 * 1024 * 1024
"""Bytes a compressed body may grow to."""


@dataclass(frozen=True, slots=True)
class RestOptions:
    """``timeout_s`` ``None`` is unlimited. Bodies above ``offload_bytes`` are decoded in a thread, not on the loop."""

    timeout_s: float | None = 30.0
    offload_bytes: int = 256 * 1024


class HttpApplication:
    """Everything that is not gRPC."""

    def __init__(
        self,
        inference: Inference,
        manager: Manager,
        meter: Meter,
        is_ready: Callable[[], bool],
        exposition: Callable[[], bytes],
        options: RestOptions,
    ) -> None:
        self.inference = inference
        self.meter = meter
        self.options = options
        self._manager = manager
        self._is_ready = is_ready
        self._exposition = exposition
        self._pages: dict[bytes, Callable[[], tuple[ReplyHead, bytes]]] = {
            b"/healthz": lambda: (OK_JSON, b'{"status": "alive"}\n'),
            b"/readyz": self._readiness,
            b"/metrics": lambda: (OK_METRICS, self._exposition()),
            overview.PATH.encode(): lambda: (OK_JSON, overview.encode_overview(self._overview())),
        }
        self._routes: dict[tuple[bytes, bytes, bytes], Route] = {}

    def route(self, head: RequestHead) -> Route:
        """Choose by method and path; a request line that was seen before costs one look-up."""
        key = (head.method, head.target, head.get(b"content-encoding") or b"")
        found = self._routes.get(key)
        if found is None:
            if len(self._routes) >= ROUTES_KEPT:
                self._routes.clear()
            found = self._routes[key] = self._choose(head)
        return found

    def _choose(self, head: RequestHead) -> Route:
        path = head.target.partition(b"?")[0]
        page = self._pages.get(path)
        if page is not None:
            if head.method in {b"GET", b"HEAD"}:
                return PageRoute(page)
            return ErrorRoute(invalid_argument(f"{path.decode()} answers GET only"))
        if not path.lower().startswith(b"/v1/"):
            known = ", ".join(sorted(name.decode() for name in self._pages))
            return ErrorRoute(not_found(f"nothing is served at this path; there are /v1/models/NAME, {known}"))
        try:
            target = tfserving.parse_path(head.method, head.target)
        except ServingError as error:
            return ErrorRoute(error)
        if target.action == "predict":
            return PredictRoute(self, target.model, head.get(b"content-encoding") or b"")
        if target.action == "status":
            return PageRoute(partial(self._status, target.model))
        if target.action == "metadata":
            return PageRoute(partial(self._metadata, target.model))
        return ErrorRoute(unimplemented(f"the method {target.action} is not implemented; there is predict"))

    def _readiness(self) -> tuple[ReplyHead, bytes]:
        if self._is_ready():
            return OK_JSON, b'{"status": "ready"}\n'
        return ERROR_HEADS[Code.UNAVAILABLE], b'{"status": "not ready"}\n'

    def _overview(self) -> dict[str, list[overview.VersionOverview]]:
        signatures = {loaded.ref: loaded.model.signatures for loaded in self._manager.loaded()}
        models: dict[str, list[overview.VersionOverview]] = {}
        for name in self._manager.models():
            models[name] = []
            with contextlib.suppress(ServingError):  # no version was seen yet
                for status in self._manager.statuses(name):
                    known = signatures.get(ModelRef(name, status.version), {})
                    models[name].append(overview.VersionOverview(status, known))
        return models

    def _status(self, model: ModelRef) -> tuple[ReplyHead, bytes]:
        return OK_JSON, tfserving.encode_status(self._manager.statuses(model.name, model.version, model.label))

    def _metadata(self, model: ModelRef) -> tuple[ReplyHead, bytes]:
        loaded = self._manager.acquire(model)
        try:
            return OK_JSON, tfserving.encode_metadata(loaded.ref, loaded.model.signatures)
        finally:
            self._manager.release(loaded)


def respond_with_error(exchange: Exchange, error: ServingError) -> None:
    """Answer with an error as JSON."""
    exchange.respond(ERROR_HEADS[error.code], tfserving.encode_error(error))


class PageRoute(Route):
    """A GET whose answer is at hand."""

    __slots__ = ("_page",)

    def __init__(self, page: Callable[[], tuple[ReplyHead, bytes]]) -> None:
        self._page = page

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Make the page and send it."""
        try:
            exchange.respond(*self._page())
        except ServingError as error:
            respond_with_error(exchange, error)


class ErrorRoute(Route):
    """A request that fails by its head alone."""

    __slots__ = ("_error",)
    wants_body = False

    def __init__(self, error: ServingError) -> None:
        self._error = error

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Say why."""
        respond_with_error(exchange, self._error)


class PredictRoute(Route):
    """``POST /v1/models/...:predict``, the hot path."""

    __slots__ = ("_encoding", "_inference", "_meter", "_model", "_options")

    def __init__(self, application: HttpApplication, model: ModelRef, encoding: bytes) -> None:
        self._inference = application.inference
        self._meter = application.meter
        self._options = application.options
        self._model = model
        self._encoding = encoding

    def too_large(self, exchange: Exchange, limit: int) -> None:
        """Answer 413 in the API's own form."""
        if exchange.watched:
            exchange.note(self._model)
        self._meter.failed(self._model, Code.RESOURCE_EXHAUSTED)
        body = tfserving.encode_error(invalid_argument(f"the request body exceeds {limit} bytes"))
        exchange.respond(ReplyHead(tfserving.HTTP_PAYLOAD_TOO_LARGE, JSON_FIELDS), body)

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Decode here if it is quick, in a thread if it is not; then submit."""
        if self._encoding or len(body) > self._options.offload_bytes:
            task = asyncio.get_running_loop().run_in_executor(None, self._parse, body)
            task.add_done_callback(lambda done: self._submit(exchange, done.result))
            return
        self._submit(exchange, partial(tfserving.parse_predict_body, body))

    def _parse(self, body: bytes) -> tfserving.PredictBody:
        return tfserving.parse_predict_body(tfserving.decompress(body, self._encoding, MAX_DECOMPRESSED))

    def _submit(self, exchange: Exchange, parse: Callable[[], tfserving.PredictBody]) -> None:
        try:
            document = parse()
            try:
                signature = self._inference.signature(self._model, document.signature_name)
            except ServingError as error:
                raise tfserving.lookup_error(error, document.signature_name) from None
            request = InferRequest(self._model, document.to_inputs(signature), signature.name, document.output_filter)
            if self._options.timeout_s is not None:
                request.deadline = exchange.arrived + self._options.timeout_s
            item = self._inference.submit(request, partial(self._answer, exchange, document.row_format))
            if item is not None:
                exchange.on_cancel = item.cancel
        except ServingError as error:
            self._fail(exchange, error)
        except Exception:
            log.exception("a REST request failed")
            self._fail(exchange, internal("the server failed; its log says why"))

    def _answer(self, exchange: Exchange, row_format: bool, outcome: InferResponse | ServingError) -> None:
        if isinstance(outcome, ServingError):
            self._fail(exchange, outcome)
            return
        try:
            body = tfserving.encode_predict_response(outcome.outputs, row_format=row_format)
        except ServingError as error:
            self._fail(exchange, error)
            return
        except Exception:
            log.exception("an answer over REST could not be written")
            self._fail(exchange, internal("the server failed; its log says why"))
            return
        if exchange.watched:
            exchange.note(outcome)
        exchange.respond(OK_JSON, body)
        self._meter.answered(outcome.model, time.monotonic() - exchange.arrived)

    def _fail(self, exchange: Exchange, error: ServingError) -> None:
        if exchange.watched:
            exchange.note(self._model)
        self._meter.failed(self._model, error.code)
        respond_with_error(exchange, error)
