"""HandleReloadConfigRequest of TensorFlow Serving's ModelService: a new list of models for a running server, both ways.

What the list says is ``settings``' to understand; here it is a ``ModelServerConfig`` message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servable import protos
from servable.core.errors import Code, ServingError, invalid_argument
from servable.wire.tfserving_model_spec import parse


@dataclass(frozen=True, slots=True)
class ReloadRequest:
    """``config`` is a ``ModelServerConfig`` with a ``model_config_list``. ``metrics`` are names in TensorFlow's form
    (``/tensorflow/serving/request_count``) whose growth the client wants to know.
    """

    config: Any
    metrics: tuple[str, ...] = ()


def decode_reload_request(body: bytes | memoryview, start: int = 0) -> ReloadRequest:
    """Return the request in a ReloadConfigRequest; INVALID_ARGUMENT unless it has a list of models."""
    message = parse(protos.serving.ReloadConfigRequest, body, start)
    if message.config.WhichOneof("config") != "model_config_list":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    return ReloadRequest(message.config, tuple(message.metric_names))


def encode_reload_request(request: ReloadRequest) -> bytes:
    """Return a ReloadConfigRequest."""
    message = protos.serving.ReloadConfigRequest(config=request.config, metric_names=request.metrics)
    return bytes(message.SerializeToString())


def encode_reload_response(increases: Mapping[str, int]) -> bytes:
    """Return the ReloadConfigResponse of a success. ``increases`` says how much each metric grew meanwhile."""
    message = protos.serving.ReloadConfigResponse()
    message.status.SetInParent()
    for name, increase in increases.items():
        message.metric.add(name=name, int64_value_increase=increase)
    return bytes(message.SerializeToString())


def decode_reload_response(body: bytes | memoryview, start: int = 0) -> dict[str, int]:
    """Return how much each metric grew; raises what the server's status says if that is no success."""
    message = parse(protos.serving.ReloadConfigResponse, body, start)
    if message.status.error_code:
        raise ServingError(Code(message.status.error_code), message.status.error_message)
    return {metric.name: metric.int64_value_increase for metric in message.metric}
