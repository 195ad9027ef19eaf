"""What flags change, by TensorFlow Serving's stubs: ``strict_checks ADDRESS``, of a server that

checks method names and answers with tensor_content.
"""

from __future__ import annotations

import functools

import grpc
import numpy as np
from tests.conformance.tfserving.checks import TIMEOUT_S, Api, checks_in, main, rule

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@rule("example-5")
def check_method_names_of_classify_and_regress(api: Api) -> None:
    row = api.example.Example()
    row.features.feature["x"].float_list.value.extend([1.0, 2.0])
    classify = api.classification.ClassificationRequest()
    regress = api.regression.RegressionRequest()
    for request in (classify, regress):
        request.model_spec.name = "heads"
        request.input.example_list.examples.append(row)
    assert len(api.prediction.Classify(classify, TIMEOUT_S).result.classifications) == 1
    classify.model_spec.signature_name = "extra"
    api.fails(
        lambda: api.prediction.Classify(classify, TIMEOUT_S),
        INVALID,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    )
    regress.model_spec.signature_name = "scores"
    api.fails(
        lambda: api.prediction.Regress(regress, TIMEOUT_S),
        INVALID,
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify",
    )
    multi = api.inference.MultiInferenceRequest(input=classify.input)
    task = multi.tasks.add(method_name="tensorflow/serving/classify")
    task.model_spec.name = "heads"
    task.model_spec.signature_name = "extra"
    api.fails_with(
        lambda: api.prediction.MultiInference(multi, TIMEOUT_S),
        INVALID,
        "Expected classification signature method_name to be",
    )


@rule("predict-2")
def check_method_names_of_predict(api: Api) -> None:
    request = api.request("heads", x=api.typed("DT_FLOAT", [1, 2], float_val=[1.0, 2.0]))
    request.model_spec.signature_name = "predict"
    assert set(api.call(request).outputs) == {"y"}
    request.model_spec.signature_name = "unnamed"
    api.fails(
        functools.partial(api.call, request),
        grpc.StatusCode.INTERNAL,
        "Expected prediction signature method_name to be one of {tensorflow/serving/predict, "
        "tensorflow/serving/classify, tensorflow/serving/regress}. Was: ",
    )


@rule("tensor-18", "tensor-8")
def check_tensor_content_in_replies(api: Api) -> None:
    request = api.request("heads", x=api.typed("DT_FLOAT", [1, 2], float_val=[1.0, 0.0]))
    request.model_spec.signature_name = "predict"
    proto = api.call(request).outputs["y"]
    assert not proto.float_val
    np.testing.assert_allclose(np.frombuffer(proto.tensor_content, np.float32), [0.5, -1.0, 2.0])
    row = api.example.Example()
    row.features.feature["x"].float_list.value.extend([1.0, 2.0])
    request = api.request("heads", inputs=api.typed("DT_STRING", [1], string_val=[row.SerializeToString()]))
    request.model_spec.signature_name = "serving_default"
    proto = api.call(request).outputs["classes"]
    assert proto.tensor_content == b"\x03\x06\x06lowmiddleh\xc3\xb6her"
    assert not proto.string_val


CHECKS = checks_in(globals())

if __name__ == "__main__":
    main(CHECKS)
