"""The asking side of the Open Inference Protocol, judged by tritonclient's bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from servable import protos
from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, ModelRef
from servable.core.tensors import Array
from servable.wire import kserve_grpc, kserve_rest, kserve_tensors

triton_grpc = pytest.importorskip("tritonclient.grpc")
triton_http = pytest.importorskip("tritonclient.http")

TEXTS = np.array([[b"one", b""], [b"\xc3\xa4", b"four"]], object)
ARRAYS: dict[str, Array] = {
    "FP32": np.array([[1.5, -2.25], [0, 3e9]], np.float32),
    "FP64": np.array([1.1, -7e300], np.float64),
    "FP16": np.array([0.5, 2.0], np.float16),
    "INT8": np.array([-128, 127], np.int8),
    "INT16": np.array([[-300]], np.int16),
    "INT32": np.arange(6, dtype=np.int32).reshape(2, 3),
    "INT64": np.array([-(2**63), 2**63 - 1], np.int64),
    "UINT8": np.array([0, 255], np.uint8),
    "UINT16": np.array([65535], np.uint16),
    "UINT32": np.array([2**32 - 1], np.uint32),
    "UINT64": np.array([2**64 - 1], np.uint64),
    "BOOL": np.array([True, False, True]),
    "BYTES": TEXTS,
}


def request_of(**inputs: Array) -> InferRequest:
    return InferRequest(ModelRef("m", 3), inputs)


@pytest.mark.parametrize("datatype", ARRAYS)
def test_grpc_requests_are_tritonclients(datatype: str) -> None:
    array = ARRAYS[datatype]
    theirs = triton_grpc.InferInput("x", array.shape, datatype)
    theirs.set_data_from_numpy(array)
    from tritonclient.grpc._utils import _get_inference_request

    expected = _get_inference_request(
        model_name="m", inputs=[theirs], model_version="3", request_id="", outputs=None, sequence_id=0,
        sequence_start=False, sequence_end=False, priority=0, timeout=None, parameters=None,
    )  # fmt: skip
    ours = kserve_grpc.encode_infer_request(request_of(x=array))
    assert type(expected).FromString(ours) == expected


@pytest.mark.parametrize("datatype", ARRAYS)
@pytest.mark.parametrize("binary", [True, False])
def test_http_requests_are_tritonclients(datatype: str, binary: bool) -> None:
    array = ARRAYS[datatype]
    if datatype == "FP16" and not binary:
        with pytest.raises(ServingError, match="FP16, which JSON cannot carry"):
            kserve_rest.encode_infer_request(request_of(x=array))
        return
    theirs = triton_http.InferInput("x", array.shape, datatype)
    theirs.set_data_from_numpy(array, binary_data=binary)
    wanted = None if binary else [triton_http.InferRequestedOutput("y", binary_data=False)]
    body, length = triton_http.InferenceServerClient.generate_request_body([theirs], outputs=wanted)
    ours, our_length = kserve_rest.encode_infer_request(request_of(x=array), binary=binary)
    if not binary:
        document = json.loads(body)
        del document["outputs"]
        assert json.loads(ours) == document
        assert our_length is None
    else:
        assert json.loads(ours[:our_length]) == json.loads(body[:length])
        assert ours[our_length:] == body[length:]


@pytest.mark.parametrize("datatype", ARRAYS)
def test_grpc_replies_are_read_raw_and_typed(datatype: str) -> None:
    array = ARRAYS[datatype]
    raw = protos.inference.ModelInferResponse(model_name="m", model_version="7")
    raw.outputs.add(name="y", datatype=datatype, shape=array.shape)
    raw.raw_output_contents.append(kserve_tensors.to_raw(array))
    answer = kserve_grpc.decode_infer_response(raw.SerializeToString())
    assert answer.model == ModelRef("m", 7)
    assert answer.outputs["y"].dtype == array.dtype
    np.testing.assert_array_equal(answer.outputs["y"], array)
    if datatype == "FP16":
        return
    typed = protos.inference.ModelInferResponse(model_name="m")
    tensor = typed.outputs.add(name="y", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, kserve_tensors.CONTENTS[datatype]).extend(array.reshape(-1).tolist())
    answer = kserve_grpc.decode_infer_response(typed.SerializeToString())
    assert answer.outputs["y"].dtype == array.dtype
    np.testing.assert_array_equal(answer.outputs["y"], array)


def test_http_replies_are_read_with_json_and_binary_outputs_mixed() -> None:
    texts, numbers = kserve_tensors.to_raw(TEXTS), kserve_tensors.to_raw(ARRAYS["FP16"])
    document = {
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "a", "datatype": "BYTES", "shape": [2, 2], "parameters": {"binary_data_size": len(texts)}},
            {"name": "b", "datatype": "INT64", "shape": [2, 1], "data": [[5], [-6]]},
            {"name": "c", "datatype": "FP16", "shape": [2], "parameters": {"binary_data_size": len(numbers)}},
        ],
    }
    head = json.dumps(document).encode()
    answer = kserve_rest.decode_infer_response(head + texts + numbers, b"%d" % len(head))
    np.testing.assert_array_equal(answer.outputs["a"], TEXTS)
    np.testing.assert_array_equal(answer.outputs["b"], np.array([[5], [-6]], np.int64))
    np.testing.assert_array_equal(answer.outputs["c"], ARRAYS["FP16"])


def test_metadata_of_both_wires_agree() -> None:
    message = protos.inference.ModelMetadataResponse(name="m", versions=["1"])
    message.inputs.add(name="x", datatype="FP32", shape=[-1, 3])
    message.outputs.add(name="y", datatype="BYTES", shape=[-1])
    document = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
    }
    found = kserve_grpc.decode_model_metadata_response(message.SerializeToString())
    assert found == kserve_rest.decode_metadata(json.dumps(document).encode())
    assert str(found) == "serving_default(x: float32[?,3]) -> y: string[?]"


def one_output(**changes: object) -> bytes:
    output = {"name": "y", "datatype": "INT32", "shape": [2], "data": [1, 2], **changes}
    return json.dumps({"outputs": [{key: value for key, value in output.items() if value is not None}]}).encode()


@pytest.mark.parametrize(
    ("body", "length", "problem"),
    [
        (b"[]", None, "no infer reply"),
        (b"{", None, "cannot be read"),
        (one_output(shape=[3]), None, "2 values are no tensor of shape"),
        (one_output(datatype="INT31"), None, "'INT31' is no datatype"),
        (one_output(data=None), None, "without 'data'"),
        (one_output(shape=[-1]), None, "no shape"),
        (one_output(data=None, parameters={"binary_data_size": 9}), None, "9 bytes are announced and 0 left"),
        (one_output() + b"xx", b"%d" % len(one_output()), "2 bytes after its last"),
        (one_output(), b"9999", "inference-header-content-length"),
    ],
)
def test_replies_that_break_the_protocol_are_internal(body: bytes, length: bytes | None, problem: str) -> None:
    with pytest.raises(ServingError, match=problem) as caught:
        kserve_rest.decode_infer_response(body, length)
    assert caught.value.code is Code.INTERNAL


@pytest.mark.parametrize(
    "data", [b"\x01\0\0\0", b"\x01\0\0", b"\x01\0\0\0a" * 3], ids=["cut in a string", "cut in a size", "too many"]
)
def test_raw_strings_are_taken_exactly(data: bytes) -> None:
    with pytest.raises(ServingError):
        kserve_tensors.from_raw(data, "BYTES", [2])


def test_not_finite_numbers_survive_json() -> None:
    array = np.array([np.nan, np.inf, -np.inf], np.float32)
    body, _ = kserve_rest.encode_infer_request(request_of(x=array))
    assert b"null" not in body
    assert json.loads(body)["inputs"][0]["data"][1] == float("inf")
