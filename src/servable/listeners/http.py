"""HTTP routes: TensorFlow Serving's REST API, health, readiness and metrics."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial

from servable.core.errors import Code, ServingError, invalid_argument, not_found
from servable.core.messages import ModelRef
from servable.lifecycle.manager import Manager
from servable.listeners.examples import Examples
from servable.listeners.http_models import ModelRoutes
from servable.listeners.http_replies import JSON_FIELDS, Head, Replies, RestOptions
from servable.listeners.predict_streamed import PredictStreamedRoute
from servable.listeners.server_timing import TIMING_ASKED, is_asked
from servable.observe import tfserving_metrics
from servable.observe.metrics import CONTENT_TYPE, Metrics
from servable.serving.inference import Inference
from servable.transport.exchange import Exchange, ReplyHead, RequestHead, Route
from servable.wire import overview
from servable.wire import tfserving_rest as tfserving

__all__ = ["ErrorRoute", "HttpApplication", "PageRoute", "RestOptions"]

METRICS = Head(tfserving.http_status(Code.OK), ((b"content-type", CONTENT_TYPE.encode()),))
MONITORING = Head(tfserving.http_status(Code.OK), ((b"content-type", tfserving_metrics.CONTENT_TYPE.encode()),))
WRONG_PAGE = ReplyHead(tfserving.http_status(Code.INVALID_ARGUMENT), MONITORING.plain.fields)
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
        metrics: Metrics,
        is_ready: Callable[[], bool],
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
        self._models = ModelRoutes(inference, examples, metrics, self._replies, options, more)
        self._count = metrics.tfserving.other
        self._pages: dict[bytes, Route] = {
            b"/healthz": PageRoute(lambda: b'{"status": "alive"}\n'),
            b"/readyz": ReadinessRoute(is_ready),
        }
        if operator_pages:
            self._pages[b"/metrics"] = PageRoute(metrics.exposition, head=METRICS)
            self._pages[overview.PATH.encode()] = PageRoute(lambda: overview.encode_overview(self._overview()))
        self._monitoring: dict[bytes, Route] = {}
        if operator_pages and options.metrics_path:
            path = options.metrics_path.encode()
            self._monitoring[path] = MonitoringRoute(path, metrics.monitoring)
        self._routes: dict[tuple[bytes, bytes, bytes, bool], Route] = {}

    def route(self, head: RequestHead) -> Route:
        """Choose by method and path; a request line that was seen before costs one look-up."""
        encoding, timed = b"", False
        for name, value in head.fields:
            if name == b"content-encoding":
                encoding = encoding + b", " + value if encoding else value
            elif name == TIMING_ASKED:
                timed = is_asked(value)
        key = (head.method, head.target, encoding, timed)
        found = self._routes.get(key)
        if found is None:
            if len(self._routes) >= ROUTES_KEPT:
                self._routes.clear()
            found = self._routes[key] = self._choose(head, encoding, timed=timed)
        return found

    def _choose(self, head: RequestHead, encoding: bytes, *, timed: bool) -> Route:
        path = head.target.partition(b"?")[0]
        if path in self._monitoring:
            return self._monitoring[path]
        page = self._pages.get(path)
        if page is not None:
            if head.method in {b"GET", b"HEAD"}:
                return page
            return ErrorRoute(invalid_argument(f"{path.decode()} answers GET only"))
        if not path.lower().startswith(b"/v1/"):
            known = ", ".join(sorted(name.decode() for name in (*self._pages, *self._monitoring)))
            error = not_found(f"nothing is served at this path; there are /v1/models/NAME, {known}")
            return CountedRoute(ErrorRoute(error), "", self._count)
        if head.method == b"OPTIONS":
            return CountedRoute(PreflightRoute(self._replies), "", self._count)
        try:
            target = tfserving.parse_path(head.method, head.target)
        except ServingError as error:
            return CountedRoute(ErrorRoute(error, self._replies), "", self._count)
        make_page = {"status": self._status, "metadata": self._metadata}.get(target.action)
        if make_page is not None:
            return CountedRoute(
                PageRoute(partial(make_page, target.model), self._replies), target.model.name, self._count
            )
        return self._models.route(target, encoding, timed=timed)

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


class ShortRoute(Route):
    """A route that answers at once."""

    __slots__ = ()

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Answer."""
        self.reply(exchange)

    @abstractmethod
    def reply(self, exchange: Exchange) -> Code:
        """Answer, and return with what code."""


class CountedRoute(Route):
    """A short route of TensorFlow Serving's API, whose requests are counted as it does that."""

    __slots__ = ("_count", "_model", "_route", "wants_body")

    def __init__(self, route: ShortRoute, model: str, count: Callable[[str, Code, float], None]) -> None:
        self._route = route
        self._model = model
        self._count = count
        self.wants_body = route.wants_body

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Answer, then count."""
        code = self._route.reply(exchange)
        self._count(self._model, code, time.monotonic() - exchange.arrived)


class MonitoringRoute(Route):
    """TensorFlow Serving's page of metrics: by any method, without a query."""

    __slots__ = ("_page", "_path")
    wants_body = False

    def __init__(self, path: bytes, page: Page) -> None:
        self._path = path
        self._page = page

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Look whether the path is exact."""
        target = exchange.head.target
        if target == self._path:
            PLAIN_REPLIES.answer(exchange, self._page(), MONITORING)
        else:
            exchange.respond(WRONG_PAGE, b"Unexpected path: %s. Should be %s" % (target, self._path))


class PageRoute(ShortRoute):
    """A GET whose answer is at hand."""

    __slots__ = ("_head", "_page", "_replies")

    def __init__(self, page: Page, replies: Replies = PLAIN_REPLIES, head: Head | None = None) -> None:
        self._page = page
        self._replies = replies
        self._head = head

    def reply(self, exchange: Exchange) -> Code:
        """Make the page and send it."""
        try:
            page = self._page()
        except ServingError as error:
            self._replies.error(exchange, error)
            return error.code
        self._replies.answer(exchange, page, self._head)
        return Code.OK


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


class PreflightRoute(ShortRoute):
    """OPTIONS, by which a browser asks if a script of another origin may call. Any origin on the web may."""

    __slots__ = ("_replies",)
    wants_body = False

    def __init__(self, replies: Replies) -> None:
        self._replies = replies

    def reply(self, exchange: Exchange) -> Code:
        """Look at the origin."""
        origin = exchange.head.get(b"origin") or b""
        is_web = b"http://" in origin or b"https://" in origin
        code = Code.OK if is_web else Code.INVALID_ARGUMENT
        self._replies.bare(exchange, code)
        return code


class ErrorRoute(ShortRoute):
    """A request that fails by its head alone."""

    __slots__ = ("_error", "_replies")
    wants_body = False

    def __init__(self, error: ServingError, replies: Replies = PLAIN_REPLIES) -> None:
        self._error = error
        self._replies = replies

    def reply(self, exchange: Exchange) -> Code:
        """Say why."""
        self._replies.error(exchange, self._error)
        return self._error.code
