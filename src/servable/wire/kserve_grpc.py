"""The Open Inference Protocol over gRPC as method paths and message bytes: the asking side, without I/O."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from servable import protos
from servable.core.errors import ServingError, internal
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import Array
from servable.wire import kserve_tensors as tensors
from servable.wire.grpc import wrap_message

SERVICE: Final = "inference.GRPCInferenceService"
MODEL_INFER: Final = b"/inference.GRPCInferenceService/ModelInfer"
MODEL_METADATA: Final = b"/inference.GRPCInferenceService/ModelMetadata"


def encode_infer_request(
    request: InferRequest, *, raw: bool = True, request_id: str = "", framed: bool = False
) -> bytes:
    """Return a ModelInferRequest; ``raw`` puts tensors into ``raw_input_contents``, else into typed contents."""
    message = protos.inference.ModelInferRequest(
        model_name=request.model.name, model_version=version_text(request.model), id=request_id
    )
    for name, array in request.inputs.items():
        datatype = tensors.datatype_of(array)
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw or datatype in tensors.RAW_ONLY:
            raw = True
            message.raw_input_contents.append(tensors.to_raw(array))
        else:
            getattr(tensor.contents, tensors.CONTENTS[datatype]).extend(array.reshape(-1).tolist())
    for name in request.output_filter:
        message.outputs.add(name=name)
    data: bytes = message.SerializeToString()
    return wrap_message(data) if framed else data


def decode_infer_response(body: bytes | memoryview) -> InferResponse:
    """Return the response in a ModelInferResponse, raw or not; INTERNAL if the server sent something else."""
    message = _parse(protos.inference.ModelInferResponse, body)
    raw = list(message.raw_output_contents)
    if raw and len(raw) != len(message.outputs):
        raise internal(f"the server sent {len(raw)} raw tensors for {len(message.outputs)} outputs")
    outputs = {}
    for place, tensor in enumerate(message.outputs):
        try:
            outputs[tensor.name] = _array(tensor, raw[place] if raw else None)
        except ServingError as error:
            raise internal(f"the server sent output {tensor.name!r} that is no tensor: {error.message}") from None
    version = message.model_version
    return InferResponse(
        ModelRef(message.model_name, int(version) if version.isdecimal() else None), DEFAULT_SIGNATURE, outputs
    )


def encode_model_metadata_request(model: ModelRef) -> bytes:
    """Return a ModelMetadataRequest."""
    message = protos.inference.ModelMetadataRequest(name=model.name, version=version_text(model))
    return bytes(message.SerializeToString())


def decode_model_metadata_response(body: bytes | memoryview) -> Signature:
    """Return the signature in a ModelMetadataResponse: the protocol has one for each model."""
    message = _parse(protos.inference.ModelMetadataResponse, body)
    return Signature(
        DEFAULT_SIGNATURE,
        {one.name: tensors.spec_of(one.name, one.datatype, one.shape) for one in message.inputs},
        {one.name: tensors.spec_of(one.name, one.datatype, one.shape) for one in message.outputs},
    )


def version_text(model: ModelRef) -> str:
    """Return the version as the protocol writes it; "" leaves it to the server."""
    return "" if model.version is None else str(model.version)


def _parse(kind: Any, body: bytes | memoryview) -> Any:
    try:
        return kind.FromString(bytes(body))
    except Exception as error:  # protobuf's own DecodeError; its class depends on the implementation
        if type(error).__name__ != "DecodeError":
            raise
        raise internal(f"the server sent what is no {kind.DESCRIPTOR.name}") from None


def _array(tensor: Any, raw: bytes | None) -> Array:
    shape = list(tensor.shape)
    if raw is not None:
        return tensors.from_raw(raw, tensor.datatype, shape)
    dtype = tensors.dtype_named(tensor.datatype)
    member = tensors.CONTENTS.get(tensor.datatype)
    values = list(getattr(tensor.contents, member)) if member is not None else []
    sizes = tensors.checked_shape(shape)
    if len(values) != tensors.elements(sizes):
        raise internal(f"{len(values)} values are no tensor of shape {list(sizes)}")
    found = np.empty(len(values), dtype.numpy)
    found[:] = values
    return found.reshape(sizes)
