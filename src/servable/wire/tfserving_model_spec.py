"""What the messages of all TensorFlow Serving's gRPC methods share: how they are parsed, and which model they name."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from servable import protos
from servable.core.errors import internal, invalid_argument
from servable.core.messages import ModelRef


def parse(message_class: Any, body: bytes | memoryview, start: int = 0) -> Any:
    """Return the message at ``body[start:]``; INTERNAL, gRPC's code for it, if the bytes are not such a message."""
    try:
        return message_class.FromString(memoryview(body)[start:] if start else body)
    except DecodeError:
        name = message_class.DESCRIPTOR.full_name
        raise internal(f"the {len(body) - start} bytes received are not a {name} message") from None


def decode_model_spec(message: Any) -> tuple[ModelRef, str]:
    """Return model and signature of a request that has a ``model_spec``; INVALID_ARGUMENT if that or its name lacks."""
    if not message.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = message.model_spec
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    return model_ref(spec), spec.signature_name


def addressed_models(body: bytes | memoryview, start: int = 0, *, tasks: bool = False) -> list[str]:
    """Return the names of the models that a request is about, whatever else it holds.

    ``tasks``: it is a MultiInferenceRequest, which has a model in each of its tasks.
    """
    if tasks:
        message = parse(protos.serving_internal.SerializedMultiInferenceRequest, body, start)
        return [task.model_spec.name for task in message.tasks]
    return [parse(protos.serving_internal.Addressed, body, start).model_spec.name]


def model_ref(spec: Any) -> ModelRef:
    """Return the model that a ModelSpec names. Version 0 is a version; a label may be empty."""
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return ModelRef(spec.name, spec.version.value)
    if choice == "version_label":
        return ModelRef(spec.name, None, spec.version_label)
    return ModelRef(spec.name)


def model_spec(model: ModelRef, signature: str = "") -> Any:
    """Return the ModelSpec of a model; a version goes before a label."""
    spec = protos.serving.ModelSpec(name=model.name, signature_name=signature)
    if model.version is not None:
        spec.version.value = model.version
    elif model.label is not None:
        spec.version_label = model.label
    return spec
