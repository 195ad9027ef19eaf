"""TensorFlow Serving's configuration files as ``servable.toml``, and back; and what of them cannot be said there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from servable import protos
from servable.core.errors import invalid_argument
from servable.lifecycle.config import All, Latest, Policy, Specific
from servable.observe.log_options import RequestLogOptions
from servable.protos import text_format
from servable.serving.batching_parameters import BatchingParameters
from servable.settings.batching import WRAPPED, read_batching_parameters
from servable.settings.file import read_settings_file
from servable.settings.models import ServedModel, models_of
from servable.settings.options import option_fields
from servable.settings.server import ServeSettings
from servable.settings.text_files import first_field, read_text_message
from servable.settings.tfserving_files import (
    MONITORING_PATH,
    SessionConfig,
    read_monitoring_path,
    read_platform_config,
    read_session_config,
    read_ssl_config,
)
from servable.settings.tfserving_flags import MAPPED, WORKING

KINDS = {
    "model_config_file": protos.serving.ModelServerConfig,
    "batching_parameters_file": protos.serving.BatchingParameters,
    "monitoring_config_file": protos.serving.MonitoringConfig,
    "ssl_config_file": protos.serving.SSLConfig,
    "platform_config_file": protos.serving.PlatformConfigMap,
    "tensorflow_session_config_file": protos.tensorflow.ConfigProto,
}
"""The flag that names a file -> what is in it. No two of these messages share a field."""


@dataclass
class Conversion:
    """What a conversion made: files by name, flags that belong to them, and what could not be said."""

    files: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


# -- to servable.toml ---------------------------------------------------------------------------------------------


def to_toml(paths: Iterable[Path], name: str) -> Conversion:
    """Return one ``servable.toml`` called ``name`` that says what these files say. Each kind may come once."""
    made = Conversion()
    options: dict[str, Any] = {}
    batching: BatchingParameters | None = None
    models: list[ServedModel] = []
    for path in paths:
        kind = kind_of(path)
        if kind == "model_config_file":
            found = read_text_message(path, KINDS[kind])
            models += _with_versions(models_of(found), made)
            made.lost += _unsaid_of_logs(found.message.model_config_list.config, str(path))
        elif kind == "batching_parameters_file":
            batching = read_batching_parameters(path)
        elif kind == "monitoring_config_file":
            options["monitoring_path"] = read_monitoring_path(path)
        elif kind == "ssl_config_file":
            made.lost += read_ssl_config(path)[1]
            options[kind] = str(path.absolute())
        elif kind == "platform_config_file":
            platform = read_platform_config(path)
            batching = platform.batching
            options |= {
                "enable_model_warmup": platform.enable_model_warmup,
                "saved_model_tags": ",".join(platform.saved_model_tags),
            }
            if platform.per_version_batching:
                options["enable_per_model_batching_parameters"] = True
            options |= _threads(platform.session)
            made.lost += [*platform.idle, *platform.session.idle]
        else:
            session = read_session_config(path)
            options |= _threads(session)
            made.lost += session.idle
    made.files[name] = _toml(options, batching, models)
    return made


def _with_versions(models: Iterable[ServedModel], made: Conversion) -> list[ServedModel]:
    kept = []
    for model in models:
        if model.config.policy == Specific(()):
            made.lost.append(f"model {model.name}: it serves no version (specific {{ }}), so it is left out")
        else:
            kept.append(model)
    return kept


def kind_of(path: Path) -> str:
    """Return the flag that would name this file, by the first field in it. INVALID_ARGUMENT if no message has it."""
    name = first_field(path)
    for flag, message in KINDS.items():
        if not name or name in message.DESCRIPTOR.fields_by_name:
            return flag
    kinds = ", ".join(message.DESCRIPTOR.name for message in KINDS.values())
    raise invalid_argument(f"{path}: none of {kinds} has a field {name!r}")


def _threads(session: SessionConfig) -> dict[str, int]:
    found = {
        "tensorflow_intra_op_parallelism": session.intra_op_threads,
        "tensorflow_inter_op_parallelism": session.inter_op_threads,
    }
    return {name: count for name, count in found.items() if count}


def _unsaid_of_logs(configs: Iterable[Any], source: str) -> list[str]:
    return [
        f"{source}: model {config.name}: {name} of its sampling_config has no word in servable.toml"
        for config in configs
        for name in ("attributes", "per_task_sampling_configs")
        if getattr(config.logging_config.sampling_config, name)
    ]


def _toml(options: Mapping[str, Any], batching: BatchingParameters | None, models: Iterable[ServedModel]) -> str:
    lines = [f"{name} = {_value(value)}" for name, value in options.items()]
    if batching is not None:
        lines += ["", "[batching]", *(f"{name} = {_value(value)}" for name, value in _given(batching).items())]
    for model in models:
        lines += ["", "[[models]]", *(f"{name} = {_value(value)}" for name, value in _table(model).items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(model: ServedModel) -> dict[str, Any]:
    config = model.config
    found: dict[str, Any] = {"name": config.name, "path": str(config.base_path)}
    if isinstance(config.policy, All):
        found["versions"] = "all"
    elif isinstance(config.policy, Specific):
        found["versions"] = list(config.policy.versions)
    elif config.policy.count > 1:
        found["versions"] = {"latest": config.policy.count}
    if config.labels:
        found["labels"] = dict(config.labels)
    if model.request_log is not None:
        found["request_log"] = _given(model.request_log)
    return found


def _given(value: BatchingParameters | RequestLogOptions) -> dict[str, Any]:
    """Return what differs from the defaults."""
    found = {item.name: getattr(value, item.name) for item in fields(value)}
    return {item.name: found[item.name] for item in fields(value) if found[item.name] != item.default}


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)  # JSON's texts, numbers and truths are TOML's


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


# -- from servable.toml -------------------------------------------------------------------------------------------


def from_toml(path: Path, folder: str) -> Conversion:
    """Return the files of TensorFlow Serving that say what a ``servable.toml`` says, and the flags that name them."""
    settings = ServeSettings(**read_settings_file(path))
    made = Conversion()
    config = protos.serving.ModelServerConfig()
    config.model_config_list.SetInParent()
    own = any(model.batching is not None for model in settings.tables)
    for model in settings.tables:
        # With files in versions, a model without one is not batched at all.
        parameters = model.batching or settings.batching_table if own else None
        _add_model(config, replace(model, batching=parameters), made)
    if settings.tables:
        _add_file(made, folder, "model_config_file", "models.config", config)
    if settings.batching_table is not None:
        _add_file(made, folder, "batching_parameters_file", "batching.config", _batching(settings.batching_table))
        made.flags.append("--enable_batching=true")
    if settings.monitoring_path:
        monitoring = protos.serving.MonitoringConfig()
        monitoring.prometheus_config.enable = True
        if settings.monitoring_path != MONITORING_PATH:
            monitoring.prometheus_config.path = settings.monitoring_path
        _add_file(made, folder, "monitoring_config_file", "monitoring.config", monitoring)
    _add_options(settings, made)
    return made


def _add_file(made: Conversion, folder: str, flag: str, name: str, message: Any) -> None:
    made.files[name] = text_format.to_text(message)
    made.flags.append(f"--{flag}={folder}/{name}")


def _add_options(settings: ServeSettings, made: Conversion) -> None:
    for item in option_fields():
        value = getattr(settings, item.name)
        if value in (item.default, ()) or item.name == "monitoring_path":
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if item.name in WORKING or item.name in MAPPED:
            made.flags.append(f"--{item.name}={text}")
        else:
            made.lost.append(f"{item.name} = {_value(value)}: TensorFlow Serving has nothing like it")


def _add_model(config: Any, model: ServedModel, made: Conversion) -> None:
    known = model.config
    if known.fixed_versions is not None:
        made.lost.append(
            f"model {known.name}: TensorFlow Serving serves directories of versions, not {known.base_path}"
        )
        return
    message = config.model_config_list.config.add(
        name=known.name, base_path=str(known.base_path), model_platform="tensorflow", version_labels=known.labels
    )
    _set_policy(message.model_version_policy, known.policy, message)
    if known.engine is not None:
        made.lost.append(f"model {known.name}: engine = {_value(known.engine)}: TensorFlow Serving has but one")
    if model.batching is not None:
        name = f"{known.name}.batching_params.pbtxt"
        made.files[name] = text_format.to_text(_batching(model.batching))
        made.flags += ["--enable_batching=true", "--enable_per_model_batching_parameters=true"]
        made.lost.append(f"model {known.name}: copy {name} into each of its versions, as batching_params.pbtxt")
    if model.canary is not None:
        made.lost.append(f"model {known.name}: canary: TensorFlow Serving tries no version on a share of the requests")
    if model.request_log is not None:
        _set_log(message.logging_config, model, model.request_log, made)


def _set_policy(message: Any, policy: Policy, config: Any) -> None:
    if isinstance(policy, All):
        message.all.SetInParent()
    elif isinstance(policy, Specific):
        message.specific.versions.extend(policy.versions)
    elif policy != Latest():
        message.latest.num_versions = policy.count
    else:
        config.ClearField("model_version_policy")


def _set_log(message: Any, model: ServedModel, options: RequestLogOptions, made: Conversion) -> None:
    message.log_collector_config.type = options.type
    message.log_collector_config.filename_prefix = options.filename_prefix
    message.sampling_config.sampling_rate = options.sampling_rate
    made.lost += [
        f"model {model.name}: {name} of its request_log: the files of TensorFlow Serving have no field for it"
        for name in ("max_file_bytes", "max_files")
        if name in _given(options)
    ]


def _batching(parameters: BatchingParameters) -> Any:
    message = protos.serving.BatchingParameters(
        allowed_batch_sizes=parameters.allowed_batch_sizes,
        pad_variable_length_inputs=parameters.pad_variable_length_inputs,
    )
    for name, value in _given(parameters).items():
        if name in WRAPPED:
            getattr(message, name).value = value
    return message
