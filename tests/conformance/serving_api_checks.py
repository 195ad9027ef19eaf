"""What TensorFlow's own client code finds at a live server. A program, so that TensorFlow stays out of the tests:

    serving_api_checks.py HOST:PORT tensorflow|stubs

Runs every ``check_*`` and prints one line of JSON for each: its name, and what went wrong or null. With ``stubs`` the
generated message classes are imported and TensorFlow itself is not, as light clients do.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

TIMEOUT_S = 10.0
BIG = 2**31 - 1
Check = Callable[[Any], None]


def rule(*ids: str) -> Callable[[Check], Check]:
    """Say which rules of docs/reference/tfserving.md a check judges; its test gets the marker of that name."""

    def mark(check: Check) -> Check:
        check.rules = ids  # type: ignore[attr-defined]
        return check

    return mark


class Api:
    """The stubs of one channel, and the message classes they take."""

    def __init__(self, address: str, *, with_tensorflow: bool) -> None:
        if with_tensorflow:
            self.tf: Any = importlib.import_module("tensorflow")
        else:
            _leave_tensorflow_out()
        self.with_tensorflow = with_tensorflow
        for name in ("predict", "get_model_metadata", "get_model_status", "classification", "model_management"):
            setattr(self, name, importlib.import_module(f"tensorflow_serving.apis.{name}_pb2"))
        self.types = importlib.import_module("tensorflow.core.framework.types_pb2")
        tensor = importlib.import_module("tensorflow.core.framework.tensor_pb2")
        self.TensorProto = tensor.TensorProto
        options = [("grpc.max_send_message_length", BIG), ("grpc.max_receive_message_length", BIG)]
        channel = grpc.insecure_channel(address, options)
        service = importlib.import_module("tensorflow_serving.apis.prediction_service_pb2_grpc")
        models = importlib.import_module("tensorflow_serving.apis.model_service_pb2_grpc")
        self.prediction = service.PredictionServiceStub(channel)
        self.models = models.ModelServiceStub(channel)

    def request(self, model: str, **inputs: Any) -> Any:
        request = self.predict.PredictRequest()  # type: ignore[attr-defined]
        request.model_spec.name = model
        for name, proto in inputs.items():
            request.inputs[name].CopyFrom(proto)
        return request

    def call(self, request: Any) -> Any:
        return self.prediction.Predict(request, TIMEOUT_S)

    def typed(self, dtype: str, shape: list[int], **values: Any) -> Any:
        """Return a TensorProto with values in a typed field."""
        proto = self.TensorProto(dtype=self.types.DataType.Value(dtype), **values)
        for size in shape:
            proto.tensor_shape.dim.add(size=size)
        return proto

    def content(self, dtype: str, array: np.ndarray[Any, Any]) -> Any:
        """Return a TensorProto with values as bytes."""
        return self.typed(dtype, list(array.shape), tensor_content=array.tobytes())

    def fails(self, call: Callable[[], Any], code: grpc.StatusCode, text: str) -> None:
        try:
            reply = call()
        except grpc.RpcError as error:
            found = (error.code(), error.details())
            assert found == (code, text), f"{found} is not {(code, text)}"
        else:
            raise AssertionError(f"{code} was expected, and {reply} came")


def _leave_tensorflow_out() -> None:
    """Let ``tensorflow.core...`` be imported without running ``tensorflow/__init__.py``."""
    found = importlib.util.find_spec("tensorflow")
    assert found is not None
    assert found.submodule_search_locations is not None
    package = types.ModuleType("tensorflow")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["tensorflow"] = package


# -- Predict -----------------------------------------------------------------------------------------------------------

TYPED: dict[str, tuple[str, str, list[Any]]] = {
    "bool": ("DT_BOOL", "bool_val", [True, False, True]),
    "float16": ("DT_HALF", "half_val", [0x3C00, 0x4000, 0xC200]),
    "float32": ("DT_FLOAT", "float_val", [1.5, -2.25, 1e30]),
    "float64": ("DT_DOUBLE", "double_val", [1.5, -2.25, 1e300]),
    "int8": ("DT_INT8", "int_val", [1, -128, 127]),
    "int16": ("DT_INT16", "int_val", [1, -32768, 32767]),
    "int32": ("DT_INT32", "int_val", [1, -(2**31), 2**31 - 1]),
    "int64": ("DT_INT64", "int64_val", [1, -(2**63), 2**63 - 1]),
    "string": ("DT_STRING", "string_val", [b"", "Grüße".encode(), b"x" * 300]),
    "uint8": ("DT_UINT8", "int_val", [1, 0, 255]),
    "uint16": ("DT_UINT16", "int_val", [1, 0, 65535]),
    "uint32": ("DT_UINT32", "uint32_val", [1, 0, 2**32 - 1]),
    "uint64": ("DT_UINT64", "uint64_val", [1, 0, 2**64 - 1]),
}
"""Input of the model ``types`` -> its type, the field of its values, and three of them."""


@rule("tensor-1", "tensor-17", "message-1")
def check_every_type_in_its_typed_field(api: Api) -> None:
    inputs = {name: api.typed(dtype, [3], **{field: values}) for name, (dtype, field, values) in TYPED.items()}
    reply = api.call(api.request("types", **inputs))
    assert set(reply.outputs) == {f"same_{name}" for name in TYPED}
    for name, (dtype, field, values) in TYPED.items():
        proto = reply.outputs[f"same_{name}"]
        assert api.types.DataType.Name(proto.dtype) == dtype, name
        assert [dim.size for dim in proto.tensor_shape.dim] == [3], name
        found = list(getattr(proto, field))
        assert found == (values if name != "float32" else [np.float32(value) for value in values]), (name, found)


@rule("tensor-6", "tensor-7")
def check_every_type_as_tensor_content(api: Api) -> None:
    inputs = {}
    for name, (dtype, _, values) in TYPED.items():
        if name == "string":
            inputs[name] = api.typed(dtype, [2], string_val=[b"a", b"b"])
        elif name == "float16":
            inputs[name] = api.content(dtype, np.array([1.0, 2.0], np.float16))
        else:
            inputs[name] = api.content(dtype, np.array(values[1:], np.dtype(name)))
    reply = api.call(api.request("types", **inputs))
    for name, (_, field, values) in TYPED.items():
        found = list(getattr(reply.outputs[f"same_{name}"], field))
        special: dict[str, list[Any]] = {"string": [b"a", b"b"], "float16": [0x3C00, 0x4000]}
        expected = special.get(name, values[1:])
        if name == "float32":
            expected = [np.float32(value) for value in expected]
        assert found == expected, (name, found)


@rule("message-1")
def check_tensors_that_tensorflow_makes_and_reads(api: Api) -> None:
    if not api.with_tensorflow:
        return
    rng = np.random.default_rng(3)
    arrays: dict[str, Any] = {
        name: rng.integers(0, 2, 5).astype(np.dtype(name)) for name in TYPED if name not in {"string"}
    }
    arrays["string"] = np.array([b"a", b"", b"ccc", "\u00e9".encode(), b"5"], dtype=object)
    request = api.request("types", **{name: api.tf.make_tensor_proto(array) for name, array in arrays.items()})
    reply = api.call(request)
    for name, array in arrays.items():
        back = api.tf.make_ndarray(reply.outputs[f"same_{name}"])
        assert back.dtype == array.dtype, name
        assert np.array_equal(back, array), name
    # Shapes that one value stands for, and a scalar: make_tensor_proto writes what its caller asks for.
    half = api.call(api.request("half_plus_two", x=api.tf.make_tensor_proto(1.0, shape=[4, 1])))
    assert np.array_equal(api.tf.make_ndarray(half.outputs["y"]), np.full([4, 1], 2.5, np.float32))


@rule("tensor-9", "tensor-10")
def check_one_value_fills_the_shape(api: Api) -> None:
    reply = api.call(api.request("half_plus_two", x=api.typed("DT_FLOAT", [3, 1], float_val=[4.0])))
    assert list(reply.outputs["y"].float_val) == [4.0, 4.0, 4.0]
    reply = api.call(api.request("half_plus_two", x=api.typed("DT_FLOAT", [3, 1], float_val=[2.0, 4.0])))
    assert list(reply.outputs["y"].float_val) == [3.0, 4.0, 4.0]
    reply = api.call(api.request("half_plus_two", x=api.typed("DT_FLOAT", [2, 1])))
    assert list(reply.outputs["y"].float_val) == [2.0, 2.0]


@rule("tensor-14")
def check_no_rows(api: Api) -> None:
    reply = api.call(api.request("half_plus_two", x=api.typed("DT_FLOAT", [0, 1])))
    assert [dim.size for dim in reply.outputs["y"].tensor_shape.dim] == [0, 1]
    assert list(reply.outputs["y"].float_val) == []


@rule("predict-9", "signature-1")
def check_reply_names_the_version_and_the_signature(api: Api) -> None:
    request = api.request("half_plus_two", x=api.typed("DT_FLOAT", [1, 1], float_val=[1.0]))
    for version in (None, 1):
        for signature in ("", "serving_default"):
            request.model_spec.signature_name = signature
            if version is not None:
                request.model_spec.version.value = version
            spec = api.call(request).model_spec
            assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 1, "serving_default")
            assert spec.HasField("version")
            assert not spec.version_label


@rule("predict-5", "predict-6")
def check_output_filter(api: Api) -> None:
    text = {name: api.content("DT_INT64", np.ones([2, 500], np.int64)) for name in ("input_ids", "e1_mas", "e2_mas")}
    request = api.request("text_cnn", **text)
    assert set(api.call(request).outputs) == {"labels", "probs"}
    request.output_filter[:] = ["probs"]
    assert set(api.call(request).outputs) == {"probs"}
    request.output_filter[:] = ["labels", "probs"]
    assert set(api.call(request).outputs) == {"labels", "probs"}
    request.output_filter[:] = ["nonesuch"]
    api.fails(
        lambda: api.call(request),
        grpc.StatusCode.INVALID_ARGUMENT,
        "output tensor alias not found in signature: nonesuch Outputs expected to be in the set {labels,probs}.",
    )
    request.output_filter[:] = ["probs", "probs"]
    api.fails(lambda: api.call(request), grpc.StatusCode.INVALID_ARGUMENT, "duplicate output tensor alias: probs")


@rule("service-7")
def check_messages_above_four_megabytes(api: Api) -> None:
    array = np.arange(3 * 1024 * 1024, dtype=np.float32).reshape(3, -1)
    reply = api.call(api.request("echo", x=api.content("DT_FLOAT", array)))
    assert reply.ByteSize() > 12 * 1024 * 1024
    assert np.array_equal(np.array(reply.outputs["y"].float_val, np.float32), array.ravel())


# -- what can be wrong with a Predict ----------------------------------------------------------------------------------


@rule("lookup-1", "lookup-2", "lookup-3", "lookup-4", "lookup-5", "select-1", "select-2")
def check_errors_of_the_model_spec(api: Api) -> None:
    x = api.typed("DT_FLOAT", [1, 1], float_val=[1.0])
    request = api.predict.PredictRequest()  # type: ignore[attr-defined]
    request.inputs["x"].CopyFrom(x)
    invalid, not_found = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    api.fails(lambda: api.call(request), invalid, "Missing ModelSpec")
    request.model_spec.signature_name = "serving_default"
    api.fails(lambda: api.call(request), invalid, "ModelSpec has no name specified.")
    request.model_spec.name = "nonesuch"
    api.fails(lambda: api.call(request), not_found, "Servable not found for request: Latest(nonesuch)")
    request.model_spec.version.value = 3
    api.fails(lambda: api.call(request), not_found, "Servable not found for request: Specific(nonesuch, 3)")
    request.model_spec.name = "half_plus_two"
    for version in (0, 3, -1, 2**63 - 1):
        request.model_spec.version.value = version
        text = f"Servable not found for request: Specific(half_plus_two, {version})"
        api.fails(lambda: api.call(request), not_found, text)
    request.model_spec.version_label = "stable"
    api.fails(lambda: api.call(request), invalid, "Unrecognized servable version label: stable")
    request.model_spec.name = "nonesuch"
    api.fails(lambda: api.call(request), invalid, "Unrecognized servable version label: stable")


@rule("predict-1")
def check_unknown_signature(api: Api) -> None:
    request = api.request("half_plus_two", x=api.typed("DT_FLOAT", [1, 1], float_val=[1.0]))
    request.model_spec.signature_name = "nonesuch"
    api.fails(
        lambda: api.call(request),
        grpc.StatusCode.FAILED_PRECONDITION,
        'Serving signature key "nonesuch" not found.',
    )


@rule("predict-3", "predict-4", "predict-7", "tensor-7", "tensor-14", "tensor-15", "tensor-5")
def check_errors_of_the_inputs(api: Api) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    x = api.typed("DT_FLOAT", [1, 1], float_val=[1.0])
    api.fails(
        lambda: api.call(api.request("half_plus_two")),
        invalid,
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
    )
    api.fails(
        lambda: api.call(api.request("half_plus_two", x=x, a=x)),
        invalid,
        "input size does not match signature: 2!=1 len({a,x}) != len({x}). Sent extra: {a}. Missing but required: {}.",
    )
    api.fails(
        lambda: api.call(api.request("half_plus_two", a=x)),
        invalid,
        "Signature input alias: x(feed name: x) not found in request and no default value provided. "
        "Inputs expected to be in the request {a}, or default input alias set: {}",
    )
    api.fails(
        lambda: api.call(api.request("half_plus_two", x=api.typed("DT_DOUBLE", [1, 1], double_val=[1.0]))),
        invalid,
        "Expects arg[0] to be float but double is provided",
    )
    for broken in (
        api.typed("DT_FLOAT", [2, 1], tensor_content=b"\0" * 7),
        api.typed("DT_FLOAT", [2, 1], tensor_content=b"\0" * 12),
        api.typed("DT_FLOAT", [-1, 1], float_val=[1.0]),
        api.typed("DT_INVALID", [1, 1], float_val=[1.0]),
    ):
        request = api.request("half_plus_two", x=broken)
        api.fails(functools.partial(api.call, request), invalid, "tensor parsing error: x")


# -- GetModelMetadata --------------------------------------------------------------------------------------------------


@rule("metadata-2")
def check_metadata_unpacks(api: Api) -> None:
    request = api.get_model_metadata.GetModelMetadataRequest(metadata_field=["signature_def"])  # type: ignore[attr-defined]
    request.model_spec.name = "text_cnn"
    reply = api.prediction.GetModelMetadata(request, TIMEOUT_S)
    spec = reply.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("text_cnn", 1, "")
    packed = reply.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    found = api.get_model_metadata.SignatureDefMap()  # type: ignore[attr-defined]
    assert packed.Unpack(found)
    assert set(found.signature_def) == {"serving_default"}
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert set(signature.inputs) == {"input_ids", "e1_mas", "e2_mas"}
    shape = signature.inputs["input_ids"].tensor_shape
    assert [dim.size for dim in shape.dim] == [-1, 500]
    assert signature.inputs["input_ids"].dtype == api.types.DT_INT64
    assert signature.outputs["probs"].dtype == api.types.DT_FLOAT
    assert [dim.size for dim in signature.outputs["labels"].tensor_shape.dim] == [-1]


@rule("metadata-1")
def check_errors_of_metadata(api: Api) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT

    def call() -> Any:
        return api.prediction.GetModelMetadata(request, TIMEOUT_S)

    request = api.get_model_metadata.GetModelMetadataRequest()  # type: ignore[attr-defined]
    api.fails(call, invalid, "Missing ModelSpec")
    request.model_spec.name = "nonesuch"
    api.fails(call, invalid, "GetModelMetadataRequest must specify at least one metadata_field")
    request.metadata_field[:] = ["signature_def", "size"]
    api.fails(call, invalid, "Metadata field size is not supported")
    request.metadata_field[:] = ["signature_def"]
    api.fails(call, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(nonesuch)")
    request.model_spec.name = ""
    request.model_spec.signature_name = "x"
    api.fails(call, invalid, "ModelSpec has no name specified.")


# -- GetModelStatus ----------------------------------------------------------------------------------------------------


@rule("state-1")
def check_status(api: Api) -> None:
    request = api.get_model_status.GetModelStatusRequest()  # type: ignore[attr-defined]
    request.model_spec.name = "half_plus_two"
    for version in (None, 1):
        if version is not None:
            request.model_spec.version.value = version
        (found,) = api.models.GetModelStatus(request, TIMEOUT_S).model_version_status
        assert (found.version, found.State.Name(found.state)) == (1, "AVAILABLE")
        assert found.HasField("status")
        assert (found.status.error_code, found.status.error_message) == (0, "")


@rule("state-3")
def check_errors_of_status(api: Api) -> None:
    def call() -> Any:
        return api.models.GetModelStatus(request, TIMEOUT_S)

    request = api.get_model_status.GetModelStatusRequest()  # type: ignore[attr-defined]
    api.fails(call, grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    request.model_spec.name = "nonesuch"
    api.fails(call, grpc.StatusCode.NOT_FOUND, "Could not find any versions of model nonesuch")
    request.model_spec.name = "half_plus_two"
    request.model_spec.version.value = 7
    api.fails(call, grpc.StatusCode.NOT_FOUND, "Could not find version 7 of model half_plus_two")


# -- the program -------------------------------------------------------------------------------------------------------

CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


def main() -> None:
    address, variant = sys.argv[1:]
    api = Api(address, with_tensorflow=variant == "tensorflow")
    for name, check in CHECKS.items():
        try:
            check(api)
            failure = None
        except Exception:
            failure = traceback.format_exc()
        sys.stdout.write(json.dumps([name, failure]) + "\n")
    assert ("tensorflow.python" in sys.modules) == api.with_tensorflow


if __name__ == "__main__":
    main()
