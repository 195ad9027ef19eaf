"""GetModelMetadata and GetModelStatus, both ways, and the errors that all methods share."""

from __future__ import annotations

import numpy as np
import pytest

from servable import protos
from servable.core import tensors
from servable.core.errors import Code, ServingError
from servable.core.messages import ModelRef
from servable.core.signatures import Signature, TensorSpec
from servable.core.status import VersionState, VersionStatus
from servable.wire import tfserving_grpc as codec

SIGNATURES = {
    "serving_default": Signature(
        "serving_default",
        {
            "k": TensorSpec("k", tensors.INT32, (), "k:0"),
            "x": TensorSpec("x", tensors.FLOAT32, (None, 3), "serving_x:0"),
        },
        {"y": TensorSpec("y", tensors.STRING, None, "PartitionedCall:0")},
        defaults={"k": np.array(5, np.int32)},
    ),
    "regress": Signature(
        "regress",
        {"inputs": TensorSpec("inputs", tensors.STRING, (None,), "e:0")},
        {"outputs": TensorSpec("outputs", tensors.BFLOAT16, (None, 1), "o:0")},
        "tensorflow/serving/regress",
    ),
}


def refusal(call, *arguments):
    with pytest.raises(ServingError) as failure:
        call(*arguments)
    return failure.value.code, failure.value.message


def test_metadata_shows_every_signature():
    body = codec.encode_model_metadata_response(ModelRef("m", 3, "stable"), SIGNATURES)
    reply = protos.serving.GetModelMetadataResponse.FromString(body)
    assert (reply.model_spec.name, reply.model_spec.version.value, reply.model_spec.signature_name) == ("m", 3, "")
    packed = reply.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    found = protos.serving.SignatureDefMap.FromString(packed.value).signature_def
    default = found["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    assert default.inputs["x"].name == "serving_x:0"
    assert default.inputs["x"].dtype == protos.tensorflow.DataType.DT_FLOAT
    assert [dim.size for dim in default.inputs["x"].tensor_shape.dim] == [-1, 3]
    assert default.inputs["k"].HasField("tensor_shape")
    assert default.outputs["y"].tensor_shape.unknown_rank
    assert list(default.defaults["k"].int_val) == [5]
    assert found["regress"].outputs["outputs"].dtype == protos.tensorflow.DataType.DT_BFLOAT16


def test_metadata_comes_back():
    model, signatures = codec.decode_model_metadata_response(
        codec.encode_model_metadata_response(ModelRef("m", 3), SIGNATURES)
    )
    assert model == ModelRef("m", 3)
    assert list(signatures) == ["regress", "serving_default"]
    assert signatures["regress"] == SIGNATURES["regress"]
    default = signatures["serving_default"]
    assert (default.inputs, default.outputs) == (
        SIGNATURES["serving_default"].inputs,
        SIGNATURES["serving_default"].outputs,
    )
    assert default.defaults["k"] == np.array(5)


def test_signatures_that_nobody_can_call_are_shown_too():
    message = protos.serving.SignatureDefMap()
    init = message.signature_def["__saved_model_init_op"]
    init.outputs["__saved_model_init_op"].name = "NoOp"
    init.outputs["__saved_model_init_op"].tensor_shape.unknown_rank = True
    init.outputs["quantized"].dtype = 11
    init.outputs["quantized"].tensor_shape.SetInParent()
    signatures = codec.decode_signatures(message)
    output = signatures["__saved_model_init_op"].outputs["__saved_model_init_op"]
    assert (output.dtype.name, output.node, output.shape) == ("invalid", "NoOp", None)
    message.signature_def["__saved_model_init_op"].outputs["quantized"].name = "quantized"
    assert codec.encode_signatures(signatures) == message
    unheard_of = TensorSpec("x", tensors.DType("77", np.dtype("V"), 0), ())
    encoded = codec.encode_signatures({"s": Signature("s", {"x": unheard_of}, {})})
    assert encoded.signature_def["s"].inputs["x"].dtype == 0


def test_metadata_requests():
    for model in (ModelRef("m"), ModelRef("m", 3), ModelRef("m", None, "canary")):
        assert codec.decode_model_metadata_request(codec.encode_model_metadata_request(model)) == model
    request = protos.serving.GetModelMetadataRequest(metadata_field=["signature_def"])
    decode = codec.decode_model_metadata_request
    assert refusal(decode, request.SerializeToString()) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    request = protos.serving.GetModelMetadataRequest(model_spec=protos.serving.ModelSpec())
    assert refusal(decode, request.SerializeToString()) == (
        Code.INVALID_ARGUMENT,
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.extend(["signature_def", "weights"])
    assert refusal(decode, request.SerializeToString()) == (
        Code.INVALID_ARGUMENT,
        "Metadata field weights is not supported",
    )
    del request.metadata_field[1]
    assert refusal(decode, request.SerializeToString()) == (
        Code.INVALID_ARGUMENT,
        "ModelSpec has no name specified.",
    )


def test_a_server_without_signatures_is_reported():
    empty = protos.serving.GetModelMetadataResponse()
    assert refusal(codec.decode_model_metadata_response, empty.SerializeToString())[0] is Code.INTERNAL
    empty.metadata["signature_def"].Pack(protos.serving.ModelSpec())
    assert "ModelSpec" in refusal(codec.decode_model_metadata_response, empty.SerializeToString())[1]


def test_status_has_states_and_errors_in_the_order_given():
    error = ServingError(Code.NOT_FOUND, "no such file")
    body = codec.encode_model_status_response(
        [VersionStatus(2, VersionState.AVAILABLE, engine="onnxruntime"), VersionStatus(1, VersionState.END, error)]
    )
    newest, oldest = protos.serving.GetModelStatusResponse.FromString(body).model_version_status
    assert (newest.version, newest.state, newest.status.error_code) == (2, 30, 0)
    assert newest.HasField("status")
    assert (oldest.version, oldest.state, oldest.status.error_code) == (1, 50, 5)
    assert oldest.status.error_message == "no such file"
    back = codec.decode_model_status_response(body)
    assert [(status.version, status.state) for status in back] == [(2, VersionState.AVAILABLE), (1, VersionState.END)]
    assert back[0].error is None
    assert str(back[1].error) == "NOT_FOUND: no such file"


def test_a_state_that_does_not_exist_is_reported():
    reply = protos.serving.GetModelStatusResponse()
    reply.model_version_status.add(version=4, state=31)
    code, message = refusal(codec.decode_model_status_response, reply.SerializeToString())
    assert code is Code.INTERNAL
    assert "version 4" in message


def test_status_requests():
    for model in (ModelRef("m"), ModelRef("m", 0)):
        assert codec.decode_model_status_request(codec.encode_model_status_request(model)) == model
    assert refusal(codec.decode_model_status_request, b"") == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    code, message = refusal(codec.decode_model_status_request, b"\x0a\xff")
    assert code is Code.INTERNAL
    assert "tensorflow.serving.GetModelStatusRequest" in message


@pytest.mark.parametrize("code", [code for code in Code if code])
@pytest.mark.rule("status-1")
def test_every_error_goes_out_and_comes_back(code):
    status, message = codec.encode_error(ServingError(code, "größe"))
    assert (status, message) == (int(code), "größe")
    back = codec.decode_error(status, message)
    assert (back.code, back.message) == (code, "größe")


@pytest.mark.rule("status-1")
def test_long_messages_are_cut_at_1024_bytes_and_never_inside_a_character():
    assert codec.encode_error(ServingError(Code.INTERNAL, "x" * 1024))[1] == "x" * 1024
    assert codec.encode_error(ServingError(Code.INTERNAL, "x" * 1025))[1] == "x" * 1024 + "...TRUNCATED"
    assert codec.encode_error(ServingError(Code.INTERNAL, "x" + "ü" * 600))[1] == "x" + "ü" * 511 + "...TRUNCATED"
    assert codec.decode_error(99, "?").code is Code.UNKNOWN
