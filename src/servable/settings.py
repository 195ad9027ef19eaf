"""The only reader of configuration. Each option of ``servable serve`` is one field of ``ServeSettings``.

The command-line flag, the environment variable (``SERVABLE_`` + the name in capitals), the help text and the
validation derive from that field. A flag wins over the environment, the environment over the default.
Options that TensorFlow Serving has carry its names, units and defaults.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from servable.core.errors import invalid_argument, not_found
from servable.engines.base import EngineOptions
from servable.lifecycle.config import (
    All,
    Latest,
    ManagerOptions,
    ModelConfig,
    Policy,
    Specific,
    Transition,
    resolve_path,
)
from servable.lifecycle.warmup import WarmupOptions
from servable.listeners.http import RestOptions
from servable.protos import serving, text_format
from servable.serving.inference import BatchingOptions
from servable.transport.limits import MIB, Limits

ENVIRONMENT_PREFIX = "SERVABLE_"
DEFAULT_LISTEN = ("127.0.0.1:8500", "127.0.0.1:8501")


def _option(default: Any, help_text: str, *, choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    metadata = {"help": help_text, "choices": choices, "metavar": metavar}
    if isinstance(default, list):
        return field(default_factory=tuple, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Everything that ``servable serve`` can be told."""

    models: tuple[str, ...] = _option([], "[NAME=]PATH of a model directory, a root of many, a version or an artifact")
    listen: tuple[str, ...] = _option(
        [],
        "address to listen on, every wire on each; repeatable; port 0 takes a free one",
        metavar="[HOST:]PORT|unix:PATH",
    )
    host: str = _option("127.0.0.1", "interface for --port and --rest_api_port")
    port: int | None = _option(None, "gRPC port, as TensorFlow Serving's; 0 is off", metavar="PORT")
    rest_api_port: int | None = _option(None, "REST port, as TensorFlow Serving's; 0 is off", metavar="PORT")
    grpc_socket_path: str = _option("", "Unix socket for gRPC, as TensorFlow Serving's", metavar="PATH")
    model_name: str = _option("", "name of the model at --model_base_path (default: default)", metavar="NAME")
    model_base_path: str = _option("", "directory with integer version directories", metavar="PATH")
    model_config_file: str = _option("", "text protobuf ModelServerConfig with one or many models", metavar="FILE")
    engine: str = _option("", "engine for every model instead of the one that correctness chooses", metavar="NAME")
    file_system_poll_wait_seconds: float = _option(1.0, "seconds between scans for versions; 0 scans once", metavar="S")
    max_num_load_retries: int = _option(5, "attempts after a failed load", metavar="N")
    load_retry_interval_micros: int = _option(60_000_000, "pause between these attempts", metavar="US")
    version_transition: str = _option(
        "availability_preserving",
        "load the new version before the old one goes, or after",
        choices=(
            "availability_preserving",
            "resource_preserving",
        ),
    )
    startup_timeout_s: float = _option(
        0.0, "fail if not every model is available after so long; 0 waits for ever", metavar="S"
    )
    batching: str = _option(
        "auto",
        "merge rows of different requests where warm-up proved that they are independent",
        choices=("auto", "off"),
    )
    max_batch_rows: int = _option(BatchingOptions().max_rows, "rows of a merged batch at most", metavar="N")
    max_queued_requests: int = _option(
        BatchingOptions().max_queued, "requests a version may have waiting; more are refused UNAVAILABLE", metavar="N"
    )
    enable_model_warmup: bool = _option(True, "run each signature on invented rows before it becomes available")
    tensorflow_intra_op_parallelism: int = _option(
        0, "threads within an operation, any engine; 0 asks the CPU quota", metavar="N"
    )
    tensorflow_inter_op_parallelism: int = _option(
        0, "threads between operations; 0 lets the engine choose", metavar="N"
    )
    saved_model_tags: str = _option("serve", "comma-separated tags of the graph in a SavedModel", metavar="TAGS")
    rest_api_timeout_in_ms: int = _option(30_000, "time a REST request may take; 0 or less is unlimited", metavar="MS")
    max_body: int = _option(Limits().max_body // MIB, "largest request accepted, in MiB", metavar="MIB")
    drain_timeout_s: float = _option(30.0, "how long SIGTERM waits for requests in work", metavar="S")
    log_level: str = _option("info", "least severe log lines shown", choices=("debug", "info", "warning", "error"))
    log_format: str = _option(
        "auto",
        "console for people, json for machines; auto asks whether stderr is a terminal",
        choices=("auto", "console", "json"),
    )

    def batching_options(self) -> BatchingOptions:
        """Return the request path's part."""
        return BatchingOptions(mode=self.batching, max_rows=self.max_batch_rows, max_queued=self.max_queued_requests)

    def warmup_options(self) -> WarmupOptions:
        """Return the warm-up's part."""
        return WarmupOptions(enabled=self.enable_model_warmup, batch_rows=self.max_batch_rows)

    def limits(self) -> Limits:
        """Return the transport's part."""
        return Limits(max_body=self.max_body * MIB)

    def manager_options(self) -> ManagerOptions:
        """Return the lifecycle's part."""
        return ManagerOptions(
            poll_s=self.file_system_poll_wait_seconds,
            max_load_retries=self.max_num_load_retries,
            load_retry_interval_s=self.load_retry_interval_micros / 1e6,
            transition=Transition(self.version_transition),
            drain_timeout_s=self.drain_timeout_s,
        )

    def engine_options(self) -> EngineOptions:
        """Return the engines' part."""
        return EngineOptions(
            intra_op_threads=self.tensorflow_intra_op_parallelism,
            inter_op_threads=self.tensorflow_inter_op_parallelism,
            saved_model_tags=tuple(self.saved_model_tags.split(",")),
        )

    def rest_options(self) -> RestOptions:
        """Return the REST listener's part."""
        timeout_ms = self.rest_api_timeout_in_ms
        return RestOptions(timeout_s=timeout_ms / 1000 if timeout_ms > 0 else None)

    def model_configs(self) -> list[ModelConfig]:
        """Read and check what is to be served; errors name the file, the line and the field, or the path."""
        configs = list(_configured_models(self))
        names = [config.name for config in configs]
        for name in names:
            if names.count(name) > 1:
                raise invalid_argument(f"two models are called {name!r}; give one of them another name with NAME=PATH")
        return configs


def option_fields() -> list[Field[Any]]:
    """Return the declared options, for flags and documentation."""
    return [item for item in fields(ServeSettings) if item.name != "models"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each option. Flags that were not given leave no trace in the namespace."""
    parser.add_argument("models", nargs="*", metavar="[NAME=]PATH", help=_models_field().metadata["help"])
    for item in option_fields():
        kind = _kind(item)
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": _help(item)}
        if kind is bool:
            options |= {"type": _boolean, "metavar": "true|false"}
        elif item.metadata["choices"]:
            options |= {"choices": item.metadata["choices"]}
        else:
            options |= {"type": kind, "metavar": item.metadata["metavar"] or "VALUE"}
            if item.default_factory is not MISSING:
                options |= {"action": "append"}
        parser.add_argument(f"--{item.name}", **options)


def spell_out(words: Sequence[str]) -> list[str]:
    """Return the command line with ``--flag=true`` for a bare ``--flag``: a word that follows is not its value."""
    bare = {f"--{item.name}" for item in option_fields() if _kind(item) is bool}
    return [f"{word}=true" if word in bare else word for word in words]


def read_settings(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> ServeSettings:
    """Return the settings from parsed flags and the environment; INVALID_ARGUMENT names the variable that is wrong."""
    values: dict[str, Any] = {}
    for item in option_fields():
        text = environment.get(ENVIRONMENT_PREFIX + item.name.upper())
        if text is not None:
            values[item.name] = _from_text(item, text)
    for item in fields(ServeSettings):
        if item.name in given:
            value = given[item.name]
            values[item.name] = tuple(value) if isinstance(value, list) else value
    return ServeSettings(**values)


def _from_text(item: Field[Any], text: str) -> Any:
    kind = _kind(item)
    variable = ENVIRONMENT_PREFIX + item.name.upper()
    try:
        if item.default_factory is not MISSING:
            return tuple(part for part in text.split(",") if part)
        value = _boolean(text) if kind is bool else kind(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise invalid_argument(f"the environment variable {variable} is {text!r}: {error}") from None
    choices = item.metadata["choices"]
    if choices and value not in choices:
        raise invalid_argument(f"the environment variable {variable} is {text!r}; expected one of {', '.join(choices)}")
    return value


def _kind(item: Field[Any]) -> Any:
    declared = str(item.type)
    return next(
        kind for name, kind in (("bool", bool), ("int", int), ("float", float), ("str", str)) if name in declared
    )


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "1"}:
        return True
    if text.lower() in {"false", "0"}:
        return False
    raise argparse.ArgumentTypeError(f"expected true, false, 1 or 0, not {text!r}")


def option_default(item: Field[Any]) -> str:
    """Return the default of an option as one would write it; "" if it has none."""
    if item.default in (MISSING, None, ""):
        return ""
    return str(item.default).lower() if isinstance(item.default, bool) else str(item.default)


def _help(item: Field[Any]) -> str:
    default = option_default(item)
    return f"{item.metadata['help']} (default: {default})" if default else str(item.metadata["help"])


def _models_field() -> Field[Any]:
    return next(item for item in fields(ServeSettings) if item.name == "models")


def _configured_models(settings: ServeSettings) -> Sequence[ModelConfig]:
    engine = settings.engine or None
    if settings.model_config_file:
        configs = read_model_config_file(Path(settings.model_config_file))
    elif settings.model_base_path:
        name = settings.model_name or "default"
        configs = [ModelConfig(name=name, base_path=Path(settings.model_base_path))]
    else:
        configs = []
    for text in settings.models:
        name, separator, path = text.partition("=")
        configs += resolve_path(Path(path), name) if separator else resolve_path(Path(text))
    return [replace(config, engine=engine, options=settings.engine_options()) for config in configs]


def read_model_config_file(path: Path) -> list[ModelConfig]:
    """Return the models of a text ``ModelServerConfig``, TensorFlow Serving's ``--model_config_file``."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise not_found(f"cannot read the model configuration {path}: {error.strerror}") from None
    try:
        message = text_format.parse(text, serving.ModelServerConfig, source=str(path))
    except ValueError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from None
    if message.WhichOneof("config") == "custom_model_config":
        raise invalid_argument(f"{path}: custom_model_config is not supported; use model_config_list")
    return [_model_config(path, config) for config in message.model_config_list.config]


def _model_config(path: Path, config: Any) -> ModelConfig:
    if not config.name:
        raise invalid_argument(f"{path}: a model has no name")
    if not config.base_path.startswith("/"):
        raise invalid_argument(
            f"Expected model {config.name} to have an absolute path or URI; got base_path()={config.base_path}"
        )
    if config.model_platform not in {"", "tensorflow"}:
        raise invalid_argument(f"Model {config.name} requests unsupported platform {config.model_platform}")
    return ModelConfig(
        name=config.name,
        base_path=Path(config.base_path),
        policy=_policy(config.model_version_policy),
        labels=dict(config.version_labels),
    )


def _policy(message: Any) -> Policy:
    choice = message.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(tuple(message.specific.versions))
    return Latest(max(1, message.latest.num_versions))
