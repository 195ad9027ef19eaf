"""Records of calls, judged by TensorFlow Serving's own messages where they are installed."""

from __future__ import annotations

import numpy as np
import pytest

from servable import protos
from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, STRING, Array
from servable.wire import tfserving_grpc as tfserving
from servable.wire.prediction_log import LoggedCall, decode_prediction_log, encode_call, logged_call, requests_of

M3 = ModelRef("m", 3)


def strings(*values: bytes) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def signature(name: str, method: str, outputs: dict[str, TensorSpec]) -> Signature:
    return Signature(name, {"inputs": TensorSpec("inputs", STRING, (None,), "i:0")}, outputs, method_name=method)


CLASSIFY = signature(
    "tell",
    "tensorflow/serving/classify",
    {"scores": TensorSpec("scores", FLOAT32, (None, 2), "s:0")},
)
REGRESS = signature("much", "tensorflow/serving/regress", {"outputs": TensorSpec("outputs", FLOAT32, (None, 1), "o:0")})
SIGNATURES = {"tell": CLASSIFY, "much": REGRESS}


def predict() -> tuple[InferRequest, InferResponse]:
    request = InferRequest(ModelRef("m", label="best"), {"x": np.arange(3, dtype=np.int32)}, "sig", ("y",))
    return request, InferResponse(M3, "sig", {"y": np.array([1.5], np.float32)})


def test_a_predict_is_logged_as_it_would_have_come_over_grpc() -> None:
    call = logged_call(*predict(), time_s=1_700_000_000.9)
    assert call.method == tfserving.PREDICT
    again = decode_prediction_log(encode_call(call, 0.25, ("serve",)))
    assert again == call
    assert again is not None
    assert (again.model, again.time_s) == (M3, 1_700_000_000)
    (found,) = requests_of(again, M3, {}, "onnxruntime")
    assert found.model == ModelRef("m", label="best")
    assert (found.signature, found.output_filter) == ("sig", ("y",))
    assert found.inputs["x"].tolist() == [0, 1, 2]
    assert tfserving.decode_predict_response(again.response).outputs["y"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("api", "name", "outputs", "kind"),
    [
        ("Classify", "tell", {"scores": np.array([[0.25, 0.75]], np.float32)}, "classify_log"),
        ("Regress", "much", {"outputs": np.array([[7.0]], np.float32)}, "regress_log"),
    ],
)
def test_examples_are_logged_by_their_method(api: str, name: str, outputs: dict[str, Array], kind: str) -> None:
    request = InferRequest(M3, {"inputs": strings(b"example")}, name, tuple(outputs), api=api)
    call = logged_call(request, InferResponse(M3, name, outputs), time_s=1)
    assert call.kind == kind
    again = decode_prediction_log(encode_call(call))
    assert again == call
    (found,) = requests_of(call, M3, SIGNATURES, "tensorflow")
    assert found == InferRequest(M3, found.inputs, name, tuple(outputs), api=api)
    assert found.inputs["inputs"].tolist() == [b"example"]
    if api == "Regress":
        assert tfserving.decode_regression_response(call.response) == [7.0]
    else:
        assert tfserving.decode_classification_response(call.response) == [[("", 0.25), ("", 0.75)]]


def test_the_tasks_of_a_multi_inference_are_requests_of_their_own() -> None:
    message = protos.serving_internal.SerializedMultiInferenceRequest()
    for name, its in SIGNATURES.items():
        task = message.tasks.add(method_name=its.method_name)
        task.model_spec.name, task.model_spec.signature_name = "m", name
    message.input.example_list.examples.append(b"example")
    call = LoggedCall("multi_inference_log", message.SerializeToString(), b"")
    found = requests_of(call, M3, SIGNATURES, "tensorflow")
    assert [(each.signature, each.output_filter, each.api) for each in found] == [
        ("tell", ("scores",), "Classify"),
        ("much", ("outputs",), "Regress"),
    ]


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(ServingError, match="Failed to parse warmup record: b'not a message'") as raised:
        decode_prediction_log(b"not a message")
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert decode_prediction_log(b"") is None
    message = protos.serving.PredictionLog()
    message.session_run_log.SetInParent()
    with pytest.raises(ServingError, match="Unsupported log_type for warmup: 5") as raised:
        decode_prediction_log(message.SerializeToString())
    assert raised.value.code is Code.UNIMPLEMENTED
    with pytest.raises(ServingError, match="No signature was found with the name: nothing"):
        requests_of(
            LoggedCall(
                "classify_log",
                tfserving.encode_example_request(tfserving.ExampleRequest(M3, "nothing", [b"e"])),
                b"",
            ),
            M3,
            SIGNATURES,
            "tensorflow",
        )


def test_tensorflow_servings_messages_agree() -> None:
    theirs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    call = logged_call(*predict(), time_s=12)
    read = theirs.PredictionLog.FromString(encode_call(call, 0.5, ("serve", "gpu")))
    assert read.WhichOneof("log_type") == "predict_log"
    assert read.predict_log.request.model_spec.version_label == "best"
    assert list(read.predict_log.request.inputs["x"].int_val or [0, 1, 2]) == [0, 1, 2]
    assert read.predict_log.response.outputs["y"].float_val == [1.5]
    assert read.log_metadata.model_spec.version.value == 3
    assert (read.log_metadata.sampling_config.sampling_rate, read.log_metadata.timestamp_secs) == (0.5, 12)
    assert list(read.log_metadata.saved_model_tags) == ["serve", "gpu"]
    assert decode_prediction_log(read.SerializeToString(deterministic=True)) is not None
