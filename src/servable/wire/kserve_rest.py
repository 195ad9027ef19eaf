"""The Open Inference Protocol over HTTP as paths and bodies, JSON or with binary tensors: the asking side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from servable.core.errors import Code, ServingError, internal, invalid_argument
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import STRING, Array, as_tensor, dtype_of
from servable.wire import json_dialect, json_writer
from servable.wire import kserve_tensors as tensors
from servable.wire.json_tensors import tensor as json_tensor

HEADER_LENGTH: Final = b"inference-header-content-length"
"""The field that says where JSON ends and binary tensors begin."""
BINARY_TYPE: Final = b"application/octet-stream"
JSON_TYPE: Final = b"application/json"
_CODES = {
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    422: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


def make_path(model: ModelRef, action: str = "infer") -> str:
    """Return the path that asks for an action on a model; "" asks for its metadata."""
    path = f"/v2/models/{quote(model.name, safe='')}"
    if model.version is not None:
        path += f"/versions/{model.version}"
    return f"{path}/{action}" if action else path


def encode_infer_request(
    request: InferRequest, *, binary: bool = False, request_id: str = ""
) -> tuple[bytes, int | None]:
    """Return the body, and with ``binary`` the length of its JSON part, which goes into ``HEADER_LENGTH``.

    INVALID_ARGUMENT for tensors that JSON cannot carry. Binary requests ask for binary outputs.
    """
    described = [_description(name, array, binary=binary) for name, array in request.inputs.items()]
    document: dict[str, Any] = {"id": request_id} if request_id else {}
    if request.output_filter:
        document["outputs"] = [
            {"name": name, "parameters": {"binary_data": binary}} if binary else {"name": name}
            for name in request.output_filter
        ]
    if not binary:
        # Each input's text is made by the writer that knows NaN; orjson would write null.
        return _with_inputs(document, described), None
    if not request.output_filter:
        document["parameters"] = {"binary_data_output": True}
    raw = [tensors.to_raw(array) for array in request.inputs.values()]
    document["inputs"] = [
        {**one, "parameters": {"binary_data_size": len(data)}} for one, data in zip(described, raw, strict=True)
    ]
    head = orjson.dumps(document)
    return b"".join([head, *raw]), len(head)


def decode_infer_response(body: bytes, header_length: bytes | None = None) -> InferResponse:
    """Return the response in a reply, whose ``HEADER_LENGTH`` field is passed along; INTERNAL if it is none."""
    size = len(body) if header_length is None else _header_size(header_length, len(body))
    try:
        document = json_dialect.loads(body[:size])
    except ServingError as error:
        raise internal(f"the server sent an infer reply that cannot be read: {error.message}") from None
    if not isinstance(document, dict) or not isinstance(document.get("outputs"), list):
        raise internal(f"the server sent what is no infer reply: {json_dialect.excerpt(document)}")
    rest = memoryview(body)[size:]
    outputs = {}
    for described in document["outputs"]:
        name, array, rest = _output(described, rest)
        outputs[name] = array
    if rest:
        raise internal(f"the server sent {len(rest)} bytes after its last binary output")
    version = str(document.get("model_version", ""))
    model = ModelRef(str(document.get("model_name", "")), int(version) if version.isdecimal() else None)
    return InferResponse(model, DEFAULT_SIGNATURE, outputs)


def decode_metadata(body: bytes) -> Signature:
    """Return the signature in a model's metadata; INTERNAL if it is none."""
    try:
        document = json_dialect.loads(body)
        return Signature(DEFAULT_SIGNATURE, _specs(document["inputs"]), _specs(document["outputs"]))
    except (ServingError, KeyError, TypeError) as error:
        raise internal(f"the server sent metadata that cannot be read: {error}") from None


def decode_error(status: int, body: bytes) -> ServingError:
    """Return the error in a reply that is not 200, whoever made it."""
    return ServingError(_CODES.get(status, Code.UNKNOWN), json_dialect.error_text(status, body))


def _description(name: str, array: Array, *, binary: bool) -> dict[str, Any]:
    datatype = tensors.datatype_of(array)
    described: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype}
    if binary:
        return described
    if datatype in tensors.RAW_ONLY:
        raise invalid_argument(f"input {name!r} is {datatype}, which JSON cannot carry: send binary tensors")
    if dtype_of(array) is STRING:
        described["data"] = [_text(name, item) for item in as_tensor(array, STRING).reshape(-1)]
    else:
        described["data"] = array.reshape(-1)
    return described


def _text(name: str, item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise invalid_argument(f"input {name!r} has bytes that are no UTF-8: send binary tensors") from None


def _with_inputs(document: dict[str, Any], described: Sequence[dict[str, Any]]) -> bytes:
    inputs = []
    for one in described:
        data = one.pop("data")
        head = orjson.dumps(one)[:-1]
        values = orjson.dumps(data) if isinstance(data, list) else json_writer.dumps_tensor("data", one["name"], data)
        # dumps_tensor's document is {"data":[...]}: what follows its brace is the member itself.
        member = b'"data":' + values + b"}" if isinstance(data, list) else values[1:]
        inputs.append(head + b"," + member)
    head = orjson.dumps(document)[:-1]
    return head + (b"," if document else b"") + b'"inputs":[' + b",".join(inputs) + b"]}"


def _output(described: Any, rest: memoryview) -> tuple[str, Array, memoryview]:
    try:
        name, datatype, shape = described["name"], described["datatype"], described["shape"]
        size = (described.get("parameters") or {}).get("binary_data_size")
        if size is not None:
            if not 0 <= size <= len(rest):
                raise internal(f"{size} bytes are announced and {len(rest)} left")
            return name, tensors.from_raw(rest[:size], datatype, shape), rest[size:]
        sizes = tensors.checked_shape(shape)
        values = json_tensor(described["data"], tensors.dtype_named(datatype))
        if values.size != tensors.elements(sizes):
            raise internal(f"{values.size} values are no tensor of shape {list(sizes)}")
        return name, values.reshape(sizes), rest
    except (KeyError, TypeError) as error:
        raise internal(f"the server sent an output without {error}") from None
    except ServingError as error:
        raise internal(f"the server sent output {described.get('name')!r} that is no tensor: {error.message}") from None


def _header_size(value: bytes, whole: int) -> int:
    if not value.isdigit() or int(value) > whole:
        raise internal(f"the server sent {HEADER_LENGTH.decode()}: {value[:32]!r} with a body of {whole} bytes")
    return int(value)


def _specs(described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {one["name"]: tensors.spec_of(one["name"], one["datatype"], one["shape"]) for one in described}
