"""What answers must be: from a file beside the data, from a reference server, or from the server's own first ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.signatures import Signature
from servable.core.tensors import STRING, Array, as_tensor
from servable.lab.asking import Asker, expecting, wire_for
from servable.lab.exchange import Prepared, Sample, Tensors, Wire
from servable.lab.sources import cut, read_arrays, read_json
from servable.lab.target import parse_endpoint
from servable.transport.tls import ClientTlsOptions

FIRST = "first"
"""Expect the server to keep to its own first answers."""


def from_file(path: Path, samples: Sequence[Sample], batch: int, signature: Signature | None) -> list[Sample]:
    """Return the samples with answers from ``.npz`` or ``.json``, in the order and the cuts of the data."""
    if path.suffix == ".npz":
        answers = _cut_like(samples, read_arrays(path), batch)
    elif path.suffix == ".json":
        document = read_json(path)
        if isinstance(document, list):
            answers = [_outputs(one, path, signature) for one in document]
        else:
            answers = _cut_like(samples, _outputs(document, path, signature), batch)
    else:
        raise invalid_argument(f"{path} holds no answers that can be read: there are .npz and .json")
    if len(answers) < len(samples):
        raise invalid_argument(f"{path} has answers for {len(answers)} requests, but there are {len(samples)}")
    return expecting(samples, answers[: len(samples)])


async def from_server(
    url: str, samples: Sequence[Sample], signature_name: str, tls: ClientTlsOptions | None
) -> list[Sample]:
    """Return the samples with the answers of a reference server."""
    endpoint = parse_endpoint(url)
    asker = Asker(endpoint, tls if endpoint.secure else None)
    signature = await asker.signature(signature_name) if endpoint.wire == "tfserving-rest" else None
    wire = wire_for(endpoint, signature_name, signature)
    answers = await asker.answers(wire, [wire.prepare(sample) for sample in samples])
    return expecting(samples, [answer for answer in answers if not isinstance(answer, bytes)])


async def first_answers(asker: Asker, wire: Wire, prepared: Sequence[Prepared]) -> list[Prepared]:
    """Return the requests with the server's own first answers as those that are expected."""
    answers = await asker.answers(wire, prepared)
    return [replace(one, expected=answer) for one, answer in zip(prepared, answers, strict=True)]


def _cut_like(samples: Sequence[Sample], outputs: Tensors, batch: int) -> list[Tensors]:
    if len(samples) == 1:
        return [outputs]
    return [dict(one.inputs) for one in cut(outputs, batch, len(samples))]


def _outputs(document: object, path: Path, signature: Signature | None) -> dict[str, Array]:
    if isinstance(document, dict) and ("outputs" in document or "predictions" in document):
        document = document.get("outputs", document.get("predictions"))
    if not isinstance(document, dict):
        if signature is None or len(signature.outputs) != 1:
            raise invalid_argument(f"{path}: answers are an object of outputs by name, {{'scores': [[...]]}}")
        document = {next(iter(signature.outputs)): document}
    found = {}
    for name, value in document.items():
        spec = None if signature is None else signature.outputs.get(name)
        try:
            is_text = spec is not None and spec.dtype is STRING
            found[str(name)] = as_tensor(value, STRING) if is_text else as_tensor(np.asarray(value))
        except (TypeError, ValueError) as error:
            raise invalid_argument(f"{path}: output {name!r} is no tensor: {error}") from None
    return found
