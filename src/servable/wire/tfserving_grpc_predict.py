"""TensorFlow Serving's Predict over gRPC, both ways: the hot path.

Bytes are messages without gRPC's five-byte prefix unless ``framed`` says otherwise. Requests like an earlier one are
not parsed (``tensor_layout``), replies like an earlier one are not built (``tensor_bytes``); all memory is bounded.
"""

from __future__ import annotations

from typing import Any

from servable import protos
from servable.core.errors import internal, invalid_argument
from servable.core.messages import InferRequest, InferResponse, Metadata, ModelRef
from servable.core.tensors import Array
from servable.wire.tensor_bytes import Chunk, HeadMemory
from servable.wire.tensor_layout import LayoutMemory
from servable.wire.tensor_proto import MAX_FILL_BYTES, decode_tensors
from servable.wire.tfserving_model_spec import decode_model_spec, model_ref, model_spec, parse
from servable.wire.varints import varint

_MAX_REMEMBERED = 1024

_request_layouts = LayoutMemory(field=2)
_response_layouts = LayoutMemory(field=1)
_request_values = HeadMemory(field=2)
_request_contents = HeadMemory(field=2, tensor_content=True)
_response_values = HeadMemory(field=1)
_response_contents = HeadMemory(field=1, tensor_content=True)
_specs: dict[tuple[str, int | None, str | None, str], bytes] = {}


def decode_predict_request(
    body: bytes | memoryview,
    start: int = 0,
    *,
    deadline: float | None = None,
    metadata: Metadata = (),
    max_fill_bytes: int = MAX_FILL_BYTES,
) -> InferRequest:
    """Return the request in the PredictRequest at ``body[start:]`` (5 skips gRPC's prefix); fastest from ``bytes``.

    ``max_fill_bytes`` bounds what shapes may declare beyond the values that were sent.
    """
    if type(body) is not bytes:
        body = bytes(body)
    layout = _request_layouts.find(body, start)
    if layout is not None:
        model, signature, output_filter = layout.head
        return InferRequest(model, layout.arrays(body, start), signature, output_filter, deadline, metadata)
    message = parse(protos.serving.PredictRequest, body, start)
    model, signature = decode_model_spec(message)
    inputs = _decode_inputs(message.inputs, max_fill_bytes)
    output_filter = tuple(message.output_filter)
    _request_layouts.learn(body, start, (model, signature, output_filter), inputs)
    return InferRequest(model, inputs, signature, output_filter, deadline, metadata)


def encode_predict_request(request: InferRequest, *, tensor_content: bool = True, framed: bool = False) -> bytes:
    """Return a PredictRequest. ``tensor_content`` is smaller and faster for every type but short integers."""
    spec = _spec(b"\x0a", request.model, request.signature)
    chunks: list[Chunk] = [spec]
    memory = _request_contents if tensor_content else _request_values
    for name, array in request.inputs.items():
        try:
            memory.append(chunks, name, array)
        except ValueError as failure:
            raise invalid_argument(f"input {name!r}: {failure}") from None
    for alias in request.output_filter:
        encoded = alias.encode()
        chunks.append(b"\x1a%b%b" % (varint(len(encoded)), encoded))
    return _joined(chunks, framed=framed)


def encode_predict_response(response: InferResponse, *, tensor_content: bool = False, framed: bool = False) -> bytes:
    """Return a PredictResponse. Values go into their typed fields, where clients look, unless ``tensor_content``."""
    chunks: list[Chunk] = []
    memory = _response_contents if tensor_content else _response_values
    for name, array in response.outputs.items():
        try:
            memory.append(chunks, name, array)
        except ValueError as failure:
            raise internal(f"output {name!r}: {failure}") from None
    chunks.append(_spec(b"\x12", response.model, response.signature))
    return _joined(chunks, framed=framed)


def decode_predict_response(body: bytes | memoryview, start: int = 0) -> InferResponse:
    """Return the response in a PredictResponse. INTERNAL if the server sent something else."""
    if type(body) is not bytes:
        body = bytes(body)
    layout = _response_layouts.find(body, start)
    if layout is not None:
        model, signature = layout.head
        return InferResponse(model, signature, layout.arrays(body, start))
    message = parse(protos.serving.PredictResponse, body, start)
    model, signature = model_ref(message.model_spec), message.model_spec.signature_name
    try:
        outputs = decode_tensors(message.outputs)
    except ValueError as failure:
        name, reason = failure.args
        raise internal(f"the server sent output {name!r} that is no tensor: {reason}") from None
    _response_layouts.learn(body, start, (model, signature), outputs)
    return InferResponse(model, signature, outputs)


def _decode_inputs(inputs: Any, max_fill_bytes: int) -> dict[str, Array]:
    try:
        return decode_tensors(inputs, max_fill_bytes)
    except ValueError as failure:
        raise invalid_argument(f"tensor parsing error: {failure.args[0]}") from failure


def _spec(tag: bytes, model: ModelRef, signature: str) -> bytes:
    """Return a serialized ModelSpec as a field of its message."""
    key = (model.name, model.version, model.label, signature)
    encoded = _specs.get(key)
    if encoded is None:
        encoded = model_spec(model, signature).SerializeToString()
        encoded = varint(len(encoded)) + encoded
        if len(_specs) >= _MAX_REMEMBERED:
            _specs.clear()
        _specs[key] = encoded
    return tag + encoded


def _joined(chunks: list[Chunk], *, framed: bool) -> bytes:
    if not framed:
        return b"".join(chunks)
    size = sum([len(chunk) for chunk in chunks])
    return b"".join([b"\x00", size.to_bytes(4, "big"), *chunks])
