"""What each port offers: the services and pages of one server, before whoever may ask for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from servable.app.addresses import EVERY_WIRE, Place
from servable.lifecycle.manager import Manager
from servable.listeners.examples import Examples
from servable.listeners.grpc import GrpcApplication
from servable.listeners.grpc_examples import ExampleService
from servable.listeners.grpc_health import HealthService
from servable.listeners.grpc_profiler import ProfilerService
from servable.listeners.grpc_reflection import ReflectionService
from servable.listeners.grpc_reload import ReloadService
from servable.listeners.grpc_streams import Streams
from servable.listeners.guard import GuardedApplication
from servable.listeners.http import HttpApplication
from servable.listeners.keys import Administration, ApiKeys
from servable.listeners.ports import PortApplication
from servable.listeners.predict_streamed import PredictStreamedService
from servable.observe.metrics import Metrics
from servable.serving.inference import Inference
from servable.settings import ServeSettings
from servable.transport.exchange import Route
from servable.wire.grpc import Call

Methods = Mapping[bytes, Callable[[Call], Route]]


class Offers:
    """The applications of all ports. ``keys`` are wanted on TCP ports, if there are any."""

    def __init__(
        self,
        settings: ServeSettings,
        inference: Inference,
        manager: Manager,
        metrics: Metrics,
        health: HealthService,
        streams: Streams,
        reload: Callable[[Any], Awaitable[None]],
        is_ready: Callable[[], bool],
        keys: ApiKeys | None,
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._manager = manager
        self._metrics = metrics
        self._health = health
        self._streams = streams
        self._is_ready = is_ready
        self._keys = keys
        self._profiler = ProfilerService(manager, metrics.path)
        self._reload = ReloadService(reload, metrics.first_value)
        check_method = settings.enable_signature_method_name_check
        self._examples = Examples(inference, manager, check_method=check_method)
        self._check = self._examples.check_predict if check_method else None

    def application(self, place: Place) -> PortApplication | GuardedApplication:
        """Return what is offered at a place. A Unix socket wants no key: who may open its file is known already."""
        keys = None if place.is_socket else self._keys
        open_to_operators = place.is_operators or not self._settings.admin_listen
        administration = Administration(keys, is_open=place.is_operators) if open_to_operators else None
        grpc = self._grpc(administration) if "h2" in place.wires else None
        http = None
        if place.wires == EVERY_WIRE or "h1" in place.wires:
            http = self._http(operator_pages=open_to_operators)
        inner = PortApplication(grpc, http)
        return inner if keys is None else GuardedApplication(inner, keys)

    def _grpc(self, administration: Administration | None) -> GrpcApplication:
        meter = self._metrics.meter("grpc", "Predict")
        tensor_content = self._settings.enable_serialization_as_tensor_content
        streamed = PredictStreamedService(self._inference, meter, tensor_content=tensor_content, check=self._check)
        reflection = ReflectionService(self._streams, lambda: found.services())  # noqa: PLW0108  # made below
        more: Methods = {
            **self._health.routes(),
            **reflection.routes(),
            **ExampleService(self._examples, self._metrics).routes(),
            **streamed.routes(self._streams),
            **({} if administration is None else self._operators(administration)),
        }
        found = GrpcApplication(
            self._inference,
            self._manager,
            meter,
            more,
            self._settings.reply_compression(),
            tensor_content=tensor_content,
            check=self._check,
        )
        return found

    def _operators(self, administration: Administration) -> Methods:
        """Return what is for those who run the server."""
        methods = dict(self._reload.routes(administration))
        if self._settings.enable_profiler:
            methods |= self._profiler.routes(self._streams)
        return methods

    def _http(self, *, operator_pages: bool) -> HttpApplication:
        return HttpApplication(
            self._inference,
            self._manager,
            self._metrics,
            self._is_ready,
            self._settings.rest_options(),
            self._examples,
            operator_pages=operator_pages,
        )
