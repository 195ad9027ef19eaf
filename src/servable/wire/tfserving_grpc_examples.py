"""TensorFlow Serving's Classify, Regress and MultiInference over gRPC, both ways.

Examples stay the bytes that arrived: the model parses them. Answers are built from the outputs that a signature gave.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from servable import protos
from servable.core.errors import invalid_argument, unimplemented
from servable.core.messages import InferResponse, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import Array
from servable.wire.tfserving_examples import (
    EXAMPLE_METHODS,
    Classification,
    Classify,
    ExampleRequest,
    Regress,
    example_inputs,
    example_outputs,
)
from servable.wire.tfserving_model_spec import decode_model_spec, model_ref, model_spec, parse
from servable.wire.varints import varint


@dataclass(frozen=True, slots=True)
class InferenceTask:
    """One question of a MultiInference: a signature, what to make of its outputs, and which of them that takes."""

    method: Classify | Regress
    signature: str
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MultiInferenceRequest:
    """Several questions about the same Examples, of one version of one model: the one that the first task names.

    ``asked`` are model, signature and method of every task, as they came.
    """

    model: ModelRef
    asked: tuple[tuple[str, str, str], ...]
    examples: list[bytes]

    def tasks(
        self, model: ModelRef, signatures: Mapping[str, Signature], engine: str, *, check_method: bool
    ) -> tuple[InferenceTask, ...]:
        """Return the tasks for the version that was found; the first that cannot be done is an error."""
        found: dict[str, InferenceTask] = {}
        for name, asked_signature, method_name in self.asked:
            if not name:
                raise invalid_argument("Found ModelSpec with an empty model name.")
            if name != self.model.name:
                raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            wanted = asked_signature or DEFAULT_SIGNATURE
            if wanted in found:
                raise invalid_argument(f"Duplicate evaluation of signature: {wanted}")
            if wanted not in signatures:
                raise invalid_argument(f"Requested signature not found in model graph: {wanted}")
            method = EXAMPLE_METHODS.get(method_name)
            if method is None:
                raise unimplemented(f"Unsupported signature method_name: {method_name}")
            outputs = example_outputs(method, signatures[wanted], model, engine, check_method=check_method)
            found[wanted] = InferenceTask(method, wanted, outputs)
        return tuple(found.values())

    def inputs(self) -> dict[str, Array]:
        """Return what every signature is fed. INVALID_ARGUMENT without Examples."""
        return example_inputs(self.examples)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.examples)


def decode_example_request(body: bytes | memoryview, start: int = 0) -> ExampleRequest:
    """Return the request in a ClassificationRequest or a RegressionRequest, which look the same."""
    message = parse(protos.serving_internal.SerializedExampleRequest, body, start)
    model, signature = decode_model_spec(message)
    return ExampleRequest(model, signature, _rows(message.input))


def encode_example_request(request: ExampleRequest, context: bytes | None = None) -> bytes:
    """Return a ClassificationRequest, which is a RegressionRequest too. ``context`` is an Example for all of them."""
    message = protos.serving_internal.SerializedExampleRequest(model_spec=model_spec(request.model, request.signature))
    if context is None:
        message.input.example_list.examples.extend(request.examples)
    else:
        message.input.example_list_with_context.examples.extend(request.examples)
        message.input.example_list_with_context.context = context
    return bytes(message.SerializeToString())


def encode_classification_response(response: InferResponse, rows: int) -> bytes:
    """Return a ClassificationResponse. INVALID_ARGUMENT if the outputs do not classify so many rows."""
    result = _classification_result(Classify.read(response.outputs, rows))
    return _field(b"\x0a", result) + _field(b"\x12", _spec(response))


def decode_classification_response(body: bytes | memoryview, start: int = 0) -> list[list[tuple[str, float]]]:
    """Return label and score of every class, row by row."""
    message = parse(protos.serving.ClassificationResponse, body, start)
    return [[(each.label, each.score) for each in row.classes] for row in message.result.classifications]


def encode_regression_response(response: InferResponse, rows: int) -> bytes:
    """Return a RegressionResponse. INVALID_ARGUMENT if the outputs are not one number for each of so many rows."""
    result = _regression_result(Regress.read(response.outputs, rows))
    return _field(b"\x0a", result) + _field(b"\x12", _spec(response))


def decode_regression_response(body: bytes | memoryview, start: int = 0) -> list[float]:
    """Return the number of every row."""
    message = parse(protos.serving.RegressionResponse, body, start)
    return [each.value for each in message.result.regressions]


def decode_multi_inference_request(body: bytes | memoryview, start: int = 0) -> MultiInferenceRequest:
    """Return the request in a MultiInferenceRequest."""
    message = parse(protos.serving_internal.SerializedMultiInferenceRequest, body, start)
    if not message.tasks or not message.tasks[0].model_spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    asked = [(task.model_spec.name, task.model_spec.signature_name, task.method_name) for task in message.tasks]
    return MultiInferenceRequest(model_ref(message.tasks[0].model_spec), tuple(asked), _rows(message.input))


def encode_multi_inference_response(
    tasks: Sequence[InferenceTask], responses: Sequence[InferResponse], rows: int
) -> bytes:
    """Return a MultiInferenceResponse with the answers in the order of the tasks."""
    return b"".join([_field(b"\x0a", _inference(*each, rows)) for each in zip(tasks, responses, strict=True)])


def _inference(task: InferenceTask, response: InferResponse, rows: int) -> bytes:
    if isinstance(task.method, Classify):
        answer = _field(b"\x12", _classification_result(Classify.read(response.outputs, rows)))
    else:
        answer = _field(b"\x1a", _regression_result(Regress.read(response.outputs, rows)))
    return _field(b"\x0a", _spec(response)) + answer


def _rows(message: Any) -> list[bytes]:
    """Return the rows: a context goes before each, so that what an Example has of the same name wins."""
    if message.WhichOneof("kind") == "example_list_with_context":
        given = message.example_list_with_context
        return [given.context + example for example in given.examples]
    return list(message.example_list.examples)


def _spec(response: InferResponse) -> bytes:
    return _spec_bytes(response.model, response.signature)


@functools.lru_cache(maxsize=1024)
def _spec_bytes(model: ModelRef, signature: str) -> bytes:
    return bytes(model_spec(model, signature).SerializeToString())


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + varint(len(content)) + content


def _classification_result(found: Classification) -> bytes:
    """Return a ClassificationResult. Thousands of rows as message objects would hold the event loop."""
    width, scores = found.width, found.score_values().astype("<f4", copy=False).tobytes()
    heads: dict[bytes, bytes] = {}
    classes = []
    for index, label in enumerate(found.label_values()):
        head = heads.get(label)
        if head is None:
            head = heads[label] = _class_head(label)
        classes.append(head + scores[4 * index : 4 * index + 4])
    rows = [b"".join(classes[at : at + width]) for at in range(0, len(classes), width)] if width else []
    rows = rows or [b""] * found.rows
    return b"".join([b"\x0a" + varint(len(row)) + row for row in rows])


def _class_head(label: bytes) -> bytes:
    """Return what precedes the score of a Class. What is not UTF-8 cannot be a label."""
    text = label.decode(errors="replace").encode()
    content = _field(b"\x0a", text) if text else b""
    return b"\x0a" + varint(len(content) + 5) + content + b"\x15"


def _regression_result(values: Array) -> bytes:
    """Return a RegressionResult: a Regression of 5 bytes for each value."""
    cells = np.empty((len(values), 7), np.uint8)
    cells[:, :3] = (0x0A, 5, 0x0D)
    cells[:, 3:] = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(-1, 4)
    return cells.tobytes()
