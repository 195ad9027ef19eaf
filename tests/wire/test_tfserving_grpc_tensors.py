"""TensorProto <-> numpy: the rules, and TensorFlow's own verdict on the same bytes."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servable import protos
from servable.core import tensors
from servable.wire.tensor_bytes import encode_tensor, tensor_message
from servable.wire.tensor_proto import NUMBERS, decode_tensor, decode_tensors, dtype_of_number, short_name
from servable.wire.varints import pack_varints, read_varint, varint

NUMERIC = [dtype for dtype in tensors.ALL_DTYPES if dtype is not tensors.STRING]
FIELDS = {
    1: "float_val", 2: "double_val", 3: "int_val", 4: "int_val", 5: "int_val", 6: "int_val", 8: "scomplex_val",
    9: "int64_val", 10: "bool_val", 11: "int_val", 12: "int_val", 13: "int_val", 14: "half_val", 15: "int_val",
    16: "int_val", 17: "int_val", 18: "dcomplex_val", 19: "half_val", 22: "uint32_val", 23: "uint64_val",
    29: "int_val", 30: "int_val",
}  # fmt: skip


def proto(number, shape=(), **fields):
    message = protos.tensorflow.TensorProto(dtype=number, **fields)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def same(left, right):
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    if left.dtype == object:
        assert left.tolist() == right.tolist()
    elif left.dtype.name in ("int4", "uint4"):  # the upper half of each byte means nothing
        assert left.astype(np.int8).tolist() == right.astype(np.int8).tolist()
    else:
        assert left.tobytes() == right.tobytes()


def sample(dtype, shape=(2, 3)):
    if dtype is tensors.STRING:
        return tensors.as_tensor(np.array([b"a", b"", b"nul\x00", "größe", b"\xff", b"x" * 200], object)).reshape(shape)
    raw = np.array([0, 1, 2, 3, 5, 7])
    if dtype.name.startswith(("int", "float", "bf", "complex")) and not dtype.name.startswith("uint"):
        raw = raw - 3
    array = raw.astype(dtype.numpy)
    return (array * (1 + 1j)).astype(dtype.numpy).reshape(shape) if dtype.numpy.kind == "c" else array.reshape(shape)


# ---- what the rules say, in words


@pytest.mark.parametrize("tensor_content", [False, True])
@pytest.mark.parametrize("dtype", tensors.ALL_DTYPES, ids=str)
def test_every_type_goes_out_and_comes_back(dtype, tensor_content):
    for array in (sample(dtype), sample(dtype)[:1, :1].reshape(()), sample(dtype)[:0], sample(dtype)[:, ::2]):
        message = encode_tensor(array, tensor_content=tensor_content)
        assert message.dtype == NUMBERS[dtype.name]
        assert message.HasField("tensor_shape")
        if array.size:
            assert bool(message.tensor_content) == tensor_content
        same(decode_tensor(message), array)


def test_foreign_byte_orders_and_numpy_strings_go_out_as_what_they_mean():
    same(decode_tensor(encode_tensor(np.array([1, 2], ">i4"))), np.array([1, 2], np.int32))
    same(decode_tensor(encode_tensor(np.array([1.5], ">f8"), tensor_content=True)), np.array([1.5]))
    same(decode_tensor(encode_tensor(np.array(["ab", "ü"]))), tensors.as_tensor(["ab", "ü"]))


@pytest.mark.parametrize("array", [np.array(["2020-01-01"], "M8[D]"), np.array([object()]), np.array([(1,)], "i4,")])
def test_what_is_no_tensor_is_refused(array):
    with pytest.raises(ValueError, match="tensor"):
        tensor_message(array)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (proto(1, [4], float_val=[2, 5]), np.array([2, 5, 5, 5], np.float32)),
        (proto(1, [2, 2], float_val=[7]), np.full((2, 2), 7, np.float32)),
        (proto(1, [3]), np.zeros(3, np.float32)),
        (proto(1, [1], float_val=[1, 2, 3]), np.ones(1, np.float32)),
        (proto(1, [2], int_val=[7, 8]), np.zeros(2, np.float32)),
        (proto(1, [], float_val=[1.5]), np.array(1.5, np.float32)),
        (proto(1, [0, 3], float_val=[1.5]), np.zeros((0, 3), np.float32)),
        (proto(1, [0], tensor_content=b"1234"), np.zeros(0, np.float32)),
        (proto(1, [1], float_val=[9], tensor_content=b"\0\0\x80?"), np.ones(1, np.float32)),
        (proto(4, [2], int_val=[300, -1]), np.array([44, 255], np.uint8)),
        (proto(6, [2], int_val=[200, -1]), np.array([-56, -1], np.int8)),
        (proto(11, [2], int_val=[300, -1]), np.array([44, -1], np.int8)),
        (proto(19, [2], half_val=[0x3C00, 0x13C00]), np.ones(2, np.float16)),
        (proto(14, [1], half_val=[0x3F80]), np.ones(1, tensors.BFLOAT16.numpy)),
        (proto(8, [3], scomplex_val=[1, 2, 3]), np.full(3, 1 + 2j, np.complex64)),
        (proto(10, [3], bool_val=[False, True]), np.array([False, True, True])),
        (proto(23, [2], uint64_val=[2**64 - 1, 1]), np.array([2**64 - 1, 1], np.uint64)),
        (proto(7, [3], string_val=[b"a\0", b"b"]), np.array([b"a\0", b"b", b"b"], object)),
        (proto(7, [2]), np.array([b"", b""], object)),
        (proto(7, [3], tensor_content=b"\x02\x00\x05abhello"), np.array([b"ab", b"", b"hello"], object)),
    ],
)
def test_values_are_repeated_cut_cast_and_chosen_as_tensorflow_does(message, expected):
    same(decode_tensor(message), expected)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (proto(0, [1]), "DT_INVALID is not a type"),
        (proto(20, [1]), "DT_RESOURCE is not a type"),
        (proto(101, [1]), "DT_FLOAT_REF is not a type"),
        (proto(77, [1]), "data type 77 is not a type"),
        (proto(1, [-1]), r"shape \[-1\] has a negative size"),
        (proto(1, [1] * 65), "65 dimensions"),
        (proto(1, [2**40, 2**40]), "too many elements"),
        (proto(1, [3], tensor_content=b"12345678"), r"8 bytes, but float\[3\] takes 12"),
        (proto(10, [2], tensor_content=b"\0\2"), "bytes other than 0 and 1"),
        (proto(7, [2], tensor_content=b"\1\2abcd"), "has 6 bytes, but its strings take 5"),
        (proto(7, [2], tensor_content=b"\1\x80"), "ends? inside"),
        (proto(7, [9], tensor_content=b"\1"), "too few"),
        (proto(7, [1], tensor_content=b"\xff\xff\xff\xff\x7f"), "its strings take 34359738372"),
    ],
)
def test_what_cannot_be_decoded_has_a_reason(message, reason):
    with pytest.raises(ValueError, match=reason):
        decode_tensor(message)


def test_a_short_message_cannot_claim_much_memory():
    with pytest.raises(ValueError, match=r"declares 1000000000000 elements, but 1 values were sent"):
        decode_tensor(proto(1, [10**6, 10**6], float_val=[1]))
    with pytest.raises(ValueError, match="declares"):
        decode_tensor(proto(7, [10**8]))
    each = {name: proto(1, [1000]) for name in "abcd"}
    assert len(decode_tensors(each, max_fill_bytes=16_000)) == 4
    with pytest.raises(ValueError, match="declares 1000 elements") as failure:
        decode_tensors(each, max_fill_bytes=15_999)
    assert failure.value.args[0] in each


def test_tensor_content_is_not_copied_again():
    array = decode_tensor(proto(1, [2], tensor_content=bytes(8)))
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_short_names_are_tensorflows():
    assert [short_name(dtype) for dtype in (tensors.FLOAT32, tensors.FLOAT64, tensors.FLOAT16, tensors.INT8)] == [
        "float", "double", "half", "int8",
    ]  # fmt: skip
    assert dtype_of_number(13) is tensors.INT32
    assert dtype_of_number(20) is None


# ---- varints, against protobuf


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300), max_size=80))
def test_packed_varints_are_protobufs(values):
    expected = protos.tensorflow.TensorProto(int64_val=values).SerializeToString()
    packed = pack_varints(np.array(values, np.int64))
    assert expected == (b"\x52" + varint(len(packed)) + packed if values else b"")


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize(
    ("dtype", "field"), [(np.uint64, "uint64_val"), (np.uint32, "uint32_val"), (np.int8, "int_val")]
)
def test_the_ends_of_every_integer_type_are_packed(count, dtype, field):
    ends = [np.iinfo(dtype).min, np.iinfo(dtype).max, 1, 127]
    values = np.resize(np.array(ends, dtype), count)
    message = protos.tensorflow.TensorProto()
    getattr(message, field).extend(values.tolist())
    assert message.SerializeToString().endswith(pack_varints(values))


@given(st.integers(0, 2**64 - 1))
def test_one_varint_comes_back(value):
    assert read_varint(b"x" + varint(value) + b"y", 1) == (value, 1 + len(varint(value)))


def test_a_varint_that_does_not_end_is_an_error():
    for data in (b"", b"\x80", b"\xff" * 11):
        with pytest.raises(ValueError, match="inside a varint"):
            read_varint(data, 0)


# ---- TensorFlow's verdict


@pytest.fixture(scope="module")
def tf():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow")


def parsed_by_tensorflow(tf, message):
    """Return what TensorFlow's C++ makes of a message; ``None`` if it refuses."""
    try:
        return tf.io.parse_tensor(message.SerializeToString(), tf.dtypes.as_dtype(message.dtype)).numpy()
    except tf.errors.InvalidArgumentError:
        return None


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", tensors.ALL_DTYPES, ids=str)
def test_tensorflow_reads_ours_and_we_read_its(tf, dtype):
    for array in (sample(dtype), sample(dtype)[:1, :1].reshape(())):
        if array.dtype == object or dtype.name not in ("int4", "uint4", "float8_e5m2", "float8_e4m3fn"):
            theirs = tf.make_tensor_proto(array, dtype=tf.dtypes.as_dtype(NUMBERS[dtype.name]))
            ours = protos.tensorflow.TensorProto.FromString(theirs.SerializeToString())
            same(decode_tensor(ours), array)
        for tensor_content in (False, True):
            message = encode_tensor(array, tensor_content=tensor_content)
            verdict = np.asarray(parsed_by_tensorflow(tf, message))
            if dtype is tensors.STRING:
                verdict = verdict.astype(object)
            same(verdict.astype(array.dtype), array)
            if dtype is not tensors.STRING or not tensor_content:  # make_ndarray does not know that form
                made = tf.make_ndarray(type(tf.make_tensor_proto(0)).FromString(message.SerializeToString()))
                same(np.asarray(made).astype(array.dtype), array)


@st.composite
def odd_protos(draw):
    number = draw(st.sampled_from(sorted(FIELDS)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    if draw(st.integers(0, 20)) == 0:
        shape.append(-1)
    message = proto(number, shape)
    field = FIELDS[number] if draw(st.integers(0, 9)) else draw(st.sampled_from(sorted(set(FIELDS.values()))))
    values = {
        "float_val": st.floats(width=32), "double_val": st.floats(), "scomplex_val": st.floats(width=32),
        "dcomplex_val": st.floats(), "bool_val": st.booleans(), "half_val": st.integers(0, 0xFFFF),
        "int_val": st.integers(-(2**31), 2**31 - 1), "int64_val": st.integers(-(2**63), 2**63 - 1),
        "uint32_val": st.integers(0, 2**32 - 1), "uint64_val": st.integers(0, 2**64 - 1),
    }[field]  # fmt: skip
    getattr(message, field).extend(draw(st.lists(values, max_size=12)))
    if draw(st.integers(0, 3)) == 0:
        message.tensor_content = draw(st.binary(max_size=24))
    return message


@pytest.mark.tensorflow
@settings(max_examples=300, deadline=None)
@given(message=odd_protos())
def test_odd_messages_mean_what_they_mean_to_tensorflow(tf, message):
    theirs = parsed_by_tensorflow(tf, message)
    try:
        ours = decode_tensor(message)
    except ValueError:
        assert theirs is None
        return
    assert theirs is not None
    same(np.asarray(theirs).view(ours.dtype) if ours.dtype.itemsize else theirs, ours)
