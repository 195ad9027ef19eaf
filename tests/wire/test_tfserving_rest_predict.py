"""The bodies of predict over REST: both formats, both directions, and every message."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servable.core.errors import Code, ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import BOOL, COMPLEX64, FLOAT16, FLOAT32, INT32, INT64, STRING, Array, DType, dtype_of
from servable.wire import tfserving_rest_predict as predict
from servable.wire.tfserving_rest_predict import (
    decode_predict_response,
    encode_predict_request,
    encode_predict_response,
    parse_predict_body,
)


def specs(**dtypes: DType) -> dict[str, TensorSpec]:
    return {name: TensorSpec(name, dtype, None) for name, dtype in dtypes.items()}


def signature(**inputs: DType) -> Signature:
    return Signature("serving_default", specs(**inputs), {})


X = signature(x=FLOAT32)
XY = signature(x=FLOAT32, y=STRING)
TEXT = signature(text=STRING)


def inputs_of(body: str | bytes, takes: Signature) -> dict[str, Any]:
    """Return what a body gives, as lists, after a look at the element types."""
    inputs = parse_predict_body(body.encode() if isinstance(body, str) else body).to_inputs(takes)
    assert list(inputs) == list(takes.inputs)
    for name, array in inputs.items():
        assert dtype_of(array) is takes.inputs[name].dtype
    return {name: array.tolist() for name, array in inputs.items()}


def refusal(body: str, takes: Signature) -> ServingError:
    with pytest.raises(ServingError) as caught:
        parse_predict_body(body.encode()).to_inputs(takes)
    return caught.value


@pytest.mark.parametrize(
    ("body", "takes", "expected"),
    [
        ('{"instances": [1, 2.5]}', X, {"x": [1.0, 2.5]}),
        ('{"instances": [[1, 2], [3, 4]]}', X, {"x": [[1.0, 2.0], [3.0, 4.0]]}),
        ('{"instances": [{"x": [1]}, {"x": [2]}]}', X, {"x": [[1.0], [2.0]]}),
        ('{"instances": [{"x": 1, "y": "a"}, {"y": "b", "x": 2}]}', XY, {"x": [1.0, 2.0], "y": [b"a", b"b"]}),
        ('{"instances": [{"x": [], "y": "a"}]}', XY, {"x": [[]], "y": [b"a"]}),
        ('{"instances": [[], []]}', X, {"x": [[], []]}),
        ('{"instances": [true, false]}', signature(x=BOOL), {"x": [True, False]}),
        ('{"instances": ["a", {"b64": "Yg=="}]}', TEXT, {"text": [b"a", b"b"]}),
        ('{"instances": [{"b64": "Yg"}, "a"]}', TEXT, {"text": [b"b", b"a"]}),
        ('{"instances": [{"text": {"b64": "Yg=="}}, {"text": "c"}]}', TEXT, {"text": [b"b", b"c"]}),
        ('{"instances": [{"b64": "Yg=="}]}', signature(b64=STRING), {"b64": [b"b"]}),
        ('{"instances": [{"b64": 1}, {"b64": 2}]}', signature(b64=INT32), {"b64": [1, 2]}),
        ('{"inputs": [[1, 2]]}', X, {"x": [[1.0, 2.0]]}),
        ('{"inputs": 3}', X, {"x": 3.0}),
        ('{"inputs": {"x": 3}}', X, {"x": 3.0}),
        ('{"inputs": []}', X, {"x": []}),
        ('{"inputs": {"b64": "Yg=="}}', TEXT, {"text": b"b"}),
        ('{"inputs": {"text": [["a"]], "unknown": 1}}', TEXT, {"text": [[b"a"]]}),
        ('{"inputs": {"y": ["a", "b", "c"], "x": [[1, 2]]}}', XY, {"x": [[1.0, 2.0]], "y": [b"a", b"b", b"c"]}),
        ('{"inputs": "truth", "examples": [], "other": {"a": null}}', TEXT, {"text": b"truth"}),
        ('{"instances": [NaN, -Infinity, 1]} ', X, None),
        ('\ufeff{"instances": [1]} trailing', X, {"x": [1.0]}),
        ('{"inputs": [1.5]}', signature(x=FLOAT16), {"x": [1.5]}),
        ('{"inputs": [9007199254740993]}', signature(x=INT64), {"x": [9007199254740993]}),
    ],
)
def test_bodies_that_are_accepted(body: str, takes: Signature, expected: dict[str, Any] | None) -> None:
    found = inputs_of(body, takes)
    if expected is None:
        assert np.array_equal(found["x"], [np.nan, -np.inf, 1.0], equal_nan=True)
    else:
        assert found == expected


def test_strings_keep_the_bytes_that_were_sent() -> None:
    assert inputs_of(b'{"instances": ["\xff\xfe", "\\u00e9"]}', TEXT) == {"text": [b"\xff\xfe", "é".encode()]}


ROW = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "
WRONG_KEYS = "Failed to process element: {} of 'instances' list. JSON object: {} keys must be equal to: {}"
NEEDS_OBJECTS = "as multiple input tensors required as per tensorinfo_map"
PLAIN_ROWS = f"instances is a plain list, but expecting list of objects {NEEDS_OBJECTS}"
PLAIN_COLUMNS = f"inputs is a plain value/list, but expecting an object {NEEDS_OBJECTS}"
NAME_IS_STRING = "<document> not formatted correctly. 'signature_name' key must be a string value."
FILTER_IS_LIST = "<document> not formatted correctly. 'output_filter' key must be a list of strings."
ONLY_ONE = "<document> Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
NOT_A_LIST = "<document> Expecting 'instances' to be an list/array"


@pytest.mark.parametrize(
    ("body", "takes", "message"),
    [
        ("", X, "JSON Parse error: The document is empty"),
        ('{"instances": [1,', X, "JSON Parse error: Invalid value. at offset: 17"),
        ("[1, 2]", X, "JSON Value: [1, 2] Is not object"),
        ("3", X, "<document> Is not object"),
        ('{"signature_name": 1}', X, NAME_IS_STRING),
        ('{"signature_name": null, "inputs": 1}', X, NAME_IS_STRING),
        ('{"output_filter": "y"}', X, FILTER_IS_LIST),
        ('{"output_filter": {"y": 1}}', X, FILTER_IS_LIST),
        ('{"instances": 1, "inputs": 1}', X, ONLY_ONE),
        ("{}", X, "Missing 'inputs' or 'instances' key"),
        ('{"examples": [1]}', X, "Missing 'inputs' or 'instances' key"),
        ('{"inputs": 1}', signature(), "Failed to get input map for signature: DEFAULT"),
        ('{"inputs": 1, "signature_name": "s"}', signature(), "Failed to get input map for signature: s"),
        ('{"instances": 1}', X, NOT_A_LIST),
        ('{"instances": {}}', X, NOT_A_LIST),
        ('{"instances": []}', X, "<document> No values in 'instances' array"),
        ('{"instances": [1]}', XY, PLAIN_ROWS),
        ('{"instances": [{"b64": "Yg=="}]}', XY, PLAIN_ROWS),
        ('{"instances": [{"x": 1}, 2]}', X, "Expecting object but got list at item 1 of input list"),
        ('{"instances": [{"text": "a"}, {"b64": ""}]}', TEXT, "Expecting object but got list at item 1 of input list"),
        ('{"instances": [1, {"x": 2}]}', X, "Expecting value/list but got object at item 1 of input list"),
        ('{"inputs": [1]}', XY, PLAIN_COLUMNS),
        ('{"inputs": {"b64": "Yg=="}}', XY, PLAIN_COLUMNS),
        ('{"inputs": {"x": 1}}', XY, "Missing named input: y in 'inputs' object."),
        ('{"inputs": {"b64": 1}}', X, "Missing named input: x in 'inputs' object."),
        ('{"inputs": {"x": [1, null]}}', X, "JSON Value: null Type: Null is not of expected type: float"),
        ('{"inputs": null}', X, "JSON Value: null Type: Null is not of expected type: float"),
        ('{"inputs": [[1], 2]}', X, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ],
)
def test_bodies_that_are_refused(body: str, takes: Signature, message: str) -> None:
    error = refusal(body, takes)
    assert error.code is Code.INVALID_ARGUMENT
    if "<document>" in message:
        message = message.replace("<document>", "JSON Value: " + json.dumps(json.loads(body), indent=4))
    assert error.message == message


@pytest.mark.parametrize(
    ("rows", "takes", "message"),
    [
        ('[1, "a"]', X, ROW.format(1) + 'JSON Value: "a" Type: String is not of expected type: float'),
        ("[[1, 2], [3]]", X, ROW.format(1) + "Expecting tensor size: 2 but got: 1"),
        ("[[[1, 2]], [[3], [4]]]", X, ROW.format(1) + "Expecting shape [1,2] but got: [2,1]"),
        ("[1, [1]]", X, ROW.format(1) + "Expecting shape [] but got: [1]"),
        ("[[[1], [2, 3]]]", X, ROW.format(0) + "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        ('[{"b64": "?"}]', TEXT, ROW.format(0) + "Unable to base64 decode"),
        ("[1]", signature(x=COMPLEX64),
         ROW.format(0).replace("INVALID_ARGUMENT", "UNIMPLEMENTED")
         + "Conversion of JSON Value: 1 to type: complex64"),
        ('[{"x": 1}, {"x": true}]', X,
         ROW.format("1 key: x") + "JSON Value: true Type: True is not of expected type: float"),
        ('[{"x": 1, "z": "a"}]', XY, ROW.format("0 key: z") + "JSON object: does not have named input: z"),
        ('[{"x": 1, "y": "a"}, {"x": 1}]', XY,
         WRONG_KEYS.format(1, '{\n    "x": 1\n}', "x,y")),
        ("[{}]", X, WRONG_KEYS.format(0, "{}", "x")),
    ],
)  # fmt: skip
def test_rows_that_are_refused(rows: str, takes: Signature, message: str) -> None:
    error = refusal(f'{{"instances": {rows}}}', takes)
    assert (error.code, error.message) == (Code.INVALID_ARGUMENT, message)


@pytest.mark.rule("json-15")
def test_a_type_without_a_json_form_is_unimplemented_in_columns() -> None:
    assert refusal('{"inputs": [1]}', signature(x=COMPLEX64)).code is Code.UNIMPLEMENTED


def test_what_the_look_up_needs_comes_before_what_the_signature_decides() -> None:
    body = parse_predict_body(b'{"signature_name": "s", "output_filter": ["a", "b"], "instances": "nonsense"}')
    assert (body.signature_name, body.output_filter, body.row_format) == ("s", ("a", "b"), True)
    plain = parse_predict_body(b'{"inputs": 1}')
    assert (plain.signature_name, plain.output_filter, plain.row_format) == ("", (), False)


@pytest.mark.rule("json-3")
def test_half_a_million_levels_are_refused() -> None:
    deep = b"[" * 500_000 + b"]" * 500_000
    for body in (deep, b'{"instances": ' + deep + b"}", b'{"inputs": {"x": ' + deep):
        with pytest.raises(ServingError) as caught:
            parse_predict_body(body)
        assert caught.value.code is Code.INVALID_ARGUMENT


ONES = np.ones((2, 1), np.float32)
WORDS = np.array([b"a", b"b"], object)


@pytest.mark.parametrize(
    ("outputs", "row_format", "expected"),
    [
        ({"y": np.array([3, 3.5], np.float32)}, True, b'{"predictions":[3.0,3.5]}'),
        ({"y": ONES, "w": WORDS}, True, b'{"predictions":[{"y":[1.0],"w":"a"},{"y":[1.0],"w":"b"}]}'),
        ({"y": ONES[:0]}, True, b'{"predictions":[]}'),
        ({"y": ONES[:0], "w": WORDS[:0]}, True, b'{"predictions":[]}'),
        ({"i": np.arange(2), "b": np.array([True, False])}, True,
         b'{"predictions":[{"i":0,"b":true},{"i":1,"b":false}]}'),
        ({"w_bytes": WORDS}, True, b'{"predictions":[{"b64":"YQ=="},{"b64":"Yg=="}]}'),
        ({"y": ONES}, False, b'{"outputs":[[1.0],[1.0]]}'),
        ({"y": np.array(2, np.float32)}, False, b'{"outputs":2.0}'),
        ({"y": ONES, "i": np.arange(3)}, False, b'{"outputs":{"y":[[1.0],[1.0]],"i":[0,1,2]}}'),
        ({"y": np.array([np.nan], np.float32)}, True, b'{"predictions":[NaN]}'),
    ],
)  # fmt: skip
@pytest.mark.rule("reply-1", "reply-3", "reply-4", "reply-6", "reply-8")
def test_replies(outputs: dict[str, Array], row_format: bool, expected: bytes) -> None:
    assert encode_predict_response(outputs, row_format=row_format) == expected


@pytest.mark.parametrize(
    ("outputs", "row_format", "message"),
    [
        ({}, False, "Cannot convert empty tensor map to JSON"),
        ({"y": np.array(1, np.float32)}, True, "Tensor name: y has no shape information "),
        ({"y": ONES, "z": np.ones(3)}, True, "Tensor name: z has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.array([1j])}, False, "Failed to write JSON value for tensor type: complex128"),
        ({"y": ONES, "z": np.ones(2, np.complex64)}, True,
         "Failed to write JSON value for tensor type: complex64"),
    ],
)  # fmt: skip
@pytest.mark.rule("reply-2", "reply-7")
def test_outputs_that_cannot_be_written(outputs: dict[str, Array], row_format: bool, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        encode_predict_response(outputs, row_format=row_format)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, message)


def test_a_request_names_signature_outputs_and_inputs() -> None:
    body = encode_predict_request({"x": np.array([1], np.float32)}, "s", ["y"])
    assert json.loads(body) == {"signature_name": "s", "output_filter": ["y"], "inputs": {"x": [1.0]}}
    rows = encode_predict_request({"x": np.array([1, 2], np.float32), "y": WORDS}, row_format=True)
    assert json.loads(rows) == {"instances": [{"x": 1.0, "y": "a"}, {"x": 2.0, "y": "b"}]}


ELEMENTS = st.sampled_from(["f4", "f8", "f2", "i1", "i4", "i8", "u1", "u2", "u4", "u8", "?", "O"])
BATCH = 3


@st.composite
def tensors(draw: st.DrawFn) -> Array:
    inner = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    shape = (BATCH, *inner, *draw(st.sampled_from([(), (), (0,)])))  # lists cannot tell what is inside of an empty one
    element = draw(ELEMENTS)
    if element == "O":
        flat = draw(st.lists(st.binary(max_size=4), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)
    return draw(hnp.arrays(element, shape))


def same(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.tolist() == right.tolist() if left.dtype.hasobject else np.array_equal(
        left, right, equal_nan=left.dtype.kind == "f"
    )  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["x", "y_bytes", "b64", "null"]), tensors(), min_size=1), st.booleans())
def test_what_one_side_writes_the_other_reads(arrays: dict[str, Array], row_format: bool) -> None:
    known = specs(**{name: dtype_of(array) for name, array in arrays.items()})
    ambiguous = arrays.keys() == {"b64"} and arrays["b64"].dtype.hasobject  # a name map that looks like base64
    if not ambiguous:
        body = parse_predict_body(encode_predict_request(arrays, row_format=row_format))
        inputs = body.to_inputs(Signature("s", known, {}))
        assert inputs.keys() == arrays.keys()
        assert all(same(inputs[name], arrays[name]) for name in arrays)
    outputs = decode_predict_response(encode_predict_response(arrays, row_format=row_format), known)
    assert outputs.keys() == arrays.keys()
    assert all(same(outputs[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"outputs": [[1.0, 2]]}', {"outputs": np.array([[1.0, 2.0]])}),
        (b'{"outputs": 1}', {"outputs": np.array(1)}),
        (b'{"outputs": {"a": [true], "b": "x"}}', {"a": np.array([True]), "b": np.array(b"x", object)}),
        (b'{"outputs": {"b64": "YQ=="}}', {"outputs": np.array(b"a", object)}),
        (b'{"predictions": [1.5, NaN]}', {"predictions": np.array([1.5, np.nan])}),
        (b'{"predictions": [{"b64": "YQ=="}]}', {"predictions": np.array([b"a"], object)}),
        (b'{"predictions": [{"a": 1, "b": [2]}, {"b": [3], "a": 4}]}',
         {"a": np.array([1, 4]), "b": np.array([[2], [3]])}),
        (b'{"predictions": [18446744073709551615]}', {"predictions": np.array([2**64 - 1], np.uint64)}),
        (b'{"predictions": []}', {"predictions": np.zeros(0)}),
    ],
)  # fmt: skip
def test_replies_without_a_known_signature(body: bytes, expected: dict[str, Array]) -> None:
    found = decode_predict_response(body)
    assert found.keys() == expected.keys()
    assert all(same(found[name], expected[name]) for name in expected)


def test_an_empty_reply_has_the_known_outputs() -> None:
    known = {"a": TensorSpec("a", FLOAT32, (None, 3)), "b": TensorSpec("b", STRING, (None,))}
    found = decode_predict_response(b'{"predictions": []}', known)
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        "a": ((0, 3), np.dtype(np.float32)),
        "b": ((0,), np.dtype(object)),
    }


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"{}", b'{"predictions": 1}', b'{"outputs": [1, [2]]}', b'{"outputs": null}',
        b'{"predictions": [{"a": 1}, {"b": 2}]}', b'{"predictions": [{"a": 1}, 2]}', b'{"outputs": [1, "a"]}',
        b'{"outputs": [true, 1]}',
    ],
)  # fmt: skip
def test_replies_that_are_none(body: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        decode_predict_response(body)
    assert caught.value.code is Code.INTERNAL


ITEMS = st.recursive(
    st.integers(-2, 2) | st.sampled_from([1.5, True, None, "a", 2**40, {"b64": "YQ=="}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.dictionaries(st.sampled_from(["x", "y"]), ITEMS, max_size=2) | ITEMS, min_size=1, max_size=4),
    st.sampled_from(
        [signature(x=INT32), signature(x=STRING), signature(x=INT32, y=FLOAT32), signature(x=STRING, y=INT64)]
    ),
)  # fmt: skip
def test_quick_rows_and_exact_rows_agree(rows: list[Any], takes: Signature) -> None:
    text = json.dumps({"instances": rows}).encode()
    found = _outcome(lambda: parse_predict_body(text).to_inputs(takes))
    if predict._is_named(rows[0]):
        exact = _outcome(lambda: predict._exact_named_rows(rows, takes.inputs))
    elif len(takes.inputs) == 1:
        exact = _outcome(lambda: predict._exact_plain_rows(rows, takes.inputs))
    else:
        assert isinstance(found, ServingError)
        return
    if isinstance(found, ServingError) or isinstance(exact, ServingError):
        assert str(found) == str(exact)
        return
    assert list(found) == list(exact)
    assert all(same(found[name], exact[name]) for name in exact)


def _outcome(decode: Any) -> Any:
    try:
        return decode()
    except ServingError as error:
        return error
