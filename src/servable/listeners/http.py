"""HTTP routes: TensorFlow Serving's REST API, health, readiness and metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from servable.core.errors import Code, ServingError, invalid_argument, not_found
from servable.core.messages import ModelRef
from servable.lifecycle.manager import Manager
from servable.listeners.examples import Examples
from servable.listeners.http_models import ModelRoutes
from servable.listeners.http_replies import JSON_FIELDS, Head, Replies, RestOptions
from servable.listeners.predict_streamed import PredictStreamedRoute
from servable.observe.metrics import CONTENT_TYPE, Meter
from servable.serving.inference import Inference
from servable.transport.exchange import Exchange, ReplyHead, RequestHead, Route
from servable.wire import overview
from servable.wire import tfserving_rest as tfserving

__all__ = ["ErrorRoute", "HttpApplication", "PageRoute", "RestOptions"]

METRICS = Head(tfserving.http_status(Code.OK), ((b"content-type", CONTENT_TYPE.encode()),))
PLAIN_REPLIES = Replies(RestOptions())
ROUTES_KEPT = 1024
"""How many distinct request lines are remembered with their routes."""

Page = Callable[[], bytes]


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
        examples: Examples | None = None,
        *,
        operator_pages: bool = True,
    ) -> None:
        """``operator_pages``: metrics and the overview of the whole server."""
        self._manager = manager
        self._replies = Replies(options)
        examples = examples or Examples(inference, manager)
        more = {"predictStreamed": PredictStreamedRoute}
        self._models = ModelRoutes(inference, examples, meter, self._replies, options, more)
        self._pages: dict[bytes, Route] = {
            b"/healthz": PageRoute(lambda: b'{"status": "alive"}\n'),
            b"/readyz": ReadinessRoute(is_ready),
        }
        if operator_pages:
            self._pages[b"/metrics"] = PageRoute(exposition, head=METRICS)
            self._pages[overview.PATH.encode()] = PageRoute(lambda: overview.encode_overview(self._overview()))
        if operator_pages and options.metrics_path:
            self._pages.setdefault(options.metrics_path.encode(), self._pages[b"/metrics"])
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
                return page
            return ErrorRoute(invalid_argument(f"{path.decode()} answers GET only"))
        if not path.lower().startswith(b"/v1/"):
            known = ", ".join(sorted(name.decode() for name in self._pages))
            return ErrorRoute(not_found(f"nothing is served at this path; there are /v1/models/NAME, {known}"))
        if head.method == b"OPTIONS":
            return PreflightRoute(self._replies)
        try:
            target = tfserving.parse_path(head.method, head.target)
        except ServingError as error:
            return ErrorRoute(error, self._replies)
        if target.action == "status":
            return PageRoute(partial(self._status, target.model), self._replies)
        if target.action == "metadata":
            return PageRoute(partial(self._metadata, target.model), self._replies)
        return self._models.route(target, head.get(b"content-encoding") or b"")

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

    def _status(self, model: ModelRef) -> bytes:
        return tfserving.encode_status(self._manager.statuses(model.name, model.version, model.label))

    def _metadata(self, model: ModelRef) -> bytes:
        loaded = self._manager.acquire(model)
        try:
            return tfserving.encode_metadata(loaded.ref, loaded.model.signatures)
        finally:
            self._manager.release(loaded)


class PageRoute(Route):
    """A GET whose answer is at hand."""

    __slots__ = ("_head", "_page", "_replies")

    def __init__(self, page: Page, replies: Replies = PLAIN_REPLIES, head: Head | None = None) -> None:
        self._page = page
        self._replies = replies
        self._head = head

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Make the page and send it."""
        try:
            self._replies.answer(exchange, self._page(), self._head)
        except ServingError as error:
            self._replies.error(exchange, error)


class ReadinessRoute(Route):
    """Whether to send requests here."""

    __slots__ = ("_is_ready",)
    ready = ReplyHead(tfserving.http_status(Code.OK), JSON_FIELDS)
    not_ready = ReplyHead(tfserving.http_status(Code.UNAVAILABLE), JSON_FIELDS)

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Ask."""
        if self._is_ready():
            exchange.respond(self.ready, b'{"status": "ready"}\n')
        else:
            exchange.respond(self.not_ready, b'{"status": "not ready"}\n')


class PreflightRoute(Route):
    """OPTIONS, by which a browser asks if a script of another origin may call. Any origin on the web may."""

    __slots__ = ("_replies",)
    wants_body = False

    def __init__(self, replies: Replies) -> None:
        self._replies = replies

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Look at the origin."""
        origin = exchange.head.get(b"origin") or b""
        is_web = b"http://" in origin or b"https://" in origin
        self._replies.bare(exchange, Code.OK if is_web else Code.INVALID_ARGUMENT)


class ErrorRoute(Route):
    """A request that fails by its head alone."""

    __slots__ = ("_error", "_replies")
    wants_body = False

    def __init__(self, error: ServingError, replies: Replies = PLAIN_REPLIES) -> None:
        self._error = error
        self._replies = replies

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Say why."""
        self._replies.error(exchange, self._error)
