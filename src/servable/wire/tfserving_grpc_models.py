"""What TensorFlow Serving's gRPC says about models: GetModelMetadata and GetModelStatus, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from servable import protos
from servable.core.errors import Code, ServingError, internal, invalid_argument
from servable.core.messages import ModelRef
from servable.core.signatures import Shape, Signature, TensorSpec
from servable.core.status import VersionState, VersionStatus
from servable.wire.tensor_bytes import encode_tensor
from servable.wire.tensor_proto import declared_dtype, decode_tensors, number_of
from servable.wire.tfserving_model_spec import decode_model_spec, model_ref, model_spec, parse

SIGNATURE_DEF = "signature_def"


def decode_model_metadata_request(body: bytes | memoryview, start: int = 0) -> ModelRef:
    """Return the model of a GetModelMetadataRequest. It must ask for ``signature_def``, all that there is."""
    message = parse(protos.serving.GetModelMetadataRequest, body, start)
    if not message.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    if not message.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in message.metadata_field:
        if name != SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {name} is not supported")
    return decode_model_spec(message)[0]


def encode_model_metadata_request(model: ModelRef) -> bytes:
    """Return a GetModelMetadataRequest for the signatures of a model."""
    message = protos.serving.GetModelMetadataRequest(model_spec=model_spec(model), metadata_field=[SIGNATURE_DEF])
    return bytes(message.SerializeToString())


def encode_model_metadata_response(model: ModelRef, signatures: Mapping[str, Signature]) -> bytes:
    """Return a GetModelMetadataResponse with every signature; ``model`` has the version that they are of."""
    message = protos.serving.GetModelMetadataResponse(model_spec=model_spec(ModelRef(model.name, model.version)))
    message.metadata[SIGNATURE_DEF].Pack(encode_signatures(signatures))
    return bytes(message.SerializeToString(deterministic=True))


def decode_model_metadata_response(body: bytes | memoryview, start: int = 0) -> tuple[ModelRef, dict[str, Signature]]:
    """Return the model with its version, and its signatures. INTERNAL if the server sent something else."""
    message = parse(protos.serving.GetModelMetadataResponse, body, start)
    if SIGNATURE_DEF not in message.metadata:
        raise internal("the server's reply has no metadata called signature_def")
    found = protos.serving.SignatureDefMap()
    if not message.metadata[SIGNATURE_DEF].Unpack(found):
        raise internal(f"the server's signature_def is a {message.metadata[SIGNATURE_DEF].type_url}")
    return model_ref(message.model_spec), decode_signatures(found)


def encode_signatures(signatures: Mapping[str, Signature]) -> Any:
    """Return a SignatureDefMap. ``TensorSpec.node`` is the tensor's name there; without one, its alias."""
    message = protos.serving.SignatureDefMap()
    for name, signature in signatures.items():
        target = message.signature_def[name]
        target.method_name = signature.method_name
        for specs, infos in ((signature.inputs, target.inputs), (signature.outputs, target.outputs)):
            for alias, spec in specs.items():
                _encode_info(infos[alias], alias, spec)
        for alias, array in signature.defaults.items():
            target.defaults[alias].CopyFrom(encode_tensor(array))
    return message


def decode_signatures(message: Any) -> dict[str, Signature]:
    """Return the signatures of a SignatureDefMap, names sorted; also those that nobody can call."""
    signatures = {}
    for name in sorted(message.signature_def):
        definition = message.signature_def[name]
        try:
            defaults = decode_tensors(definition.defaults)
        except ValueError as failure:
            raise internal(f"signature {name!r} has a default that is no tensor: {failure.args}") from None
        signatures[name] = Signature(
            name, _specs(definition.inputs), _specs(definition.outputs), definition.method_name, defaults
        )
    return signatures


def decode_model_status_request(body: bytes | memoryview, start: int = 0) -> ModelRef:
    """Return the model of a GetModelStatusRequest; without version or label all versions are meant."""
    return decode_model_spec(parse(protos.serving.GetModelStatusRequest, body, start))[0]


def encode_model_status_request(model: ModelRef) -> bytes:
    """Return a GetModelStatusRequest."""
    return bytes(protos.serving.GetModelStatusRequest(model_spec=model_spec(model)).SerializeToString())


def encode_model_status_response(versions: Iterable[VersionStatus]) -> bytes:
    """Return a GetModelStatusResponse, in the order given: TensorFlow Serving lists the newest version first."""
    message = protos.serving.GetModelStatusResponse()
    for version in versions:
        target = message.model_version_status.add(version=version.version, state=int(version.state))
        target.status.SetInParent()
        if version.error is not None:
            target.status.error_code = int(version.error.code)
            target.status.error_message = version.error.message
    return bytes(message.SerializeToString())


def decode_model_status_response(body: bytes | memoryview, start: int = 0) -> tuple[VersionStatus, ...]:
    """Return the versions in the server's order. INTERNAL for a state or code that TensorFlow Serving has not."""
    message = parse(protos.serving.GetModelStatusResponse, body, start)
    return tuple([_decode_version(version) for version in message.model_version_status])


def _decode_version(version: Any) -> VersionStatus:
    try:
        state = VersionState(version.state)
        code = Code(version.status.error_code)
    except ValueError as failure:
        raise internal(f"the server's status of version {version.version}: {failure}") from None
    error = ServingError(code, version.status.error_message) if code else None
    return VersionStatus(version.version, state, error)


def _encode_info(info: Any, alias: str, spec: TensorSpec) -> None:
    info.name = spec.node or alias
    info.dtype = number_of(spec.dtype)
    info.tensor_shape.SetInParent()
    if spec.shape is None:
        info.tensor_shape.unknown_rank = True
        return
    for size in spec.shape:
        info.tensor_shape.dim.add(size=-1 if size is None else size)


def _specs(infos: Any) -> dict[str, TensorSpec]:
    return {
        alias: TensorSpec(alias, declared_dtype(info.dtype), _shape(info.tensor_shape), info.name)
        for alias, info in sorted(infos.items())
    }


def _shape(proto: Any) -> Shape | None:
    if proto.unknown_rank:
        return None
    return tuple([None if dim.size < 0 else dim.size for dim in proto.dim])
