"""Requests and replies with tf.Examples, both ways, and what no client of other people's can send."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servable import protos
from servable.core import tensors
from servable.core.errors import Code, ServingError
from servable.core.messages import InferResponse, ModelRef
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array
from servable.wire import tfserving_grpc as grpc
from servable.wire import tfserving_rest as rest
from servable.wire.tfserving_examples import CLASSIFY, REGRESS, Classification, example_inputs, example_outputs

MODEL = ModelRef("m", 2)


def strings(*values: bytes) -> Array:
    array: Array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


LABELS = np.stack([strings(b"a", b"b\xff"), strings(b"", b"d")])
SCORES = np.array([[0.25, math.nan], [1.0, -0.0]], np.float32)


def test_grpc_classification_comes_back() -> None:
    body = grpc.encode_classification_response(InferResponse(MODEL, "s", {"classes": LABELS, "scores": SCORES}), 2)
    (first, second) = grpc.decode_classification_response(body)
    assert first[0] == ("a", 0.25)
    assert first[1][0] == "b\ufffd", "what is not UTF-8 cannot be a label on this wire"
    assert math.isnan(first[1][1])
    assert second == [("", 1.0), ("d", 0.0)]


def test_grpc_regression_comes_back() -> None:
    outputs = {"outputs": np.array([[1.5], [-2.0]], np.float32)}
    assert grpc.decode_regression_response(grpc.encode_regression_response(InferResponse(MODEL, "", outputs), 2)) == [
        1.5,
        -2.0,
    ]


def test_grpc_request_comes_back() -> None:
    request = grpc.ExampleRequest(ModelRef("m", None, "stable"), "s", [b"", b"\x0a\x00"])
    body = grpc.encode_example_request(request)
    assert grpc.decode_example_request(b"12345" + body, 5) == request
    assert len(request) == 2
    assert protos.serving.RegressionRequest.FromString(body).model_spec.version_label == "stable"


def test_examples_that_are_no_message_stay_the_models_business() -> None:
    given = protos.serving_internal.SerializedExampleRequest()
    given.model_spec.name = "m"
    given.input.example_list.examples.append(b"\xff\xff")
    assert grpc.decode_example_request(given.SerializeToString()).examples == [b"\xff\xff"]
    with pytest.raises(ServingError) as failure:
        grpc.decode_example_request(b"\xff\xff")
    assert failure.value.code is Code.INTERNAL


def test_null_bytes_at_the_end_of_an_example_stay() -> None:
    assert example_inputs([b"a\x00", b""])["inputs"].tolist() == [b"a\x00", b""]


def test_rest_classification_comes_back() -> None:
    body = rest.encode_classification(Classification(LABELS, SCORES))
    assert body == b'{"results":[[["a",0.25],[{"b64":"Yv8="},NaN]],[["",1.0],["d",-0.0]]]}'
    labels_only = rest.encode_classification(Classification(LABELS, None))
    assert labels_only == b'{"results":[[["a",0.0],[{"b64":"Yv8="},0.0]],[["",0.0],["d",0.0]]]}'
    assert rest.decode_classification(rest.encode_classification(Classification(None, SCORES[1:]))) == [
        [("", 1.0), ("", -0.0)]
    ]


def test_a_label_that_says_null_is_no_number() -> None:
    body = rest.encode_classification(Classification(np.array([[b"null"]], dtype=object), SCORES[:1, 1:]))
    assert body == b'{"results":[[["null",NaN]]]}'


def test_rest_request_comes_back() -> None:
    examples: list[dict[str, Any]] = [
        {"x": [1.0, 2.5], "k": 3, "flag": True, "name": "\u00e4", "raw": b"\xff", "none": []}
    ]
    body = rest.encode_examples_request(examples, "s", {"c": [b"a", b"b"]})
    request = rest.parse_examples_body(body, "classify", MODEL)
    assert (request.model, request.signature) == (MODEL, "s")
    features = protos.tensorflow.Example.FromString(request.examples[0]).features.feature
    assert list(features["x"].float_list.value) == [1.0, 2.5]
    assert list(features["k"].int64_list.value) == [3]
    assert list(features["flag"].int64_list.value) == [1]
    assert list(features["name"].bytes_list.value) == ["\u00e4".encode()]
    assert list(features["raw"].bytes_list.value) == [b"\xff"]
    assert list(features["c"].bytes_list.value) == [b"a", b"b"]
    assert features["none"].WhichOneof("kind") is None


@pytest.mark.parametrize("body", [b"[", b"{}", b'{"results": 3}', b'{"results": ["x"]}', b'{"results": [[1]]}'])
def test_replies_that_are_none(body: bytes) -> None:
    for decode in (rest.decode_classification, rest.decode_regression):
        with pytest.raises(ServingError) as failure:
            decode(body)
        assert failure.value.code is Code.INTERNAL


def signature(dtype: tensors.DType = tensors.STRING, **outputs: tensors.DType) -> Signature:
    specs = {name: TensorSpec(name, of, (None, None)) for name, of in outputs.items()}
    return Signature("s", {"inputs": TensorSpec("inputs", dtype, (None,))}, specs)


def test_only_what_tensorflow_runs_is_judged_by_tensorflow() -> None:
    """What the client could mend is its fault with TensorFlow; elsewhere the model has to be set up for it."""
    numbers = signature(tensors.FLOAT32, scores=tensors.FLOAT32)
    assert example_outputs(CLASSIFY, numbers, MODEL, "tensorflow", check_method=False) == ("scores",)
    for method, wrong in ((CLASSIFY, numbers), (REGRESS, numbers), (CLASSIFY, signature(y=tensors.STRING))):
        with pytest.raises(ServingError) as failure:
            example_outputs(method, wrong, MODEL, "onnxruntime", check_method=False)
        assert failure.value.code is Code.FAILED_PRECONDITION
        assert "It runs on onnxruntime" in failure.value.message
    good = signature(scores=tensors.FLOAT32, classes=tensors.STRING)
    assert example_outputs(CLASSIFY, good, MODEL, "python", check_method=False) == ("classes", "scores")


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (None, False), (b"", False), (b"gzip", True), (b"GZIP ; q=0.1", True), (b"gzip;q=0", False),
        (b"gzip; q=0.0, deflate", False), (b"*;q=0", False), (b"identity, *", True), (b"deflate, br", False),
        (b"gzip;q=0, *", False),
    ],
)  # fmt: skip
def test_who_takes_gzip(value: bytes | None, accepted: bool) -> None:
    assert rest.accepts_gzip(value) is accepted


def attempt(read: Callable[[], Any]) -> Any:
    """Return what is read, or the error if it is one of ours: any other fails the test."""
    try:
        return read()
    except ServingError as error:
        return error


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.sampled_from(["b64", "a"]), SCALARS, max_size=2)
EXAMPLES = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3) | SCALARS, max_size=3)


@settings(max_examples=200, deadline=None)
@given(EXAMPLES, st.none() | st.dictionaries(st.text(max_size=2), VALUES, max_size=2), st.data())
def test_any_body_is_read_or_refused(examples: list[Any], context: Any, data: st.DataObject) -> None:
    document = {"examples": examples} if context is None else {"examples": examples, "context": context}
    body = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(st.binary(max_size=2)) + body[at + data.draw(st.integers(0, 2)) :]
    outcome = attempt(lambda: rest.parse_examples_body(body, "regress", MODEL))
    if isinstance(outcome, ServingError):
        assert outcome.code is Code.INVALID_ARGUMENT
    else:
        for row in outcome.examples:
            protos.tensorflow.Example.FromString(row)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_message_is_read_or_refused(body: bytes) -> None:
    for decode in (grpc.decode_example_request, grpc.decode_multi_inference_request, grpc.decode_reload_request):
        outcome = attempt(functools.partial(decode, body))
        assert not isinstance(outcome, ServingError) or outcome.code in {Code.INTERNAL, Code.INVALID_ARGUMENT}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_replies_written_by_hand_are_those_that_protobuf_reads(data: st.DataObject) -> None:
    rows, width = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 4))
    words = st.sampled_from([b"", b"a", "\u00e4".encode(), b"x" * 130, b"y" * 20_000])
    labels = data.draw(st.lists(words, min_size=rows * width, max_size=rows * width))
    floats = st.floats(width=32, allow_nan=False)
    scores = data.draw(st.lists(floats, min_size=rows * width, max_size=rows * width))
    outputs = {
        "classes": strings(*labels).reshape(rows, width),
        "scores": np.array(scores, np.float32).reshape(rows, width),
    }
    given_kinds = data.draw(st.sampled_from([("classes",), ("scores",), ("classes", "scores")]))
    response = InferResponse(MODEL, "s", {name: outputs[name] for name in given_kinds})
    message = protos.serving.ClassificationResponse.FromString(grpc.encode_classification_response(response, rows))
    assert (message.model_spec.name, message.model_spec.version.value) == ("m", 2)
    assert [len(row.classes) for row in message.result.classifications] == [width] * rows
    classes = [each for row in message.result.classifications for each in row.classes]
    assert [each.label.encode() for each in classes] == (labels if "classes" in given_kinds else [b""] * rows * width)
    assert [each.score for each in classes] == (scores if "scores" in given_kinds else [0.0] * rows * width)
    document = json.loads(rest.encode_classification(CLASSIFY.read(response.outputs, rows)))
    assert [[label, np.float32(score)] for row in document["results"] for label, score in row] == [
        [each.label, each.score] for each in classes
    ]
    values = InferResponse(MODEL, "s", {"outputs": np.array(scores[:rows] or [0.0] * rows, np.float32)})
    tasks = [
        grpc.InferenceTask(REGRESS, "s", ("outputs",)),
        grpc.InferenceTask(CLASSIFY, "s", given_kinds),
    ]
    if len(values.outputs["outputs"]) == rows:
        multi = grpc.encode_multi_inference_response(tasks, [values, response], rows)
        first, second = protos.serving.MultiInferenceResponse.FromString(multi).results
        assert [each.value for each in first.regression_result.regressions] == values.outputs["outputs"].tolist()
        assert second.classification_result == message.result
        assert second.model_spec == message.model_spec
