"""Models named on a command line, and TensorFlow Serving's ``ModelServerConfig``, from a file or a reload by RPC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servable import protos
from servable.core.errors import ServingError, invalid_argument
from servable.lifecycle.config import All, Latest, ModelConfig, Policy, Specific, resolve_path
from servable.observe.log_options import RequestLogOptions
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.canary import CanaryOptions
from servable.settings.config_fields import MODEL_SERVER, idle_reason
from servable.settings.text_files import TextMessage, read_text_message

LIST = ("model_config_list", 0, "config")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One configured model: what the lifecycle must know of it, and how its requests are batched and logged.

    ``batching`` ``None`` leaves it to the options for all models; ``request_log`` ``None`` logs nothing; ``canary``
    ``None`` tries nothing.
    """

    config: ModelConfig
    batching: BatchingParameters | None = None
    request_log: RequestLogOptions | None = None
    canary: CanaryOptions | None = None

    @property
    def name(self) -> str:
        """Return what clients call it."""
        return self.config.name


def named_models(words: Iterable[str]) -> list[ServedModel]:
    """Return the models that words ``[NAME=]PATH`` stand for."""
    configs: list[ModelConfig] = []
    for text in words:
        name, separator, path = text.partition("=")
        configs += resolve_path(Path(path), name) if separator else resolve_path(Path(text))
    return [ServedModel(config) for config in configs]


def read_model_config_file(path: Path) -> list[ServedModel]:
    """Return the models of a text ``ModelServerConfig``, TensorFlow Serving's ``--model_config_file``."""
    return models_of(read_text_message(path, protos.serving.ModelServerConfig))


def models_of(found: TextMessage) -> list[ServedModel]:
    """Return the models of a ``ModelServerConfig``. Errors have TensorFlow Serving's words, and the place in the file.

    One that holds no list at all is an empty one.
    """
    message = found.message
    if message.WhichOneof("config") == "custom_model_config":
        raise found.wrong("custom_model_config is not supported; use model_config_list", "custom_model_config", 0)
    models = [_served_model(found, index) for index in range(len(message.model_config_list.config))]
    seen: set[str] = set()
    for index, model in enumerate(models):
        if model.name in seen:
            error = f"Illegal to list model {model.name} multiple times in config list"
            raise found.wrong(error, *LIST, index, "name", 0)
        seen.add(model.name)
    return models


def idle_fields(path: Path) -> list[str]:
    """Return a line for each field of a file of models that was given and changes nothing."""
    found = read_text_message(path, protos.serving.ModelServerConfig)
    reason = idle_reason(MODEL_SERVER["SamplingConfig.attributes"])
    return [
        f"{found.source}:{place}: attributes: accepted, no effect because {reason}"
        for field_path, place in found.places.items()
        if field_path[-2] == "attributes"
    ]


def _served_model(found: TextMessage, index: int) -> ServedModel:
    config = found.message.model_config_list.config[index]
    here = (*LIST, index)
    if not config.name:
        raise found.wrong("a model has no name: add name: '...'", *here)
    base_path = _base_path(found, config, (*here, "base_path", 0))
    _check_platform(found, config, here)
    for label, version in config.version_labels.items():
        if not label or version < 0:
            raise found.wrong(f"label {label!r} of model {config.name} names version {version}", *here)
    return ServedModel(
        ModelConfig(
            name=config.name,
            base_path=base_path,
            policy=_policy(found, config.model_version_policy, here),
            labels=dict(config.version_labels),
        ),
        request_log=_request_log(found, config, (*here, "logging_config", 0)),
    )


def _base_path(found: TextMessage, config: Any, here: tuple[str | int, ...]) -> Path:
    path: str = config.base_path
    scheme, is_uri, rest = path.partition("://")
    if is_uri and scheme == "file" and rest.startswith("/"):
        return Path(rest)
    if is_uri and scheme.isalnum():
        raise found.wrong(
            f"model {config.name}: there is no file system for {scheme}://; mount the bucket and name its directory",
            *here,
        )
    if not path.startswith("/"):
        error = f"Expected model {config.name} to have an absolute path or URI; got base_path()={path}"
        raise found.wrong(error, *here)
    return Path(path)


def _check_platform(found: TextMessage, config: Any, here: tuple[str | int, ...]) -> None:
    """A model without a platform is one for us: which engine runs it is read from its files."""
    if config.model_type and config.model_platform:
        raise found.wrong(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform, "
            f"model name is {config.name}",
            *here, "model_platform", 0,
        )  # fmt: skip
    if config.model_type not in {0, protos.serving.ModelType.TENSORFLOW}:
        error = f"Model {config.name} requests unsupported platform OTHER; it can be TENSORFLOW"
        raise found.wrong(error, *here, "model_type", 0)
    if config.model_platform not in {"", "tensorflow"}:
        error = f"Model {config.name} requests unsupported platform {config.model_platform}; it can be 'tensorflow'"
        raise found.wrong(error, *here, "model_platform", 0)


def _policy(found: TextMessage, message: Any, here: tuple[str | int, ...]) -> Policy:
    choice = message.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        versions = tuple(message.specific.versions)
        if any(version < 0 for version in versions):
            raise found.wrong(
                f"versions are not negative; {min(versions)} is", *here, "model_version_policy", 0, "specific", 0
            )
        return Specific(versions)
    return Latest(max(1, message.latest.num_versions))


def _request_log(found: TextMessage, config: Any, here: tuple[str | int, ...]) -> RequestLogOptions | None:
    if not config.HasField("logging_config"):
        return None
    logging = config.logging_config
    if logging.HasField("custom_logging_config"):
        error = f"model {config.name}: custom_logging_config is not supported; use log_collector_config"
        raise found.wrong(error, *here, "custom_logging_config", 0)
    collector, sampling = logging.log_collector_config, logging.sampling_config
    rate = sampling.sampling_rate
    for task in sampling.per_task_sampling_configs:
        if not task.dc and not task.HasField("task_index"):  # the first that fits this task; others name other ones
            rate = task.sampling_rate
            break
    try:
        return RequestLogOptions(collector.filename_prefix, rate, collector.type or "tfrecord")
    except ServingError as error:
        raise ServingError(error.code, f"{found.place(*here)}model {config.name}: {error.message}") from None


def together(*sources: Iterable[ServedModel]) -> list[ServedModel]:
    """Return the models of all sources. INVALID_ARGUMENT if two have one name."""
    found: dict[str, ServedModel] = {}
    for model in (model for source in sources for model in source):
        if model.name in found:
            raise invalid_argument(
                f"two models are called {model.name!r}; give one of them another name with NAME=PATH"
            )
        found[model.name] = model
    return list(found.values())
