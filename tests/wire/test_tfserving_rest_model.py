"""Model status and metadata over REST: the layout, judged by protobuf's own JSON reader, and the way back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from google.protobuf import json_format

from servable import protos
from servable.core.errors import Code, ServingError, not_found
from servable.core.messages import ModelRef
from servable.core.signatures import Signature, TensorSpec
from servable.core.status import VersionState, VersionStatus
from servable.core.tensors import ALL_DTYPES, FLOAT32, INT64, STRING, dtype_named
from servable.wire.tensor_proto import decode_tensor
from servable.wire.tfserving_rest_model import decode_metadata, decode_status, encode_metadata, encode_status

STATUSES = [
    VersionStatus(2**53 + 1, VersionState.AVAILABLE),
    VersionStatus(2, VersionState.LOADING),
    VersionStatus(1, VersionState.END, not_found("no such file: \udcff")),
]
SIGNATURES = {
    "serving_default": Signature(
        "serving_default",
        {"x": TensorSpec("x", FLOAT32, (None, 3), "in:0"), "free": TensorSpec("free", STRING, None, "free:0")},
        {"y": TensorSpec("y", INT64, (), "out:0")},
        defaults={"x": np.array([[1, 2, 3]], np.float32), "free": np.array([b"\xff"], object)},
    ),
    "all": Signature(
        "all", {dtype.name: TensorSpec(dtype.name, dtype, (2,), "n:0") for dtype in ALL_DTYPES}, {}, "custom/method"
    ),
}


def test_the_layout_of_status() -> None:
    assert json.loads(encode_status(STATUSES[:1])) == {
        "model_version_status": [
            {
                "version": "9007199254740993",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert json.loads(encode_status([])) == {"model_version_status": []}


def test_protobuf_reads_status() -> None:
    message = json_format.Parse(encode_status(STATUSES), protos.serving.GetModelStatusResponse())
    found = [(each.version, each.state, each.status.error_code) for each in message.model_version_status]
    assert found == [(2**53 + 1, 30, 0), (2, 20, 0), (1, 50, 5)]
    assert message.model_version_status[2].status.error_message == "no such file: ?"


def test_status_is_read_back() -> None:
    found = decode_status(encode_status(STATUSES))
    assert [(each.version, each.state) for each in found] == [(each.version, each.state) for each in STATUSES]
    assert str(found[2].error) == "NOT_FOUND: no such file: ?"
    assert found[0].error is None


def test_status_with_members_left_out_is_read() -> None:
    assert decode_status(b'{"model_version_status": [{"state": "START"}]}') == [VersionStatus(0, VersionState.START)]
    assert decode_status(b"{}") == []


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'{"model_version_status": [{"version": "1"}]}', b'{"model_version_status": [1]}',
             b'{"model_version_status": [{"state": "LOST"}]}', b'{"model_version_status": 5}'],
)  # fmt: skip
def test_what_is_no_status(body: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        decode_status(body)
    assert caught.value.code is Code.INTERNAL


def test_the_layout_of_metadata() -> None:
    plain = {"s": Signature("s", {"x": TensorSpec("x", FLOAT32, (None,), "x:0")}, {"y": TensorSpec("y", INT64, None)})}
    assert json.loads(encode_metadata(ModelRef("m", 123), plain)) == {
        "model_spec": {"name": "m", "signature_name": "", "version": "123"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "s": {
                        "inputs": {
                            "x": {
                                "dtype": "DT_FLOAT",
                                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                                "name": "x:0",
                            }
                        },
                        "outputs": {
                            "y": {
                                "dtype": "DT_INT64",
                                "tensor_shape": {"dim": [], "unknown_rank": True},
                                "name": "y",
                            }
                        },
                        "method_name": "tensorflow/serving/predict",
                        "defaults": {},
                    }
                }
            }
        },
    }


def test_protobuf_reads_metadata() -> None:
    inner = json.loads(encode_metadata(ModelRef("m", 1), SIGNATURES))["metadata"]["signature_def"]
    message = json_format.ParseDict(inner, protos.serving.SignatureDefMap())
    found = message.signature_def["serving_default"]
    assert [dim.size for dim in found.inputs["x"].tensor_shape.dim] == [-1, 3]
    assert decode_tensor(found.defaults["x"]).tolist() == [[1, 2, 3]]
    assert decode_tensor(found.defaults["free"]).tolist() == [b"\xff"]
    assert message.signature_def["all"].method_name == "custom/method"


def test_metadata_is_read_back() -> None:
    model, found = decode_metadata(encode_metadata(ModelRef("m", 7, None), SIGNATURES))
    assert model == ModelRef("m", 7)
    assert found.keys() == SIGNATURES.keys()
    for name, signature in SIGNATURES.items():
        assert found[name].inputs == signature.inputs
        assert found[name].outputs == signature.outputs
        assert found[name].method_name == signature.method_name
    defaults = found["serving_default"].defaults
    assert defaults["x"].tolist() == [[1, 2, 3]]
    assert defaults["free"].tolist() == [b"\xff"]


def test_signatures_that_nobody_can_call_are_shown() -> None:
    init = TensorSpec("__saved_model_init_op", dtype_named("invalid"), None, "NoOp")
    signatures = {**SIGNATURES, "__saved_model_init_op": Signature("__saved_model_init_op", {}, {init.name: init}, "")}
    body = encode_metadata(ModelRef("m", 1), signatures)
    shown = json.loads(body)["metadata"]["signature_def"]["signature_def"]["__saved_model_init_op"]
    assert shown["outputs"][init.name] == {
        "dtype": "DT_INVALID", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": "NoOp",
    }  # fmt: skip
    read = decode_metadata(body)[1]
    assert read.keys() == signatures.keys()
    assert read["__saved_model_init_op"].outputs == {init.name: init}


UNKNOWN_TYPE = json.dumps(
    {
        "model_spec": {"name": "m", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"s": {"inputs": {"x": {"dtype": "DT_NONE"}}}}}},
    }
).encode()


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"model_spec": {"name": "m", "version": "1"}, "metadata": {}}',
             b'{"model_spec": {"name": "m", "version": "x"}, "metadata": {"signature_def": {"signature_def": {}}}}',
             UNKNOWN_TYPE],
)  # fmt: skip
def test_what_is_no_metadata(body: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        decode_metadata(body)
    assert caught.value.code is Code.INTERNAL
