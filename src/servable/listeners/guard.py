"""Stands before a port's application and lets through what comes with a key that is good for it."""

from __future__ import annotations

from servable.core.errors import ServingError
from servable.listeners.grpc import Refusal
from servable.listeners.http import ErrorRoute
from servable.listeners.keys import ApiKeys
from servable.listeners.ports import PortApplication
from servable.transport.exchange import Exchange, RequestHead, Route
from servable.wire import grpc as wire
from servable.wire import tfserving_grpc, tfserving_rest
from servable.wire.grpc_health import CHECK, LIST, WATCH
from servable.wire.tfserving_model_spec import addressed_models

OPEN_PAGES = frozenset({b"/healthz", b"/readyz"})
"""Whom an orchestrator asks has no key to lose."""
HEALTH = frozenset({CHECK, LIST, WATCH})
ABOUT_A_MODEL = frozenset({
    tfserving_grpc.PREDICT, tfserving_grpc.CLASSIFY, tfserving_grpc.REGRESS, tfserving_grpc.MULTI_INFERENCE,
    tfserving_grpc.GET_MODEL_METADATA, tfserving_grpc.GET_MODEL_STATUS, tfserving_grpc.PREDICT_STREAMED,
})  # fmt: skip
MAX_MESSAGE = 256 * 1024 * 1024


class GuardedApplication:
    """A port that wants a key for everything but the questions whether the server is alive and ready."""

    def __init__(self, inner: PortApplication, keys: ApiKeys) -> None:
        self._inner = inner
        self._keys = keys

    def route(self, head: RequestHead) -> Route:
        """Refuse by the head alone what has no good key: its body is not waited for."""
        if is_open(head):
            return self._inner.route(head)
        is_call = wire.is_grpc(head.get(b"content-type"))
        try:
            grant = self._keys.grant(head)
            if not is_call:
                grant.check(models_in_path(head))
        except ServingError as error:
            return Refusal.of(error) if is_call else ErrorRoute(error)
        route = self._inner.route(head)
        if route.in_parts:
            return route
        return GuardedRoute(route, self._keys, names_models=is_call and head.target in ABOUT_A_MODEL)

    def oversized(self, head: RequestHead, size: int, limit: int) -> Route:
        """Answer as the port does: there may be no key among the fields that were kept."""
        return self._inner.oversized(head, size, limit)


class GuardedRoute(Route):
    """Looks at the key again for each request, and at the models that a message names."""

    __slots__ = ("_inner", "_keys", "_names_models", "max_body", "prefix_size", "wants_body")

    def __init__(self, inner: Route, keys: ApiKeys, *, names_models: bool) -> None:
        self._inner = inner
        self._keys = keys
        self._names_models = names_models
        self.wants_body = inner.wants_body
        self.max_body = inner.max_body
        self.prefix_size = inner.prefix_size

    def body_size(self, exchange: Exchange, prefix: bytes) -> int:
        """Ask the route."""
        return self._inner.body_size(exchange, prefix)

    def too_large(self, exchange: Exchange, limit: int) -> None:
        """Let the route answer."""
        self._inner.too_large(exchange, limit)

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Check, and go on."""
        head = exchange.head
        try:
            grant = self._keys.grant(head)
            if self._names_models and grant.models is not None:
                grant.check(models_in_call(head, body))
        except ServingError as error:
            refusal = Refusal.of(error) if wire.is_grpc(head.get(b"content-type")) else ErrorRoute(error)
            refusal.handle(exchange, b"")
            return
        self._inner.handle(exchange, body)


def is_open(head: RequestHead) -> bool:
    """Return whether a request needs no key: health, readiness, and the question of a browser that sends none."""
    path = head.target.partition(b"?")[0]
    return path in OPEN_PAGES or head.method == b"OPTIONS" or path in HEALTH


def models_in_path(head: RequestHead) -> list[str]:
    """Return the model that a REST path names, if it is one."""
    if not head.target.lower().startswith(b"/v1/"):
        return []
    try:
        return [tfserving_rest.parse_path(head.method, head.target).model.name]
    except ServingError:
        return []  # the port says what is wrong with it


def models_in_call(head: RequestHead, body: bytes) -> list[str]:
    """Return the models that a gRPC message names; ``ServingError`` if it cannot be read."""
    call = wire.parse_call(head.fields)
    message = wire.unwrap_message(body, call.encoding, MAX_MESSAGE)
    return addressed_models(message, tasks=head.target == tfserving_grpc.MULTI_INFERENCE)
