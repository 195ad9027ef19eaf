"""TensorFlow Serving's REST API as paths, status codes and JSON bodies: both directions, without I/O.

This module has paths, errors and compression; the bodies of predict are in ``tfserving_rest_predict``, those of
classify and regress in ``tfserving_rest_examples``, those of model status and metadata in ``tfserving_rest_model``.
Listeners and clients import all of it from here.

A request is taken apart in the order in which TensorFlow Serving checks it: ``parse_path``, ``parse_predict_body``,
the look-up of model and signature (the caller's), ``PredictBody.to_inputs``.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from typing import Final, Literal, cast
from urllib.parse import quote, unquote_to_bytes

import orjson

from servable.core.errors import Code, ServingError, invalid_argument, not_found
from servable.core.messages import ModelRef
from servable.wire import grpc, json_dialect
from servable.wire.tfserving_examples import CLASSIFY as CLASSIFY_EXAMPLES
from servable.wire.tfserving_examples import REGRESS as REGRESS_EXAMPLES
from servable.wire.tfserving_examples import ExampleMethod, ExampleRequest
from servable.wire.tfserving_rest_examples import (
    decode_classification,
    decode_regression,
    encode_classification,
    encode_examples_request,
    encode_regression,
    parse_examples_body,
)
from servable.wire.tfserving_rest_model import decode_metadata, decode_status, encode_metadata, encode_status
from servable.wire.tfserving_rest_predict import (
    PredictBody,
    decode_predict_response,
    encode_predict_request,
    encode_predict_response,
    parse_predict_body,
)

__all__ = [
    "CLASSIFY_EXAMPLES",
    "CONTENT_TYPE",
    "HTTP_PAYLOAD_TOO_LARGE",
    "LINES_CONTENT_TYPE",
    "REGRESS_EXAMPLES",
    "Action",
    "ExampleMethod",
    "ExampleRequest",
    "PredictBody",
    "Target",
    "accepts_gzip",
    "compress",
    "decode_classification",
    "decode_error",
    "decode_metadata",
    "decode_predict_response",
    "decode_regression",
    "decode_status",
    "decompress",
    "encode_classification",
    "encode_error",
    "encode_error_line",
    "encode_examples_request",
    "encode_metadata",
    "encode_predict_request",
    "encode_predict_response",
    "encode_regression",
    "encode_status",
    "http_status",
    "lookup_error",
    "make_path",
    "parse_examples_body",
    "parse_path",
    "parse_predict_body",
]

Action = Literal["predict", "predictStreamed", "classify", "regress", "status", "metadata"]

CONTENT_TYPE: Final = "application/json"
LINES_CONTENT_TYPE: Final = "application/x-ndjson"
"""Of an answer in parts: a line of JSON for each. TensorFlow Serving has no such action."""
HTTP_PAYLOAD_TOO_LARGE: Final = 413

_POST_ACTIONS = ("predict", "predictStreamed", "classify", "regress")
_VERSION = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
_POST_PATH = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict|predictStreamed)", re.IGNORECASE)
_GET_PATH = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(?:/(metadata))?", re.IGNORECASE)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_REFUSED = re.compile(rb"q\s*=\s*0(?:\.0*)?\s*(?:;|$)")
_MAX_VERSION = 2**63 - 1
_MAX_DIGITS = 1000  # far above any version, and below what int() refuses

_HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    431: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a request line asks for."""

    action: Action
    model: ModelRef


def parse_path(method: bytes | str, target: bytes | str) -> Target:
    """Return what a request line asks for; HEAD counts as GET, and a query or fragment is not looked at.

    NOT_FOUND for a path outside of ``/v1/``; INVALID_ARGUMENT for what is malformed in it. The letters of the fixed
    parts may have any case, except those of the action.
    """
    verb = _text(method)
    path = re.split(r"[?#]", _text(target), maxsplit=1)[0]
    if not path.lower().startswith("/v1/"):
        raise not_found(f"Nothing is served at {path}; the paths of this API begin with /v1/models/")
    if verb == "POST":
        match = _POST_PATH.fullmatch(path)
        if match is not None and match[4] in _POST_ACTIONS:
            return Target(cast("Action", match[4]), _model(match))
    elif verb in {"GET", "HEAD"}:
        match = _GET_PATH.fullmatch(path)
        if match is not None and match[4] in {None, "metadata"}:
            return Target("metadata" if match[4] else "status", _model(match))
    raise invalid_argument(f"Malformed request: {verb} {path}")


def make_path(action: Action, model: ModelRef) -> str:
    """Return the path that asks for an action on a model; a version goes before a label."""
    path = f"/v1/models/{quote(model.name, safe='')}"
    if model.version is not None:
        path += f"/versions/{model.version}"
    elif model.label is not None:
        path += f"/labels/{quote(model.label, safe='')}"
    if action == "status":
        return path
    return f"{path}/metadata" if action == "metadata" else f"{path}:{action}"


def http_status(code: Code) -> int:
    """Return the HTTP status of a canonical code; what has none of its own is 500."""
    return _HTTP_STATUS.get(code, 500)


def encode_error_line(error: ServingError) -> bytes:
    """Return an error as the last line of an answer in parts."""
    return orjson.dumps({"error": _text_of(error)})


def encode_error(error: ServingError) -> bytes:
    """Return the body of an error reply: the message without its code, which is in the HTTP status."""
    return b'{\n    "error": ' + orjson.dumps(_text_of(error)) + b"\n}"


def _text_of(error: ServingError) -> str:
    return error.message.encode("utf-8", "replace").decode()


def decode_error(status: int, body: bytes) -> ServingError:
    """Return the error in a reply that is not 200, whoever made it; several codes share a status."""
    return ServingError(_CODES.get(status, Code.UNKNOWN), json_dialect.error_text(status, body))


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Return a body as it was before its ``content-encoding``: gzip, deflate, or (identity, "") none.

    INVALID_ARGUMENT for another, for what is damaged, and above ``limit`` bytes.
    """
    coding = b",".join(
        item for item in encoding.lower().replace(b" ", b"").split(b",") if item not in {b"", b"identity"}
    )
    if not coding:
        return body
    coding = coding.removeprefix(b"x-")
    if coding not in {b"gzip", b"deflate"}:
        raise invalid_argument(
            f"Content-Encoding: {grpc.printable(encoding, 32)} is none of gzip, deflate and identity"
        )
    try:
        return grpc.decompress(body, coding, limit)
    except ServingError as error:
        raise invalid_argument(f"Content-Encoding: {error.message}") from None


def accepts_gzip(accept_encoding: bytes | None) -> bool:
    """Return whether a client that sent this takes gzip; without a word of it, it does not."""
    if accept_encoding is None:
        return False
    weights: dict[bytes, bool] = {}
    for item in accept_encoding.lower().split(b","):
        coding, _, parameters = item.partition(b";")
        weights[coding.strip()] = _REFUSED.search(parameters) is None
    return weights.get(b"gzip", weights.get(b"x-gzip", weights.get(b"*", False)))


def compress(body: bytes) -> bytes:
    """Return a body as gzip, at the quickest level: numbers as text halve at any, and slower ones gain little."""
    return gzip.compress(body, compresslevel=1, mtime=0)


def lookup_error(error: ServingError, signature_name: str) -> ServingError:
    """Return the error of a look-up as REST reports it: a missing signature differs from gRPC in code and text."""
    if error.code is Code.FAILED_PRECONDITION and error.message.startswith("Serving signature key "):
        name = signature_name or "serving_default"
        return invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    return error


def _model(match: re.Match[str]) -> ModelRef:
    name, version, label = match[1], match[2], match[3]
    if name is None:
        raise invalid_argument("Missing model name in request.")
    if version is not None and (len(version) > _MAX_DIGITS or int(version) > _MAX_VERSION):
        raise invalid_argument(f"Failed to convert version: {version} to numeric.")
    return ModelRef(
        _decoded(name, "model name"),
        None if version is None else int(version),
        None if label is None else _decoded(label, "model version label"),
    )


def _decoded(text: str, what: str) -> str:
    try:
        decoded = None if _BAD_ESCAPE.search(text) else unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        decoded = None
    if decoded is None:
        raise invalid_argument(f"Failed to decode {what}:{text}")
    return decoded


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
