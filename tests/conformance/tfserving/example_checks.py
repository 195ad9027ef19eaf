"""Classify, Regress and MultiInference by TensorFlow Serving's stubs: ``example_checks ADDRESS HEADS_PICKLE``."""

from __future__ import annotations

import functools
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tests.conformance.tfserving.checks import TIMEOUT_S, Api, checks_in, main, rule

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@functools.cache
def noted(path: str) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
    """Return the examples by case, and TensorFlow's answers by signature, case and output."""
    rows, expected = pickle.loads(Path(path).read_bytes())
    return rows, expected


def examples(api: Api, case: str = "plain") -> list[Any]:
    return [api.example.Example.FromString(row) for row in noted(api.arguments[0])[0][case]]


def answers(api: Api, signature: str, case: str = "plain") -> dict[str, np.ndarray[Any, Any]]:
    expected: dict[str, np.ndarray[Any, Any]] = noted(api.arguments[0])[1][signature][case]
    return expected


def request(api: Api, method: str, signature: str = "", case: str = "plain", model: str = "heads") -> Any:
    message = getattr(api, method)
    found = message.ClassificationRequest() if method == "classification" else message.RegressionRequest()
    found.model_spec.name = model
    found.model_spec.signature_name = signature
    found.input.example_list.examples.extend(examples(api, case))
    return found


def classify(api: Api, signature: str = "", **options: Any) -> Any:
    return api.prediction.Classify(request(api, "classification", signature, **options), TIMEOUT_S)


def regress(api: Api, signature: str = "", **options: Any) -> Any:
    return api.prediction.Regress(request(api, "regression", signature, **options), TIMEOUT_S)


def assert_classified(result: Any, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    rows = [[(each.label, each.score) for each in row.classes] for row in result.classifications]
    labels = expected.get("classes")
    scores = expected.get("scores")
    shape = (labels if labels is not None else scores).shape  # type: ignore[union-attr]
    assert (len(rows), len(rows[0])) == shape
    found_labels = [[label.encode() for label, _ in row] for row in rows]
    found_scores = [[score for _, score in row] for row in rows]
    assert found_labels == (labels.tolist() if labels is not None else np.full(shape, b"").tolist())
    np.testing.assert_allclose(found_scores, scores if scores is not None else np.zeros(shape), rtol=1e-4, atol=1e-5)


def assert_regressed(result: Any, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    found = [each.value for each in result.regressions]
    np.testing.assert_allclose(found, expected["outputs"].reshape(-1), rtol=1e-4, atol=1e-5)


# -- answers -----------------------------------------------------------------------------------------------------------


@rule("service-1", "example-1", "example-8", "signature-1")
def check_classify_as_tensorflow_computes(api: Api) -> None:
    for case in ("one", "plain", "many"):
        for signature in ("serving_default", "scores", "classes"):
            assert_classified(classify(api, signature, case=case).result, answers(api, signature, case))


@rule("example-12")
def check_other_engines_classify_and_regress_by_their_settings(api: Api) -> None:
    for case in ("one", "plain", "many"):
        for signature in ("serving_default", "scores"):
            result = classify(api, signature, case=case, model="onnx_heads").result
            assert_classified(result, answers(api, signature, case))
        assert_regressed(regress(api, "flat", case=case, model="onnx_heads").result, answers(api, "flat", case))


@rule("example-1", "example-9")
def check_regress_as_tensorflow_computes(api: Api) -> None:
    for signature in ("regress", "flat"):
        for case in ("one", "plain", "many"):
            assert_regressed(regress(api, signature, case=case).result, answers(api, signature, case))


@rule("example-5")
def check_a_signature_for_predict_that_looks_right_is_good_enough(api: Api) -> None:
    assert_classified(classify(api, "extra").result, {"scores": answers(api, "extra")["scores"]})


@rule("example-10", "label-1")
def check_reply_names_version_and_signature(api: Api) -> None:
    spec = classify(api).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("heads", 1, "serving_default")
    asked = request(api, "regression", "regress")
    asked.model_spec.version_label = "stable"
    spec = api.prediction.Regress(asked, TIMEOUT_S).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("heads", 1, "regress")
    assert spec.WhichOneof("version_choice") == "version"


@rule("example-2")
def check_a_context_belongs_to_every_example(api: Api) -> None:
    with_context = request(api, "regression", "regress")
    given = with_context.input.example_list_with_context
    with_context.input.example_list.Clear()
    given.context.features.feature["k"].int64_list.value.append(3)
    given.context.features.feature["x"].float_list.value.extend([9.0, 9.0])
    for number in (1.0, 2.0):
        given.examples.add().features.feature["x"].float_list.value.extend([number, 0.5])
    given.examples.add().features.feature["k"].int64_list.value.append(1)
    plain = request(api, "regression", "regress")
    plain.input.example_list.ClearField("examples")
    for x, k in (([1.0, 0.5], 3), ([2.0, 0.5], 3), ([9.0, 9.0], 1)):
        features = plain.input.example_list.examples.add().features.feature
        features["x"].float_list.value.extend(x)
        features["k"].int64_list.value.append(k)
    found = api.prediction.Regress(with_context, TIMEOUT_S).result
    assert found == api.prediction.Regress(plain, TIMEOUT_S).result


@rule("message-3")
def check_bytes_features_arrive_as_they_are(api: Api) -> None:
    asked = api.request(
        "heads", inputs=api.typed("DT_STRING", [2], string_val=[e.SerializeToString() for e in examples(api)])
    )
    asked.model_spec.signature_name = "features"
    assert list(api.call(asked).outputs["word"].string_val) == [b"none", b"\xff\x00"]


def check_callers_at_once_get_their_own_rows(api: Api) -> None:
    rows = examples(api, "many")
    expected = answers(api, "flat", "many")["outputs"]

    def call(index: int) -> float:
        asked = request(api, "regression", "flat")
        asked.input.example_list.ClearField("examples")
        asked.input.example_list.examples.append(rows[index])
        (value,) = api.prediction.Regress(asked, TIMEOUT_S).result.regressions
        return float(value.value)

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(call, range(len(rows))))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# -- MultiInference ----------------------------------------------------------------------------------------------------


def multi(api: Api, *tasks: tuple[str, str, str], case: str = "plain") -> Any:
    asked = api.inference.MultiInferenceRequest()
    for model, signature, method in tasks:
        task = asked.tasks.add(method_name=method)
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    asked.input.example_list.examples.extend(examples(api, case))
    return asked


def infer(api: Api, *tasks: tuple[str, str, str], **options: Any) -> Any:
    return api.prediction.MultiInference(multi(api, *tasks, **options), TIMEOUT_S)


@rule("multi-4", "service-1")
def check_multi_inference_answers_every_task_in_order(api: Api) -> None:
    tasks = (("heads", "flat", REGRESS), ("heads", "", CLASSIFY), ("heads", "regress", REGRESS))
    flat, default, column = infer(api, *tasks, case="many").results
    assert_regressed(flat.regression_result, answers(api, "flat", "many"))
    assert_classified(default.classification_result, answers(api, "serving_default", "many"))
    assert_regressed(column.regression_result, answers(api, "regress", "many"))
    specs = [result.model_spec for result in (flat, default, column)]
    assert [spec.signature_name for spec in specs] == ["flat", "serving_default", "regress"]
    assert {(spec.name, spec.version.value) for spec in specs} == {("heads", 1)}


@rule("multi-2", "multi-3", "multi-4", "example-3")
def check_multi_inference_errors(api: Api) -> None:
    good = ("heads", "", CLASSIFY)
    no_name = "ModelSpec has no name specified."
    for tasks, code, text in (
        ([], INVALID, no_name),
        ([("", "", CLASSIFY)], INVALID, no_name),
        ([("nonesuch", "", CLASSIFY)], NOT_FOUND, "Servable not found for request: Latest(nonesuch)"),
        ([good, ("", "flat", REGRESS)], INVALID, "Found ModelSpec with an empty model name."),
        (
            [good, ("other", "flat", REGRESS)],
            INVALID,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        ([good, ("heads", "serving_default", REGRESS)], INVALID, "Duplicate evaluation of signature: serving_default"),
        ([good, ("heads", "nonesuch", REGRESS)], INVALID, "Requested signature not found in model graph: nonesuch"),
        (
            [good, ("heads", "predict", "tensorflow/serving/predict")],
            grpc.StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        ([good, ("heads", "wide", REGRESS)], INVALID, WIDE),
        ([good, ("heads", "two_inputs", CLASSIFY)], INVALID, "Expected one input Tensor."),
    ):
        api.fails(functools.partial(infer, api, *tasks), code, text)
    empty = multi(api, good)
    empty.input.Clear()
    api.fails(lambda: api.prediction.MultiInference(empty, TIMEOUT_S), INVALID, "Input is empty.")


@rule("multi-1", "lookup-5")
def check_the_first_task_chooses_the_version(api: Api) -> None:
    asked = multi(api, ("heads", "", CLASSIFY), ("heads", "flat", REGRESS))
    asked.tasks[0].model_spec.version_label = "stable"
    asked.tasks[1].model_spec.version.value = 7
    reply = api.prediction.MultiInference(asked, TIMEOUT_S)
    assert [result.model_spec.version.value for result in reply.results] == [1, 1]
    asked.tasks[0].model_spec.version.value = 7
    text = "Servable not found for request: Specific(heads, 7)"
    api.fails(lambda: api.prediction.MultiInference(asked, TIMEOUT_S), NOT_FOUND, text)


# -- errors ------------------------------------------------------------------------------------------------------------

WIDE = "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,3]"
CLASSIFY_ERRORS = {
    "nonesuch": "No signature was found with the name: nonesuch",
    "two_inputs": "Expected one input Tensor.",
    "three_outputs": "Expected one or two output Tensors, found 3",
    "other_input": 'No classification inputs found in SignatureDef: inputs {\n  key: "examples"',
    "other_output": 'Expected classification signature outputs to contain at least one of "classes" or "scores". '
    "Signature was: inputs {",
    "vector": "Expected Tensor shape: [batch_size num_classes] but got [2]",
    "number_classes": "Expected classes Tensor of DT_STRING. Got: DT_FLOAT",
    "double_scores": "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
    "first_classes": "Expected classes output batch size of 2. Got: 1",
    "first_scores": "Expected scores output batch size of 2. Got: 1",
    "uneven": "Tensors class and score should match in dim_size(1). Got 2 vs. 3",
    "number_input": "Expects arg[0] to be float but string is provided",
}
REGRESS_ERRORS = {
    "nonesuch": "No signature was found with the name: nonesuch",
    "two_inputs": "Expected one input Tensor.",
    "extra": "Expected one output Tensor.",
    "other_input_one": 'No regression inputs found in SignatureDef: inputs {\n  key: "examples"',
    "scores": 'No regression outputs found in SignatureDef: inputs {\n  key: "inputs"',
    "wide": WIDE,
    "double": "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE",
    "first": "Input batch size did not match output batch size: 2 vs. 1",
}


@rule("example-4", "example-6", "example-7")
def check_signatures_that_classify_refuses(api: Api) -> None:
    for signature, text in CLASSIFY_ERRORS.items():
        api.fails_with(functools.partial(classify, api, signature), INVALID, text)


@rule("example-4", "example-6", "example-7")
def check_signatures_that_regress_refuses(api: Api) -> None:
    for signature, text in REGRESS_ERRORS.items():
        api.fails_with(functools.partial(regress, api, signature), INVALID, text)


@rule("lookup-1", "lookup-2", "lookup-3", "lookup-5")
def check_errors_of_the_model_spec(api: Api) -> None:
    for method, call in (("classification", api.prediction.Classify), ("regression", api.prediction.Regress)):
        asked = request(api, method)
        asked.ClearField("model_spec")
        api.fails(functools.partial(call, asked, TIMEOUT_S), INVALID, "Missing ModelSpec")
        asked.model_spec.signature_name = "x"
        api.fails(functools.partial(call, asked, TIMEOUT_S), INVALID, "ModelSpec has no name specified.")
        asked.model_spec.name = "heads"
        asked.model_spec.version.value = 7
        text = "Servable not found for request: Specific(heads, 7)"
        api.fails(functools.partial(call, asked, TIMEOUT_S), NOT_FOUND, text)
        asked.model_spec.version_label = "canary"
        api.fails(functools.partial(call, asked, TIMEOUT_S), INVALID, "Unrecognized servable version label: canary")


@rule("example-3")
def check_no_examples(api: Api) -> None:
    for method, call in (("classification", api.prediction.Classify), ("regression", api.prediction.Regress)):
        asked = request(api, method, "regress" if method == "regression" else "")
        asked.input.example_list.ClearField("examples")
        api.fails(functools.partial(call, asked, TIMEOUT_S), INVALID, "Input is empty.")
        asked.input.Clear()
        api.fails(functools.partial(call, asked, TIMEOUT_S), INVALID, "Input is empty.")
        asked.input.example_list_with_context.context.features.feature["k"].int64_list.value.append(1)
        api.fails(functools.partial(call, asked, TIMEOUT_S), INVALID, "Input is empty.")


BAD_EXAMPLES: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "Name: <unknown>, Feature: x (data type: float) is required but could not be found."),
    (
        {"x": ("int64_list", [1, 2])},
        "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: int64 but expected type: float",
    ),
    (
        {"x": ("float_list", [1.0])},
        (
            "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  "
            "Values size: 1 but output shape: [2]"
        ),
    ),
)


@rule("example-11")
def check_what_is_said_of_bad_examples(api: Api) -> None:
    for model, (features, text) in itertools.product(("heads", "onnx_heads"), BAD_EXAMPLES):
        asked = request(api, "regression", "flat", model=model)
        asked.input.example_list.ClearField("examples")
        row = asked.input.example_list.examples.add()
        for name, (kind, values) in features.items():
            getattr(row.features.feature[name], kind).value.extend(values)
        api.fails_with(functools.partial(api.prediction.Regress, asked, TIMEOUT_S), INVALID, text)


@rule("example-12")
def check_models_of_other_engines_say_what_would_help(api: Api) -> None:
    api.fails_with(
        lambda: classify(api, model="half_plus_two"),
        grpc.StatusCode.FAILED_PRECONDITION,
        "signature 'serving_default' of model half_plus_two version 3 takes no tf.Examples "
        "(No classification inputs found in SignatureDef). It runs on onnxruntime, which does not parse them;",
    )


@rule("service-3")
def check_session_service_is_not_offered(api: Api) -> None:
    call = api.channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
    code, _ = api.error_of(lambda: call(b"", TIMEOUT_S))
    assert code is grpc.StatusCode.UNIMPLEMENTED


CHECKS = checks_in(globals())

if __name__ == "__main__":
    main(CHECKS)
