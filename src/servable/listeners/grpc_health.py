"""``grpc.health.v1.Health``: answered beside every queue, while models load and while the server drains too."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterable
from functools import partial

from servable.core.errors import Code, ServingError
from servable.listeners.grpc import OK_HEAD, MessageRoute, UnaryRoute
from servable.transport.exchange import Exchange, PartedReply, RepliesInParts, Route, Trailers
from servable.wire import grpc as wire
from servable.wire import grpc_health as health
from servable.wire.grpc_health import Health

_LOOK_INTERVAL_S = 0.25
_TFSERVING = "tensorflow.serving."
"""Probes written for TensorFlow Serving leave this package out: it registers its services by their short names."""
_STOPPING = Trailers(wire.trailer_fields(*wire.encode_error(ServingError(Code.UNAVAILABLE, "the server is stopping"))))


class HealthService:
    """Says of the whole server (service "") and of each of its services whether it serves now."""

    def __init__(self, is_serving: Callable[[], bool], services: Iterable[str], loop: AbstractEventLoop) -> None:
        """``is_serving`` is asked for every answer, and four times a second while somebody watches."""
        self._is_serving = is_serving
        names = (*services, health.SERVICE)
        self._services = ("", *names, *(name.removeprefix(_TFSERVING) for name in names if name.startswith(_TFSERVING)))
        self._loop = loop
        self._watchers: dict[Watcher, None] = {}
        self._timer: TimerHandle | None = None
        self.closed = False

    def routes(self) -> dict[bytes, Callable[[wire.Call], Route]]:
        """Return the methods."""
        return {
            health.CHECK: partial(UnaryRoute, method=self._check),
            health.LIST: partial(UnaryRoute, method=self._list),
            health.WATCH: partial(WatchRoute, self),
        }

    def status(self, service: str) -> Health:
        """Return the present status; ``SERVICE_UNKNOWN`` for a service that this server does not have."""
        if service not in self._services:
            return Health.SERVICE_UNKNOWN
        return Health.SERVING if not self.closed and self._is_serving() else Health.NOT_SERVING

    def _check(self, body: bytes, start: int) -> bytes:
        service = health.decode_health_request(body, start)
        status = self.status(service)
        if status is Health.SERVICE_UNKNOWN:
            raise ServingError(Code.NOT_FOUND, f"this server has no service {service[:256]!r}")
        return health.encode_health(status)

    def _list(self, body: bytes, start: int) -> bytes:
        return health.encode_health_list({service: self.status(service) for service in self._services})

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of every change from now on."""
        if self.closed:
            watcher.end()
            return
        self._watchers[watcher] = None
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_INTERVAL_S, self._look)

    def forget(self, watcher: Watcher) -> None:
        """Tell it no more."""
        self._watchers.pop(watcher, None)
        if not self._watchers:
            self._rest()

    def _look(self) -> None:
        self._timer = None
        for watcher in self._watchers:
            watcher.tell(self.status(watcher.service))
        if self._watchers:
            self._timer = self._loop.call_later(_LOOK_INTERVAL_S, self._look)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Serve no more: say so to everybody who watches, and end those calls, so that they hold up no drain."""
        self.closed = True
        self._rest()
        watchers, self._watchers = list(self._watchers), {}
        for watcher in watchers:
            watcher.tell(self.status(watcher.service))
            watcher.end()


class WatchRoute(MessageRoute):
    """``Watch``: the status at once, then every change, for as long as the client listens."""

    __slots__ = ("_service",)

    def __init__(self, service: HealthService, call: wire.Call) -> None:
        super().__init__(call)
        self._service = service

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Begin to watch."""
        service = health.decode_health_request(body, start)
        assert isinstance(exchange, RepliesInParts), "gRPC comes over HTTP/2"
        watcher = Watcher(service, exchange.begin(OK_HEAD))
        exchange.on_cancel = partial(self._cancelled, watcher)
        watcher.tell(self._service.status(service))
        self._service.watch(watcher)

    def _cancelled(self, watcher: Watcher) -> None:
        self._service.forget(watcher)
        watcher.end()


class Watcher:
    """One client that wants to know of changes."""

    __slots__ = ("_reply", "_told", "service")

    def __init__(self, service: str, reply: PartedReply) -> None:
        self.service = service
        self._reply = reply
        self._told: Health | None = None

    def tell(self, status: Health) -> None:
        """Send the status if it is another than before."""
        if status is not self._told:
            self._told = status
            self._reply.write(wire.wrap_message(health.encode_health(status)))

    def end(self) -> None:
        """End the call."""
        self._reply.finish(_STOPPING)
