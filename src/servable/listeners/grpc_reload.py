"""gRPC route of ``ModelService/HandleReloadConfigRequest``: a new list of models for the running server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from servable.core.errors import Code, ServingError, internal
from servable.listeners.grpc import MessageRoute
from servable.listeners.keys import Administration
from servable.transport.exchange import Exchange, Route
from servable.wire import grpc as wire
from servable.wire import tfserving_grpc as tfserving

log = logging.getLogger("servable.listeners")

Apply = Callable[[Any], Awaitable[None]]
"""Takes a ``ModelServerConfig`` message; returns when each new model is available, raises if one cannot be."""

Done = Callable[[asyncio.Future[dict[str, int]]], object]
T = TypeVar("T")
ReadMetric = Callable[[str], int]
"""Takes a metric's name in TensorFlow's form; returns the value of its first series, 0 if there is none."""


class ReloadService:
    """What the route needs of the server."""

    def __init__(self, apply: Apply, read_metric: ReadMetric) -> None:
        self.apply = apply
        self.read_metric = read_metric
        self._running: set[asyncio.Future[Any]] = set()  # a task that nobody holds may vanish

    def routes(self, administration: Administration) -> dict[bytes, Callable[[wire.Call], Route]]:
        """Return the method by its path, for those whom ``administration`` allows it."""
        return {tfserving.HANDLE_RELOAD_CONFIG_REQUEST: partial(ReloadRoute, self, administration)}

    def start(self, request: tfserving.ReloadRequest, timeout_s: float | None, done: Done) -> None:
        """Apply, and call ``done`` with how much each metric grew. What was begun goes on when the time is over."""
        self._run(self._reload(request, timeout_s)).add_done_callback(done)

    def _run(self, work: Awaitable[T]) -> asyncio.Future[T]:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _reload(self, request: tfserving.ReloadRequest, timeout_s: float | None) -> dict[str, int]:
        before = {name: self.read_metric(name) for name in request.metrics}
        applying = self._run(self.apply(request.config))
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(applying)
        except TimeoutError:
            raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded") from None
        return {name: self.read_metric(name) - value for name, value in before.items()}


class ReloadRoute(MessageRoute):
    """Answers when the new models are there, or one of them has failed."""

    __slots__ = ("_administration", "_service")

    def __init__(self, service: ReloadService, administration: Administration, call: wire.Call) -> None:
        super().__init__(call)
        self._service = service
        self._administration = administration

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Begin, if this client may."""
        self._administration.check(exchange)
        request = tfserving.decode_reload_request(body, start)
        self._service.start(request, self.call.timeout_s, partial(self._answer, exchange))

    def _answer(self, exchange: Exchange, task: asyncio.Future[dict[str, int]]) -> None:
        error = task.exception()
        if error is None:
            self.send(exchange, tfserving.encode_reload_response(task.result()))
        elif isinstance(error, ServingError):
            self.fail(exchange, error)
        else:
            log.error("a new list of models could not be applied", exc_info=error)
            self.fail(exchange, internal("the server failed; its log says why"))
