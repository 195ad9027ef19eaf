"""What each part of the server gets of the options, and of the files that they name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from servable.core.errors import invalid_argument
from servable.engines.base import EngineOptions
from servable.lifecycle.config import ManagerOptions, ModelConfig, Transition
from servable.lifecycle.warmup import WarmupOptions
from servable.listeners.http_replies import RestOptions
from servable.listeners.keys import Grant
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.plans import BatchingOptions
from servable.settings.api_keys import read_api_keys
from servable.settings.batching import POOL_WITHOUT_FILE, BatchingChoice, read_batching_parameters
from servable.settings.channel_arguments import channel_arguments
from servable.settings.models import ServedModel, idle_fields, models_of, named_models, read_model_config_file, together
from servable.settings.options import ServeOptions
from servable.settings.text_files import TextMessage
from servable.settings.tfserving_files import (
    Platform,
    SessionConfig,
    read_monitoring_path,
    read_platform_config,
    read_session_config,
    read_ssl_config,
)
from servable.settings.tfserving_flags import IDLE, idle_line
from servable.transport.limits import MIB, Limits
from servable.transport.tls import TlsOptions


@dataclass(frozen=True, slots=True)
class ServeSettings(ServeOptions):
    """The options of one server. Each method reads what it needs and raises ``ServingError`` with what is wrong."""

    # -- what requests meet ---------------------------------------------------------------------------------------

    def batching_options(self) -> BatchingOptions:
        """Return the request path's part."""
        return BatchingOptions(
            mode=self.batching,
            max_rows=self.max_batch_rows,
            max_queued=self.max_queued_requests,
            parameters=self.batching_choice().for_all,
        )

    def batching_choice(self) -> BatchingChoice:
        """Return which of TensorFlow Serving's batching parameters hold for which version."""
        if self.platform_config_file:
            platform = self._platform()
            return BatchingChoice(platform.batching, platform.per_version_batching)
        if self.batching_parameters_file:
            if not self.enable_batching:
                raise invalid_argument(
                    "--batching_parameters_file is given without --enable_batching: add --enable_batching, or leave "
                    "the file out"
                )
            found = read_batching_parameters(Path(self.batching_parameters_file))
        elif self.batching_table is not None:
            found = self.batching_table
        elif self.enable_batching:
            found = BatchingParameters(thread_pool_name=POOL_WITHOUT_FILE)
        else:
            return BatchingChoice()
        return BatchingChoice(found, self.enable_per_model_batching_parameters)

    def warmup_options(self) -> WarmupOptions:
        """Return the warm-up's part."""
        enabled, iterations = self.enable_model_warmup, self.num_request_iterations_for_warmup
        if self.platform_config_file:
            platform = self._platform()
            enabled, iterations = platform.enable_model_warmup, platform.warmup_iterations
        return WarmupOptions(enabled=enabled, batch_rows=self.max_batch_rows, iterations=max(1, iterations))

    def rest_options(self) -> RestOptions:
        """Return the REST listener's part."""
        timeout_ms = self.rest_api_timeout_in_ms
        return RestOptions(
            timeout_s=timeout_ms / 1000 if timeout_ms > 0 else None,
            cors=self.rest_api_enable_cors_support,
            gzip_bytes=self.rest_api_gzip_bytes,
            metrics_path=self.metrics_path(),
        )

    def reply_compression(self) -> bytes | None:
        """Return the encoding of replies over gRPC, for clients that accept it."""
        return None if self.grpc_compression == "off" else self.grpc_compression.encode()

    def metrics_path(self) -> str:
        """Return where the REST ports show metrics in TensorFlow Serving's names; "" is nowhere."""
        if self.monitoring_config_file:
            return read_monitoring_path(Path(self.monitoring_config_file))
        if self.monitoring_path and not self.monitoring_path.startswith("/"):
            raise invalid_argument(f"monitoring_path: expected one that begins with /, not {self.monitoring_path!r}")
        return self.monitoring_path

    # -- connections ----------------------------------------------------------------------------------------------

    def limits(self) -> Limits:
        """Return the transport's part."""
        limits = Limits(
            max_body=self.max_body * MIB,
            max_connection_age_s=self.max_connection_age_s or float("inf"),
            max_connection_age_grace_s=self.max_connection_age_grace_s,
            keepalive_interval_s=self.keepalive_interval_s,
            min_ping_interval_s=self.min_ping_interval_s,
            min_ping_interval_idle_s=self.min_ping_interval_s,
        )
        return replace(limits, **channel_arguments(self.grpc_channel_arguments).limits)

    def tls_options(self) -> TlsOptions | None:
        """Return the transport's part for TCP ports, ``None`` if they are plain. INVALID_ARGUMENT if it is half."""
        given = (self.tls_certificate, self.tls_key, self.tls_client_ca, self.tls_client_auth)
        plain = given == ("", "", "", "none")
        if self.ssl_config_file:
            if not plain:
                raise invalid_argument("--ssl_config_file and --tls_... say the same in two ways: give one of them")
            return read_ssl_config(Path(self.ssl_config_file))[0]
        return None if plain else TlsOptions(*given)

    def api_keys(self) -> dict[bytes, Grant]:
        """Return what each API key is good for, by its digest."""
        return read_api_keys(Path(self.api_keys_file))

    def opens_at_once(self) -> bool:
        """Return whether ports open before the models are loaded."""
        if self.startup == "auto":
            tf_ports = self.port is not None or self.rest_api_port is not None or self.grpc_socket_path != ""
            return bool(self.listen) or not tf_ports
        return self.startup == "open"

    # -- models ---------------------------------------------------------------------------------------------------

    def manager_options(self) -> ManagerOptions:
        """Return the lifecycle's part."""
        return ManagerOptions(
            poll_s=self.file_system_poll_wait_seconds,
            max_load_retries=self.max_num_load_retries,
            load_retry_interval_s=self.load_retry_interval_micros / 1e6,
            load_threads=self.num_load_threads,
            unload_threads=max(1, self.num_unload_threads),
            transition=Transition(self.version_transition),
            drain_timeout_s=self.drain_timeout_s,
            labels_before_versions=self.allow_version_labels_for_unavailable_models,
        )

    def engine_options(self) -> EngineOptions:
        """Return the engines' part."""
        intra, inter, both = (
            self.tensorflow_intra_op_parallelism,
            self.tensorflow_inter_op_parallelism,
            self.tensorflow_session_parallelism,
        )
        if intra and inter and both:
            raise invalid_argument(
                "--tensorflow_session_parallelism sets both of --tensorflow_intra_op_parallelism and "
                "--tensorflow_inter_op_parallelism: give it, or these two"
            )
        tags = self.saved_model_tags.split(",")
        if self.platform_config_file:
            platform = self._platform()
            session, tags = platform.session, list(platform.saved_model_tags)
            intra, inter = session.intra_op_threads, session.inter_op_threads
        else:
            session = self._session()
            intra = intra or both or session.intra_op_threads
            inter = inter or both or session.inter_op_threads
        return EngineOptions(
            intra_op_threads=intra,
            inter_op_threads=inter,
            plan=self.plan,
            saved_model_tags=tuple(tags),
            child_timeout_s=self.child_timeout_s,
            child_memory_mb=self.child_memory_mb,
        )

    def served_models(self) -> list[ServedModel]:
        """Read and check what is to be served; errors name the file, the line and the field, or the path."""
        return together(self.file_models(), self.named_models())

    def file_models(self) -> list[ServedModel]:
        """Return the models of ``--model_config_file`` as it is now."""
        name = self.model_config_file
        return self._completed(read_model_config_file(Path(name)), frozenset()) if name else []

    def named_models(self) -> list[ServedModel]:
        """Return the models of the file of settings and those that the command line names."""
        typed = named_models(self.models)
        if self.model_base_path and not self.model_config_file:
            config = ModelConfig(
                self.model_name or "default", Path(self.model_base_path), options=EngineOptions(allow_python=True)
            )
            typed = [ServedModel(config), *typed]
        trusted = frozenset(model.name for model in typed)
        return together(self._completed(self.tables, frozenset()), self._completed(typed, trusted))

    def reloaded_models(self, config: Any) -> list[ServedModel]:
        """Return the models of a ``ModelServerConfig`` message that came by RPC: the whole set, none of ours beside."""
        return self._completed(models_of(TextMessage(config)), frozenset())

    def model_configs(self) -> list[ModelConfig]:
        """Return what the lifecycle must know of the models."""
        return [model.config for model in self.served_models()]

    def _completed(self, models: Iterable[ServedModel], trusted: frozenset[str]) -> list[ServedModel]:
        """Give models the options of the server. One that a person typed for this start may run Python."""
        shared = self.engine_options()
        completed = []
        for model in models:
            config = model.config
            allowed = self.allow_python or (model.name in trusted and config.options.allow_python)
            options = replace(shared, allow_python=allowed)
            config = replace(config, engine=self.engine or config.engine, options=options)
            completed.append(replace(model, config=config))
        return completed

    # -- what is accepted and changes nothing -----------------------------------------------------------------------

    def idle_lines(self) -> list[str]:
        """Return a line for each flag of TensorFlow Serving, and each field of its files, that has no effect here."""
        lines = [idle_line(name) for name in dict.fromkeys(self.without_effect) if not IDLE[name].refused]
        lines += channel_arguments(self.grpc_channel_arguments).idle
        if self.model_config_file:
            lines += idle_fields(Path(self.model_config_file))
        if self.ssl_config_file:
            lines += read_ssl_config(Path(self.ssl_config_file))[1]
        if self.platform_config_file:
            platform = self._platform()
            lines += [*platform.idle, *platform.session.idle]
        else:
            lines += self._session().idle
        return lines

    def _platform(self) -> Platform:
        return read_platform_config(Path(self.platform_config_file))

    def _session(self) -> SessionConfig:
        name = self.tensorflow_session_config_file
        return read_session_config(Path(name)) if name else SessionConfig()
