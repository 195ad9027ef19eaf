"""Predict, both ways: what it means, and that the remembered paths never differ from protobuf's parser."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servable import protos
from servable.core import tensors
from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.wire import tfserving_grpc as codec
from servable.wire import tfserving_grpc_predict
from servable.wire.tensor_bytes import HeadMemory
from servable.wire.tensor_layout import LayoutMemory
from servable.wire.tensor_proto import decode_tensors

TOKENS = np.arange(50, dtype=np.int32).reshape(1, 50)


def same(left, right):
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert (array.dtype, array.shape) == (right[name].dtype, right[name].shape)
        if array.dtype == object:
            assert array.tolist() == right[name].tolist()
        else:
            assert array.tobytes() == right[name].tobytes()


@pytest.fixture(autouse=True)
def fresh_memory(monkeypatch):
    monkeypatch.setattr(tfserving_grpc_predict, "_request_layouts", LayoutMemory(field=2))
    monkeypatch.setattr(tfserving_grpc_predict, "_response_layouts", LayoutMemory(field=1))
    monkeypatch.setattr(tfserving_grpc_predict, "_request_values", HeadMemory(field=2))
    monkeypatch.setattr(tfserving_grpc_predict, "_response_values", HeadMemory(field=1))


def remembered(body, start=0):
    return tfserving_grpc_predict._request_layouts.find(body, start) is not None


def refused(body, code, text):
    with pytest.raises(ServingError) as failure:
        codec.decode_predict_request(body)
    assert (failure.value.code, failure.value.message) == (code, text)


# ---- what requests mean


@pytest.mark.parametrize(
    "model", [ModelRef("m"), ModelRef("m", 3), ModelRef("m", 0), ModelRef("m", None, "stable"), ModelRef("m", None, "")]
)
@pytest.mark.parametrize("tensor_content", [False, True])
def test_requests_come_back(model, tensor_content):
    inputs = {"x": TOKENS, "name": tensors.as_tensor(["a", "bc"]), "keep": np.array(0.5, np.float32)}
    request = InferRequest(model, inputs, "sig", ("y", "z"))
    body = codec.encode_predict_request(request, tensor_content=tensor_content)
    for _ in range(3):
        back = codec.decode_predict_request(body, deadline=12.5, metadata=(("k", "v"),))
        assert (back.model, back.signature, back.output_filter) == (model, "sig", ("y", "z"))
        assert (back.deadline, back.metadata) == (12.5, (("k", "v"),))
        same(back.inputs, inputs)


def test_a_framed_message_is_decoded_in_place():
    body = codec.encode_predict_request(InferRequest(ModelRef("m"), {"x": TOKENS}), framed=True)
    assert body[:5] == b"\0" + (len(body) - 5).to_bytes(4, "big")
    for _ in range(3):
        same(codec.decode_predict_request(body, 5).inputs, {"x": TOKENS})
        same(codec.decode_predict_request(memoryview(body)[5:]).inputs, {"x": TOKENS})
    assert remembered(body, 5)


def test_bad_requests_are_refused_in_tensorflow_servings_words():
    request = protos.serving.PredictRequest()
    refused(request.SerializeToString(), Code.INVALID_ARGUMENT, "Missing ModelSpec")
    request.model_spec.signature_name = "s"
    refused(request.SerializeToString(), Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    request.model_spec.name = "m"
    request.inputs["the_input"].dtype = 0
    refused(request.SerializeToString(), Code.INVALID_ARGUMENT, "tensor parsing error: the_input")
    refused(b"\xff", Code.INTERNAL, "the 1 bytes received are not a tensorflow.serving.PredictRequest message")


def test_many_short_tensors_share_one_bound():
    request = protos.serving.PredictRequest()
    request.model_spec.name = "m"
    for name in "abcd":
        request.inputs[name].dtype = 1
        request.inputs[name].tensor_shape.dim.add(size=1000)
    assert len(codec.decode_predict_request(request.SerializeToString(), max_fill_bytes=16_000).inputs) == 4
    with pytest.raises(ServingError, match="tensor parsing error"):
        codec.decode_predict_request(request.SerializeToString(), max_fill_bytes=15_999)


def test_what_cannot_be_sent_is_refused_before_it_is_sent():
    with pytest.raises(ServingError, match=r"input 'x'.*not a tensor") as failure:
        codec.encode_predict_request(InferRequest(ModelRef("m"), {"x": np.array(["2020"], "M8[Y]")}))
    assert failure.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(ServingError, match=r"output 'y'.*not a tensor") as failure:
        codec.encode_predict_response(InferResponse(ModelRef("m", 1), "s", {"y": np.array(["2020"], "M8[Y]")}))
    assert failure.value.code is Code.INTERNAL


# ---- memory


def test_a_request_like_an_earlier_one_is_not_parsed(monkeypatch):
    first, second, third = (
        codec.encode_predict_request(
            InferRequest(ModelRef("m", 1), {"x": TOKENS + add, "y": TOKENS.astype("f4") * add})
        )
        for add in (1, 2, 3)
    )
    codec.decode_predict_request(first)
    assert not remembered(first), "one request alone is not worth remembering"
    codec.decode_predict_request(second)
    assert remembered(third)
    monkeypatch.setattr(tfserving_grpc_predict, "parse", None)
    found = codec.decode_predict_request(third)
    same(found.inputs, {"x": TOKENS + 3, "y": TOKENS.astype("f4") * 3})
    assert found.model == ModelRef("m", 1)
    assert all(array.flags.aligned for array in found.inputs.values())


def test_large_tensors_are_views_of_the_body():
    body = codec.encode_predict_request(InferRequest(ModelRef("m"), {"x": np.zeros((100, 100), np.float32)}))
    for _ in range(3):
        found = codec.decode_predict_request(body)
    assert remembered(body)
    assert np.shares_memory(found.inputs["x"], np.frombuffer(body, np.uint8))


@pytest.mark.parametrize(
    "array",
    [np.array([True, False]), tensors.as_tensor(["a"]), np.zeros((0,), np.float32)],
    ids=["bool", "text", "none"],
)
def test_what_must_be_looked_at_is_never_remembered(array):
    body = codec.encode_predict_request(InferRequest(ModelRef("m"), {"x": array}))
    for _ in range(20):
        same(codec.decode_predict_request(body).inputs, {"x": array})
    assert not remembered(body)


def test_memory_is_bounded():
    memory = LayoutMemory(field=2, capacity=8)
    for size in range(1, 100):
        array = np.zeros(size, np.float32)
        body = codec.encode_predict_request(InferRequest(ModelRef("m"), {"x": array}))
        for _ in range(30):
            memory.learn(body, 0, None, {"x": array})
    assert len(memory._layouts) == 8
    assert len(memory._attempts) == 8
    for name in "abcdefgh":
        body = codec.encode_predict_request(InferRequest(ModelRef(name), {"x": array}))
        for _ in range(30):
            memory.learn(body, 0, None, {"x": array})
    assert len(memory._layouts[len(body)]) == 4
    long = codec.encode_predict_request(InferRequest(ModelRef("n" * 3000), {"x": array}))
    for _ in range(3):
        memory.learn(long, 0, None, {"x": array})
    assert memory.find(long, 0) is None
    heads = HeadMemory(1, capacity=4)
    for size in range(50):
        heads.append([], "y", np.zeros(size, np.float32))
        heads.append([], "z", np.full(size, 300))
    assert len(heads._heads) <= 4


def outcome(decode, body):
    try:
        request = decode(body)
    except ServingError as error:
        return error.code, error.message
    return request


def by_protobuf(body):
    message = protos.serving.PredictRequest.FromString(body)
    if not message.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    spec = message.model_spec
    if not spec.name:
        raise ServingError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    version = spec.version.value if spec.HasField("version") else None
    label = spec.version_label if spec.HasField("version_label") else None
    try:
        inputs = decode_tensors(message.inputs)
    except ValueError as failure:
        raise ServingError(Code.INVALID_ARGUMENT, f"tensor parsing error: {failure.args[0]}") from None
    return InferRequest(
        ModelRef(spec.name, version, label), inputs, spec.signature_name, tuple(message.output_filter)
    )  # fmt: skip


def agree(body):
    try:
        expected = outcome(by_protobuf, body)
    except Exception:  # protobuf's DecodeError
        expected = None
    found = outcome(codec.decode_predict_request, body)
    if expected is None:
        assert isinstance(found, tuple)
        assert found[0] is Code.INTERNAL
    elif isinstance(expected, tuple):
        assert found == expected
    else:
        assert isinstance(found, InferRequest), found
        assert (found.model, found.signature, found.output_filter) == (
            expected.model, expected.signature, expected.output_filter
        )  # fmt: skip
        same(found.inputs, expected.inputs)


arrays = st.builds(
    lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 100, shape).astype(dtype),
    st.sampled_from(["f4", "f8", "i4", "i8", "u1", "f2", "c8", "?"]),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.integers(0, 1000),
)
requests = st.builds(
    InferRequest,
    st.builds(ModelRef, st.sampled_from(["m", "n", "mm"]), st.none() | st.integers(0, 300)),
    st.dictionaries(st.sampled_from(["x", "y", "xy", "", "ü"]), arrays, max_size=3),
    st.sampled_from(["", "s"]),
    st.lists(st.sampled_from(["o", "p"]), max_size=2).map(tuple),
)


@st.composite
def neighbours(draw):
    """A message and others of its length: with other data, with bytes changed, exchanged or moved."""
    request = draw(requests)
    body = codec.encode_predict_request(request, tensor_content=draw(st.booleans()))
    found = [body]
    for _ in range(draw(st.integers(1, 8))):
        changed = bytearray(draw(st.sampled_from(found)))
        for _ in range(draw(st.integers(1, 3))):
            at, to = draw(st.integers(0, len(changed) - 1)), draw(st.integers(0, len(changed) - 1))
            kind = draw(st.integers(0, 3))
            if kind == 0:
                changed[at] = draw(st.integers(0, 255))
            elif kind == 1:
                changed[at] = (changed[at] + draw(st.sampled_from([-8, -1, 1, 8]))) % 256
            elif kind == 2:
                changed[at], changed[to] = changed[to], changed[at]
            else:
                changed.insert(to, changed.pop(at))
        found.append(bytes(changed))
    return found


@settings(max_examples=400, deadline=None)
@given(bodies=neighbours())
def test_no_two_messages_are_taken_for_each_other(bodies):
    for body in (*bodies, *bodies, *reversed(bodies)):
        agree(body)


def test_near_misses_of_one_length_keep_apart():
    def made(name="m", key="x", shape=(2, 3), dtype="f4", signature="s", fill=1):
        array = np.full(shape, fill, dtype)
        return codec.encode_predict_request(InferRequest(ModelRef(name), {key: array}, signature))

    base = made()
    twin = [made(name="n"), made(key="y"), made(shape=(3, 2)), made(dtype="i4"), made(signature="t"), made(fill=2)]
    assert {len(body) for body in twin} == {len(base)}
    values = codec.encode_predict_request(
        InferRequest(ModelRef("m"), {"x": np.ones((2, 3), "f4")}, "s"), tensor_content=False
    )
    assert len(values) == len(base)
    for body in (base, base, base, *twin, values, base, *reversed(twin)):
        agree(body)
    assert remembered(made(fill=99))


@pytest.mark.parametrize("tensor_content", [False, True])
def test_every_change_of_one_byte_is_noticed(tensor_content):
    inputs: dict[str, tensors.Array] = {
        "x": np.arange(3, dtype=np.float32),
        "y": np.arange(4, dtype=np.float64).reshape(2, 2),
    }
    body = codec.encode_predict_request(
        InferRequest(ModelRef("m", 1), inputs, "s", ("o",)), tensor_content=tensor_content
    )
    for _ in range(3):
        agree(body)
    for position in range(len(body)):
        assert remembered(body)
        for byte in (*range(0, 256, 7), body[position] ^ 1, body[position] ^ 8):
            agree(body[:position] + bytes([byte]) + body[position + 1 :])


def one_input(*values):
    """Return a request whose map entry holds ``values`` one after the other: protobuf merges them."""
    entry = b"\x0a\x01x" + b"".join(b"\x12" + bytes([len(value)]) + value for value in values)
    return b"\x0a\x03\x0a\x01m\x12" + bytes([len(entry)]) + entry


SHAPE = b"\x12\x04\x12\x02\x08\x02"
FLOAT, INT = b"\x08\x01" + SHAPE, b"\x08\x03" + SHAPE
CONTENT, FLOAT_VAL, INT_VAL = b"\x22\x08%b", b"\x2a\x08%b", b"\x3a\x02\x07\x08"


@pytest.mark.parametrize(
    "values",
    [
        (INT + FLOAT_VAL,),
        (FLOAT + CONTENT, FLOAT_VAL),
        (FLOAT + FLOAT_VAL, CONTENT),
        (FLOAT + CONTENT + FLOAT_VAL,),
        (FLOAT + FLOAT_VAL + FLOAT_VAL,),
        (FLOAT + CONTENT + CONTENT,),
        (FLOAT + FLOAT_VAL + INT_VAL,),
        (INT + INT_VAL + FLOAT_VAL,),
        (FLOAT + b"\x2d\x00\x00\x80?" + FLOAT_VAL,),
        (FLOAT + CONTENT + INT,),
        (INT + CONTENT + FLOAT,),
        (b"\x08\x02\x12\x04\x12\x02\x08\x01" + FLOAT_VAL,),
        (b"\x08\x01\x12\x04\x12\x02\x08\x03" + FLOAT_VAL,),
        (b"\x08\x01\x12\x04\x12\x02\x08\x01" + FLOAT_VAL,),
        (FLOAT + CONTENT,),
        (FLOAT + FLOAT_VAL,),
    ],
)
def test_values_in_several_or_wrong_places_are_read_as_protobuf_reads_them(values):
    marks = b"".join(values).count(b"%b")
    rng = np.random.default_rng(1)
    data = [rng.bytes(8) for _ in range(marks)]

    def made():
        following = iter(data)
        return [value % tuple(next(following) for _ in range(value.count(b"%b"))) for value in values]

    for changing in range(marks):
        for _ in range(3):
            data[changing] = rng.bytes(8)
            agree(one_input(*made()))
            agree(one_input(*made()) + one_input(*made())[5:])  # the same name twice


def test_data_that_looks_like_a_message_is_data():
    inner = codec.encode_predict_request(InferRequest(ModelRef("evil"), {"x": np.zeros(4, np.uint8)}))
    for filler in (0, 255, 0x12):
        data = np.frombuffer(inner + bytes([filler]) * 8, np.uint8)
        body = codec.encode_predict_request(InferRequest(ModelRef("good"), {"x": data}))
        for _ in range(3):
            agree(body)
        assert remembered(body)


@pytest.mark.parametrize(
    "surplus",
    [
        b"\x12\x07\x0a\x01x\x12\x02\x08\x01",  # the same name again: the last one wins
        b"\x0a\x03\x0a\x01z",  # model_spec again: merged
        b"\xa3\x06\xa4\x06",  # an unknown group
        b"\x9d\x06abcd",  # an unknown fixed32
        b"\x3a\x00",  # request_options
    ],
)
def test_unusual_messages_are_read_as_protobuf_reads_them(surplus):
    body = codec.encode_predict_request(InferRequest(ModelRef("m"), {"x": TOKENS})) + surplus
    for _ in range(4):
        agree(body)


# ---- replies


def reply(outputs):
    return InferResponse(ModelRef("m", 7), "serving_default", outputs)


def expected_reply(response, *, tensor_content=False):
    message = protos.serving.PredictResponse()
    message.model_spec.name = response.model.name
    message.model_spec.version.value = response.model.version
    message.model_spec.signature_name = response.signature
    for name, array in response.outputs.items():
        tensor = message.outputs[name]
        tensor.dtype = {"f4": 1, "f8": 2, "i4": 3, "i8": 9, "u1": 4, "f2": 19, "c8": 8, "b1": 10}[array.dtype.str[1:]]
        tensor.tensor_shape.SetInParent()
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        field = {1: "float_val", 2: "double_val", 9: "int64_val", 19: "half_val", 8: "scomplex_val", 10: "bool_val"}
        values = array.reshape(-1)
        values = values.view("u2") if tensor.dtype == 19 else values.view("f4") if tensor.dtype == 8 else values
        if tensor_content:
            tensor.tensor_content = array.tobytes()
        else:
            getattr(tensor, field.get(tensor.dtype, "int_val")).extend(values.tolist())
    return message


@settings(max_examples=200, deadline=None)
@given(outputs=st.dictionaries(st.text(max_size=3), arrays, max_size=3), tensor_content=st.booleans())
def test_replies_are_what_protobuf_would_build(outputs, tensor_content):
    response = reply(outputs)
    for _ in range(2):
        body = codec.encode_predict_response(response, tensor_content=tensor_content)
        message = protos.serving.PredictResponse.FromString(body)
        assert message == expected_reply(response, tensor_content=tensor_content)
        framed = codec.encode_predict_response(response, tensor_content=tensor_content, framed=True)
        assert framed == b"\0" + len(body).to_bytes(4, "big") + body
    for _ in range(3):
        back = codec.decode_predict_response(framed, 5)
        assert (back.model, back.signature) == (response.model, response.signature)
        same(back.outputs, {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in outputs.items()})


def test_replies_of_any_memory_order_are_row_major():
    for shape in ((3, 4), (60, 70)):
        array = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
        for odd in (
            np.asfortranarray(array),
            array[::-1],
            array[:, ::2],
            array.T,
            array.astype(">f4"),
            array.astype(">i4"),
        ):
            for tensor_content in (False, True):
                body = codec.encode_predict_response(reply({"y": odd}), tensor_content=tensor_content)
                np.testing.assert_array_equal(codec.decode_predict_response(body).outputs["y"], odd)


def test_large_replies_of_types_without_a_buffer_go_out():
    array = np.arange(5000).astype(tensors.BFLOAT16.numpy)
    for tensor_content in (False, True):
        body = codec.encode_predict_response(reply({"y": array}), tensor_content=tensor_content)
        same(codec.decode_predict_response(body).outputs, {"y": array})


def test_a_server_that_sends_nonsense_is_reported():
    message = protos.serving.PredictResponse()
    message.outputs["y"].dtype = 20
    with pytest.raises(ServingError, match=r"output 'y' that is no tensor: DT_RESOURCE") as failure:
        codec.decode_predict_response(message.SerializeToString())
    assert failure.value.code is Code.INTERNAL


@pytest.fixture(scope="module")
def apis():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tensorflow")
        return pytest.importorskip("tensorflow_serving.apis.predict_pb2")


@pytest.mark.tensorflow
def test_tensorflow_servings_client_package_reads_ours_and_we_read_its(apis):
    import tensorflow as tf

    request = apis.PredictRequest()
    request.model_spec.name = "m"
    request.model_spec.version.value = 2
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(TOKENS))
    request.inputs["keep_prob"].CopyFrom(tf.make_tensor_proto(1.0))
    request.output_filter.append("y")
    body = request.SerializeToString()
    for _ in range(3):
        found = codec.decode_predict_request(body)
        assert (found.model, found.output_filter) == (ModelRef("m", 2), ("y",))
        same(found.inputs, {"x": TOKENS, "keep_prob": np.array(1.0, np.float32)})
    assert remembered(body)
    outputs = {"p": np.array([[0.25, 0.75]], np.float32), "label": np.array([1]), "text": tensors.as_tensor(["a"])}
    response = apis.PredictResponse.FromString(codec.encode_predict_response(reply(outputs)))
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 7)
    assert response.model_spec.signature_name == "serving_default"
    assert list(response.outputs["p"].float_val) == [0.25, 0.75]
    for name, array in outputs.items():
        assert tf.make_ndarray(response.outputs[name]).tolist() == array.tolist()
