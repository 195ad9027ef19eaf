"""The composition root: builds one server from settings, runs it, and takes it down without losing a request."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from servable.app.addresses import listen_addresses
from servable.app.counted import load_counted, warm_up_counted
from servable.app.offers import Offers
from servable.app.recorded import record_encoder
from servable.core.errors import ServingError, invalid_argument
from servable.core.status import VersionStatus
from servable.engines.base import AUTO_PLAN, NO_PLAN
from servable.lifecycle.arrival import await_models
from servable.lifecycle.manager import LoadedVersion, Manager
from servable.lifecycle.reload import Reload
from servable.lifecycle.warmup import warm_up
from servable.listeners.access import WatchedApplication
from servable.listeners.grpc_health import HealthService
from servable.listeners.grpc_streams import Streams
from servable.listeners.guard import GuardedApplication
from servable.listeners.keys import ApiKeys
from servable.listeners.ports import PortApplication
from servable.observe.access_log import AccessLog, open_access_log
from servable.observe.metrics import Metrics
from servable.observe.request_log import RequestLogs
from servable.serving.inference import Executor, Inference
from servable.settings import ServedModel, ServeSettings, together
from servable.transport.exchange import Application
from servable.transport.ledger import Ledger
from servable.transport.listen import Address, Listener
from servable.transport.tls_files import ServerTls
from servable.wire import tfserving_grpc as tfserving

log = logging.getLogger("servable.app")

SWITCH_INTERVAL_S = 0.0005
RELOADED_WITHIN_S = 600.0
"""How long a client that reloads the configuration may wait for new models."""


class Server:
    """One model server on the running event loop.

    ``await start()`` takes the ports and begins to load; ``await ready()`` waits for the models; ``await stop()``
    drains. Models may come and go in between. Ports open in ``start`` or at the end of ``ready``, as the settings say.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.models: dict[str, ServedModel] = {}
        """What is configured now, by name."""
        self.listeners: list[Listener] = []
        self._loop = asyncio.get_running_loop()
        self.metrics = Metrics(self._statuses, self._is_configured)
        self.manager = Manager(
            settings.manager_options(),
            prepare=self._prepare,
            retire=Inference.retire,
            load=partial(load_counted, self.metrics.tfserving.loads),
            loop=self._loop,
        )
        self.inference = Inference(self.manager, settings.batching_options(), self.metrics, self._loop)
        self._lag = self.metrics.loop_lag(self._loop)
        self._batching = settings.batching_choice()
        self._request_logs = RequestLogs(
            partial(record_encoder, tuple(settings.saved_model_tags.split(","))), self.metrics.logged
        )
        self._access_log: AccessLog | None = None
        self._tls: ServerTls | None = None
        self._keys: ApiKeys | None = None
        self._watches: list[asyncio.Future[None]] = []
        self._on_open: Callable[[Server], None] = lambda _server: None
        self._is_open = False
        self._stopping = False
        services = (tfserving.PREDICTION_SERVICE, tfserving.MODEL_SERVICE)
        self.health = HealthService(self.is_ready, services, self._loop)
        self.streams = Streams()

    def _prepare(self, loaded: LoadedVersion) -> Executor:
        """Warm a version up, in its loader thread, before it becomes available."""
        served = self.models.get(loaded.name)
        parameters = self._batching.parameters(served.batching if served else None, loaded.path)
        options = self.settings.warmup_options()
        if parameters is not None:
            options = replace(options, sizes=parameters.allowed_batch_sizes)
        model = loaded.model.calling(self.inference.calls_for(loaded))
        profiles = warm_up(model, options)
        for name, profile in profiles.items():
            log.debug("%s/%s %s: %s; %s", loaded.name, loaded.version, name, profile.reason, profile.costs)
        executor = self.inference.prepare(loaded, profiles, parameters)
        if options.enabled:
            run = partial(self.inference.rehearse, loaded, executor)
            warm_up_counted(self.metrics.tfserving.loads, loaded, run, options.iterations)
        return executor

    def _is_configured(self, name: str) -> bool:
        return name in self.models

    def _statuses(self) -> Iterator[tuple[str, VersionStatus]]:
        for name in self.manager.models():
            for status in self.statuses_of(name):
                yield name, status

    def statuses_of(self, name: str) -> list[VersionStatus]:
        """Return what is known of a model's versions, newest first; nothing if none was seen yet."""
        try:
            return self.manager.statuses(name)
        except ServingError:
            return []

    def is_ready(self) -> bool:
        """Return whether every configured model is loaded and warm, and the server is not going down."""
        return not self._stopping and self.manager.ready()

    async def start(self) -> None:
        """Read the model configuration, take the ports, begin to load. Fails as a whole or not at all."""
        named = self.settings.named_models()
        models = together(self.settings.file_models(), named)
        if not models and not self.settings.model_config_file:
            raise invalid_argument("there is nothing to serve: give a PATH, --model_base_path or --model_config_file")
        self._check_plan(len(models))
        if self.settings.api_keys_file:
            self._keys = ApiKeys(self.settings.api_keys)
        offers = Offers(
            self.settings, self.inference, self.manager, self.metrics, self.health, self.streams, self.reload,
            self.is_ready, self._keys,
        )  # fmt: skip
        limits, tls_options = self.settings.limits(), self.settings.tls_options()
        self._tls = None if tls_options is None else ServerTls(tls_options)
        self._access_log = open_access_log(self.settings.access_log, self.settings.log_format, self.metrics)
        ledger = Ledger(self.metrics.transport_event, report_stall=self.metrics.transport_stall)
        try:
            for place in listen_addresses(self.settings):
                tls = None if place.is_socket else self._tls
                listener = Listener(
                    Address.parse(place.address),
                    self._logged(offers.application(place)),
                    limits,
                    protocols=place.wires,
                    tls=tls,
                    ledger=ledger,
                )
                listener.bind()
                self.listeners.append(listener)
            if self.settings.opens_at_once():
                await self._open()
            else:
                log.info("the ports open when the models are loaded; with --startup=open they open at once")
        except BaseException:
            await self._close_listeners(0.0)
            self._close_access_log()
            raise
        self._watch_files(named)
        self._lag.start()
        self.apply_models(models)
        await self.manager.start()
        # What start-up made lives as long as the server; collecting it again and again would stall the loop.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        # Another thread of this process that runs Python holds the loop up for as long as this.
        sys.setswitchinterval(SWITCH_INTERVAL_S)

    def _check_plan(self, models: int) -> None:
        """Refuse a file that is no plan, or a plan for several models, before anything is loaded."""
        plan = self.settings.plan
        if plan in {AUTO_PLAN, NO_PLAN}:
            return
        if models > 1:
            raise invalid_argument(
                f"--plan={plan} is the plan of one model, and {models} are served: leave plans in the cache, where "
                "--plan=auto finds each one's own"
            )
        from servable.engines.tuned_plan import read_plan

        read_plan(Path(plan))

    def _watch_files(self, named: Sequence[ServedModel]) -> None:
        """Follow the files that may change while it runs. Models that were ``named`` otherwise stay beside a file's."""
        if self._tls is not None:
            self._watches.append(asyncio.ensure_future(self._tls.watch()))
        period_s = self.settings.model_config_file_poll_wait_seconds
        if self.settings.model_config_file and period_s > 0:
            reload = Reload(
                Path(self.settings.model_config_file),
                lambda: together(self.settings.file_models(), named),
                self.apply_models,
                lambda: list(self.models.values()),
            )
            self._watches.append(asyncio.ensure_future(reload.watch(period_s)))

    def apply_models(self, models: Sequence[ServedModel]) -> None:
        """Serve these and no others, wholly or not at all: ``ServingError`` says why nothing has changed.

        Loading goes on after the return. A label cannot be given to a version that is neither available nor on its way,
        unless the settings allow it.
        """
        before, self.models = self.models, {model.name: model for model in models}
        try:
            self.manager.apply([model.config for model in models])
        except ServingError:
            self.models = before
            raise
        logs = {model.name: model.request_log for model in models if model.request_log is not None}
        self.inference.log_to(self._request_logs.follow(logs))
        self.inference.try_out({model.name: model.canary for model in models if model.canary is not None})

    def apply_model_server_config(self, config: Any) -> frozenset[str]:
        """Serve what a ``ModelServerConfig`` message says, as ``apply_models`` does; return the names that are new."""
        before = self.models.keys()
        self.apply_models(self.settings.reloaded_models(config))
        return frozenset(self.models.keys() - before)

    async def reload(self, config: Any) -> None:
        """Serve what a ``ModelServerConfig`` message says; return when the models that are new in it are available."""
        await await_models(self.manager, self.apply_model_server_config(config), RELOADED_WITHIN_S)

    async def ready(self) -> bool:
        """Wait until every model is available or has failed; return whether all are available."""
        timeout_s = self.settings.startup_timeout_s or None
        began = self._loop.time()
        if not self._is_open:
            await self.manager.wait_loaded(timeout_s)
            if self.manager.loaded() or not self.models:
                await self._open()
        if timeout_s is not None:
            timeout_s = max(0.0, began + timeout_s - self._loop.time())
        return await self.manager.wait_ready(timeout_s)

    async def _open(self) -> None:
        """Accept connections, from the first call on. A port that was only bound refuses them."""
        if not self._is_open:
            self._is_open = True
            for listener in self.listeners:
                await listener.start()
            self._on_open(self)

    async def stop(self) -> None:
        """Refuse new work, answer what was accepted, unload. ``drain_timeout_s`` bounds the whole."""
        self._stopping = True
        ends = self._loop.time() + self.settings.drain_timeout_s
        self._lag.stop()
        self.health.close()
        self.streams.close()
        for watch in self._watches:
            watch.cancel()
        await self._close_listeners(self.settings.drain_timeout_s)
        await self.manager.stop(max(0.0, ends - self._loop.time()))
        self._request_logs.close()
        self._close_access_log()

    def reopen_logs(self) -> None:
        """Write on to new files of the same names: the old ones were moved away."""
        if self._access_log is not None:
            self._access_log.reopen()

    def reload_certificates(self) -> None:
        """Read the files of TLS again; bad ones change nothing, as the log says."""
        if self._tls is not None:
            self._loop.run_in_executor(None, self._tls.reload)

    def _hang_up(self) -> None:
        self.reopen_logs()
        self.reload_certificates()
        if self._keys is not None:
            self._keys.reload()

    def _logged(self, application: PortApplication | GuardedApplication) -> Application:
        return application if self._access_log is None else WatchedApplication(application, self._access_log.write)

    def _close_access_log(self) -> None:
        if self._access_log is not None:
            self._access_log.close()
            self._access_log = None

    async def _close_listeners(self, timeout_s: float) -> None:
        for listener in self.listeners:
            listener.stop_accepting()
        await asyncio.gather(*(listener.drain(timeout_s) for listener in self.listeners))
        self.listeners.clear()

    async def run(self, on_listening: Callable[[Server], None], on_ready: Callable[[Server, bool], None]) -> bool:
        """Serve until SIGTERM or SIGINT. Returns false if no model could be loaded at start.

        ``on_listening`` is called once the ports are open, ``on_ready`` once every model is available or has failed.
        """
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, ended.set)
        if self.settings.access_log != "off" or self.settings.tls_options() is not None or self.settings.api_keys_file:
            self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        self._on_open = on_listening
        await self.start()
        try:
            waiting = asyncio.ensure_future(self.ready())
            stopped = asyncio.ensure_future(ended.wait())
            await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                complete = waiting.result()
                on_ready(self, complete)
                if not complete and not self.manager.loaded():
                    return False
                await stopped
            else:
                waiting.cancel()
            log.info("stopping: answering requests in work for at most %g s", self.settings.drain_timeout_s)
        finally:
            await self.stop()
        return True
