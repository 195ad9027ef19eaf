"""Models named on a command line, and TensorFlow Serving's file of models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from servable.core.errors import invalid_argument, not_found
from servable.lifecycle.config import All, Latest, ModelConfig, Policy, Specific, resolve_path
from servable.protos import serving, text_format


def named_models(words: Iterable[str]) -> list[ModelConfig]:
    """Return the models that words ``[NAME=]PATH`` stand for."""
    configs: list[ModelConfig] = []
    for text in words:
        name, separator, path = text.partition("=")
        configs += resolve_path(Path(path), name) if separator else resolve_path(Path(text))
    return configs


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
