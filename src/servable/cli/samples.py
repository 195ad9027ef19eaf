"""Example requests made from a signature, for people to paste."""

from __future__ import annotations

import json
import math

from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import BOOL, STRING

MOST_LITERAL = 24
"""Elements of one input written out; a longer row is left to the shell."""


def curl_line(url: str, model: str, signature: Signature) -> str:
    """Return a curl command that calls the model with one row, or, if a row is no line to paste, asks what it takes."""
    address = f"{url}/v1/models/{model}"
    values = {name: _value(spec) for name, spec in signature.inputs.items()}
    if not values or None in values.values():
        return f"curl {address}/metadata"
    fields = [f"{json.dumps(name)}: {value}" for name, value in values.items()]
    body = f'"inputs": {{{", ".join(fields)}}}'
    if signature.name != DEFAULT_SIGNATURE:
        body = f'"signature_name": {json.dumps(signature.name)}, {body}'
    return f"curl {address}:predict -d '{{{body}}}'"


def _value(spec: TensorSpec) -> str | None:
    sizes = [1 if size is None else size for size in (spec.shape if spec.shape is not None else (None,))]
    if math.prod(sizes) <= MOST_LITERAL:
        return json.dumps(_nested(sizes, _element(spec)))
    rows, *rest = sizes
    if rows != 1 or len(rest) != 1 or spec.dtype is STRING:
        return None
    element = json.dumps(_element(spec))
    return f"[['$(printf '{element},%.0s' $(seq {rest[0] - 1})){element}']]"


def _nested(sizes: list[int], element: object) -> object:
    return [_nested(sizes[1:], element)] * sizes[0] if sizes else element


def _element(spec: TensorSpec) -> object:
    if spec.dtype is STRING:
        return "text"
    if spec.dtype is BOOL:
        return True
    return 1.0 if "float" in spec.dtype.name else 1
