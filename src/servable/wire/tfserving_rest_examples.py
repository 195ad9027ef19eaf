"""The bodies of classify and regress in TensorFlow Serving's REST API, both directions.

A request has ``examples``, objects that map features to a value or a list, and perhaps a ``context``, whose features
every example has too. JSON decides the kind of a feature: integers and bools make an int64_list, numbers with a
fraction or exponent a float_list, strings and ``{"b64": "..."}`` a bytes_list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from servable import protos
from servable.core.errors import ServingError, internal, invalid_argument
from servable.core.messages import ModelRef
from servable.core.tensors import Array
from servable.wire import json_dialect, json_writer
from servable.wire.example_features import Features, plain_features
from servable.wire.json_dialect import excerpt, text_bytes, type_name
from servable.wire.json_tensors import base64_bytes, is_base64
from servable.wire.tfserving_examples import Classification, ExampleRequest

_LIMIT = 2**63


def parse_examples_body(body: bytes, action: str, model: ModelRef) -> ExampleRequest:
    """Return the request in a body for ``action``, classify or regress; INVALID_ARGUMENT says what is wrong with it."""
    document = json_dialect.loads(body)
    if type(document) is not dict:
        raise invalid_argument(f"JSON Value: {excerpt(document)} Is not object")
    signature = document.get("signature_name", "")
    if type(signature) is not str:
        _wrong_document(document, "not formatted correctly. 'signature_name' key must be a string value.")
    context = _example(document["context"]) if "context" in document else b""
    if "examples" not in document:
        _wrong_document(document, f"When method is {action}, key 'examples' is expected and was not found")
    examples = document["examples"]
    if type(examples) is not list:
        _wrong_document(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        _wrong_document(document, "'examples' value is an empty array")
    return ExampleRequest(model, signature, [context + _example(example) for example in examples])


def encode_classification(found: Classification) -> bytes:
    """Return the body of a classify reply: for each row its classes, ``[label, score]`` each. No label is ""."""
    width, texts = found.width, json_writer.number_texts(found.score_values())
    labels: dict[bytes, bytes] = {}
    classes = []
    for label, score in zip(found.label_values(), texts, strict=True):
        text = labels.get(label)
        if text is None:
            text = labels[label] = json_writer.dumps_value(json_writer.string(label))
        classes.append(b"[%b,%b]" % (text, score))
    rows = [b"[%b]" % b",".join(classes[at : at + width]) for at in range(0, len(classes), width)] if width else []
    return b'{"results":[%b]}' % b",".join(rows or [b"[]"] * found.rows)


def encode_regression(values: Array) -> bytes:
    """Return the body of a regress reply: one number for each row."""
    return json_writer.dumps_tensor("results", "", values)


def encode_examples_request(
    examples: Sequence[Features], signature: str = "", context: Features | None = None
) -> bytes:
    """Return the body that sends ``examples`` for classify or regress. Bytes that are not UTF-8 become base64.

    INVALID_ARGUMENT for values that no feature holds.
    """
    document: dict[str, Any] = {"signature_name": signature} if signature else {}
    if context is not None:
        document["context"] = _plain(context)
    document["examples"] = [_plain(example) for example in examples]
    return json_writer.dumps(document)


def decode_classification(body: bytes) -> list[list[tuple[str, float]]]:
    """Return label and score of every class, row by row; INTERNAL if the body is no classify reply."""
    document = _results(body, "classify")
    try:
        return [[(str(label), float(score)) for label, score in row] for row in document]
    except (TypeError, ValueError):
        raise internal(f"the server sent what is no classify reply: {excerpt(document)}") from None


def decode_regression(body: bytes) -> list[float]:
    """Return the number of every row; INTERNAL if the body is no regress reply."""
    document = _results(body, "regress")
    try:
        return [float(value) for value in document]
    except (TypeError, ValueError):
        raise internal(f"the server sent what is no regress reply: {excerpt(document)}") from None


def _results(body: bytes, action: str) -> list[Any]:
    try:
        document = json_dialect.loads(body)
    except ServingError as error:
        raise internal(f"the server sent a {action} reply that cannot be read: {error.message}") from None
    results = document.get("results") if type(document) is dict else None
    if type(results) is not list:
        raise internal(f"the server sent what is no {action} reply: {excerpt(document)}")
    return results


def _wrong_document(document: dict[str, Any], problem: str) -> NoReturn:
    raise invalid_argument(f"JSON Value: {excerpt(document)} {problem}")


def _example(features: Any) -> bytes:
    """Return the serialized Example of a JSON object."""
    if type(features) is not dict:
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(features)}")
    message = protos.tensorflow.Example()
    message.features.SetInParent()
    for name, value in features.items():
        # JSON text may hold bytes that protobuf's names cannot.
        _fill(message.features.feature[text_bytes(name).decode("utf-8", "replace")], name, value)
    return bytes(message.SerializeToString())


def _fill(feature: Any, name: str, value: Any) -> None:
    """Put a value, or a list of values of one kind, into a feature. An empty list leaves it without a kind."""
    elements = value if type(value) is list else [value]
    if not elements:
        return
    kinds = {_kind(element, name) for element in elements}
    if len(kinds) > 1:
        first = _kind(elements[0], name)
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {first}")
    (kind,) = kinds
    getattr(feature, f"{kind}_list").value.extend(map(_CONVERSIONS[kind], elements))


def _kind(element: Any, name: str) -> str:
    if type(element) is int:
        if element >= _LIMIT:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64"
    if type(element) is float:
        return "float"
    if type(element) is bool:
        return "int64"
    if type(element) is str or is_base64(element):
        return "bytes"
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {type_name(element)}")


def _bytes(element: Any) -> bytes:
    return text_bytes(element) if type(element) is str else base64_bytes(element["b64"])


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"int64": int, "float": float, "bytes": _bytes}


def _plain(features: Features) -> dict[str, list[Any]]:
    return {name: list(map(_plain_value, values)) for name, values in plain_features(features).items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return json_writer.string(value)
    return json_writer.finished(np.float64(value)) if isinstance(value, float) else value
