"""The JSON of Predict, as TensorFlow Serving reads and writes it, by plain HTTP."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from tests.conformance.tfserving.rest import Reply, call
from tests.e2e.live_models import TYPES
from tests.e2e.server_process import ServerProcess

from servable import protos

ECHO, HALF, TEXT_CNN = "echo", "half_plus_two", "text_cnn"
DTYPES = {"float16": "half", "float32": "float", "float64": "double"}


def predict(server: ServerProcess, model: str, body: str | bytes, **headers: str) -> Reply:
    data = body.encode() if isinstance(body, str) else body
    reply = call(server.address, "POST", f"/v1/models/{model}:predict", data, **headers)
    assert reply.headers["content-type"] == "application/json"
    return reply


def good(server: ServerProcess, model: str, body: str | bytes, **headers: str) -> Any:
    reply = predict(server, model, body, **headers)
    assert reply.status == 200, reply.body
    return reply.json


def columns(name: str, text: str) -> str:
    """Return a body for ``types`` with one row of every type, and these of one."""
    given = {each: '[""]' if each == "string" else "[false]" if each == "bool" else "[0]" for each in TYPES}
    members = ",".join(f'"{key}": {value}' for key, value in (given | {name: text}).items())
    return f'{{"inputs": {{{members}}}}}'


def same(server: ServerProcess, name: str, text: str) -> Any:
    return good(server, "types", columns(name, text))["outputs"][f"same_{name}"]


@pytest.mark.rule("json-1", "reply-1", "reply-3", "signature-1")
def test_rows_and_columns(server: ServerProcess) -> None:
    rows = {"predictions": [[2.5], [3.0]]}
    assert good(server, HALF, '{"instances": [[1.0], [2.0]]}') == rows
    assert good(server, HALF, '{"instances": [{"x": [1.0]}, {"x": [2.0]}], "examples": 3, "other": {}}') == rows
    assert good(server, HALF, '{"signature_name": "serving_default", "inputs": [[1], [2]]}') == {
        "outputs": [[2.5], [3]]
    }
    assert good(server, HALF, '{"inputs": {"x": [[1], [2]], "z": 1}}') == {"outputs": [[2.5], [3.0]]}
    row = {"input_ids": [1] * 500, "e1_mas": [0] * 500, "e2_mas": [0] * 500}
    (several,) = good(server, TEXT_CNN, json.dumps({"instances": [row]}))["predictions"]
    assert set(several) == {"labels", "probs"}
    in_columns = good(server, TEXT_CNN, json.dumps({"inputs": {name: [value] for name, value in row.items()}}))
    assert in_columns["outputs"]["labels"] == [several["labels"]]


@pytest.mark.rule("rest-7", "rest-9")
def test_headers_of_a_request_do_not_matter(server: ServerProcess) -> None:
    body = b'{"instances": [[1.0]]}'
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "image/png"):
        assert good(server, HALF, body, Content_Type=content_type, Accept="text/html", Origin="x")["predictions"]


@pytest.mark.rule("json-2", "reply-6", "reply-9")
def test_what_strict_json_is_not(server: ServerProcess) -> None:
    reply = predict(server, ECHO, '\ufeff{"instances": [[NaN, Infinity], [-Infinity, -Inf], [Inf, 1]]} and more')
    assert reply.body == b'{"predictions":[[NaN,Infinity],[-Infinity,-Infinity],[Infinity,1.0]]}'
    assert math.isnan(reply.json["predictions"][0][0])
    assert good(server, ECHO, '{"instances": [[1]], "instances": [[2]]}') == {"predictions": [[2.0]]}
    for body in ('{"instances": [[1], ]}', '{"instances": [[1]], }', '/* c */ {"instances": [[1]]}'):
        assert predict(server, ECHO, body).error.startswith("JSON Parse error: ")


@pytest.mark.rule("json-3")
def test_any_depth_is_survived(server: ServerProcess) -> None:
    for body in (b"[" * 500_000, b'{"instances": ' + b"[" * 500_000 + b"]" * 500_000 + b"}"):
        assert predict(server, ECHO, body).status == 400
    assert good(server, ECHO, '{"inputs": [[1]]}')["outputs"] == [[1.0]]


@pytest.mark.rule("json-4")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "JSON Parse error: The document is empty"),
        ('{"instances": [1,', "JSON Parse error: Invalid value. at offset: 17"),
        ('{"instances": [1}', "JSON Parse error: Missing a comma or ] after an array element. at offset: 16"),
        ('{"instances": [1]', "JSON Parse error: Missing a comma or } after an object member. at offset: 17"),
        ("{1: 2}", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("[1, 2]", "JSON Value: [1, 2] Is not object"),
        ('{"signature_name": 1}', ('JSON Value: {\n    "signature_name": 1\n} not formatted correctly. '
          "'signature_name' key must be a string value.")),
        ('{"instances": 1, "inputs": 1}', ('JSON Value: {\n    "instances": 1,\n    "inputs": 1\n} Not formatted '
          "correctly expecting only one of 'inputs' or 'instances' keys to exist ")),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"instances": 1}', "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array"),
        ('{"instances": []}', "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
    ],
)  # fmt: skip
def test_bodies_that_are_refused(server: ServerProcess, body: str, text: str) -> None:
    reply = predict(server, ECHO, body)
    assert (reply.status, reply.error) == (400, text)


@pytest.mark.rule("json-5", "predict-1", "lookup-4", "status-2")
def test_what_is_looked_at_first(server: ServerProcess) -> None:
    assert predict(server, "nonesuch", "{").error.startswith("JSON Parse error")
    reply = predict(server, "nonesuch", '{"instances": 1}')
    assert (reply.status, reply.error) == (404, "Servable not found for request: Latest(nonesuch)")
    reply = predict(server, ECHO, '{"signature_name": "s", "instances": 1}')
    assert (reply.status, reply.error) == (400, 'Serving signature name: "s" not found in signature def')


ROW = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "
SEVERAL = "as multiple input tensors required as per tensorinfo_map"


@pytest.mark.rule("json-6", "json-7", "json-8", "json-10", "json-11", "json-14", "status-3")
@pytest.mark.parametrize(
    ("model", "body", "text"),
    [
        (ECHO, '{"instances": [{"x": [1]}, [2]]}', "Expecting object but got list at item 1 of input list"),
        (ECHO, '{"instances": [[1], {"x": [2]}]}', "Expecting value/list but got object at item 1 of input list"),
        (ECHO, '{"instances": [{"x": [1]}, {"z": [2]}]}',
         ROW.format("1 key: z") + "JSON object: does not have named input: z"),
        (ECHO, '{"instances": [{}]}',
         "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x"),
        (ECHO, '{"instances": [[1, 2], [3]]}', ROW.format(1) + "Expecting tensor size: 2 but got: 1"),
        (ECHO, '{"instances": [[[1, 2]], [[3], [4]]]}', ROW.format(1) + "Expecting shape [1,2] but got: [2,1]"),
        (ECHO, '{"instances": [[1], ["a"]]}',
         ROW.format(1) + 'JSON Value: "a" Type: String is not of expected type: float'),
        (TEXT_CNN, '{"instances": [1]}', f"instances is a plain list, but expecting list of objects {SEVERAL}"),
        (TEXT_CNN, '{"inputs": [1]}', f"inputs is a plain value/list, but expecting an object {SEVERAL}"),
        (TEXT_CNN, '{"inputs": {"input_ids": [1], "e1_mas": [1]}}', "Missing named input: e2_mas in 'inputs' object."),
        (ECHO, '{"inputs": [[1], [2, 3]]}',
         "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        (ECHO, '{"inputs": [[1], [[2]]]}', "Encountered list at unexpected level: 2 expected < 2"),
        (ECHO, '{"inputs": [[1], 2]}',
         "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        (ECHO, '{"inputs": [[null]]}', "JSON Value: null Type: Null is not of expected type: float"),
    ],
)  # fmt: skip
def test_rows_and_columns_that_are_refused(server: ServerProcess, model: str, body: str, text: str) -> None:
    reply = predict(server, model, body)
    assert (reply.status, reply.error) == (400, text)


@pytest.mark.rule("json-9", "json-12", "json-13", "json-15", "reply-5")
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("float32", "[1, 2.5, 16777217, -0.0]", "[1.0,2.5,16777216.0,-0.0]"),
        ("float32", "[9e6, 999999, 3e-4, 3e-5, 0.1]", "[9000000.0,999999.0,0.0003,3e-5,0.1]"),
        ("float64", "[0.3333333333333333, 1e300]", "[0.3333333333333333,1e300]"),
        ("float16", "[1, 2.5]", "[1.0,2.5]"),
        ("int8", "[127, -128, 300]", "[127,-128,44]"),
        ("uint8", "[255, 300]", "[255,44]"),
        ("int16", "[-32768]", "[-32768]"),
        ("uint16", "[65535]", "[65535]"),
        ("int32", "[2147483647]", "[2147483647]"),
        ("int64", "[9223372036854775807, -9223372036854775808]", "[9223372036854775807,-9223372036854775808]"),
        ("uint64", "[18446744073709551615]", "[18446744073709551615]"),
        ("bool", "[true, false]", "[true,false]"),
        ("string", '["a", "\\u00e9", {"b64": "Yg=="}, {"b64": "Y g"}]', '["a","é","b","b"]'),
        ("string", "[]", "[]"),
    ],
)
def test_values_of_each_type(server: ServerProcess, name: str, text: str, expected: str) -> None:
    """Numbers are compared as they mean, and whether they look whole."""
    found = same(server, name, text)
    wanted = json.loads(expected)
    assert found == wanted
    assert [type(value) for value in found] == [type(value) for value in wanted]


@pytest.mark.rule("json-12", "json-13", "json-14")
@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("float32", "true", "True"), ("float32", '"1"', "String"), ("int32", "1.0", "Number"),
        ("int32", "2147483648", "Number"), ("int8", "2147483648", "Number"), ("int64", "9223372036854775808", "Number"),
        ("uint32", "-1", "Number"), ("uint64", "-1", "Number"), ("bool", "1", "Number"), ("string", "1", "Number"),
        ("string", "false", "False"), ("int32", "[]", "Array"),
    ],
)  # fmt: skip
def test_values_of_another_type(server: ServerProcess, name: str, value: str, kind: str) -> None:
    reply = predict(server, "types", columns(name, value if kind == "Array" else f"[{value}]"))
    if kind == "Array":  # no rows are of any type
        assert reply.status == 200
        return
    assert reply.status == 400
    expected = DTYPES.get(name, name)
    assert reply.error == f"JSON Value: {value} Type: {kind} is not of expected type: {expected}"


@pytest.mark.rule("json-13")
def test_base64_that_is_none(server: ServerProcess) -> None:
    assert predict(server, "types", columns("string", '[{"b64": "*"}]')).error == "Unable to base64 decode"
    for wrong in ('{"b64": 1}', '{"b64": "YQ==", "c": 1}', '{"c": "YQ=="}'):
        reply = predict(server, "types", columns("string", f"[{wrong}]"))
        assert reply.status == 400
        assert reply.error.endswith("not formatted correctly for base64 data")
    reply = predict(server, ECHO, '{"inputs": [[{"b64": "YQ=="}]]}')
    assert reply.error.endswith("Type: Object is not of expected type: float")


@pytest.mark.rule("reply-2")
def test_outputs_without_a_row_for_each(server: ServerProcess, heads_server: ServerProcess) -> None:
    uneven = predict(server, "types", columns("string", '["a", "b"]'))
    assert len(uneven.json["outputs"]["same_string"]) == 2, "columns may differ"
    asked = {"signature_name": "defaulted", "instances": [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]}
    assert good(heads_server, "heads", json.dumps(asked)) == {"predictions": [3.0, 7.0]}


@pytest.mark.rule("json-9", "reply-8")
def test_no_rows(server: ServerProcess) -> None:
    assert good(server, ECHO, '{"inputs": [[], []]}') == {"outputs": [[], []]}
    assert same(server, "float32", "[]") == []


@pytest.mark.rule("reply-4")
def test_strings_that_json_cannot_say(heads_server: ServerProcess) -> None:
    example = protos.tensorflow.Example()
    for name, kind, values in (("x", "float_list", [1.0, 2.0]), ("word", "bytes_list", [b"\xff\x00"])):
        getattr(example.features.feature[name], kind).value.extend(values)
    row = {"b64": base64.b64encode(example.SerializeToString()).decode()}
    asked = {"signature_name": "features", "output_filter": ["word"], "inputs": [row, row]}
    assert good(heads_server, "heads", json.dumps(asked)) == {"outputs": [{"b64": "/wA="}] * 2}


@pytest.mark.rule("reply-7", "json-15", "status-2")
def test_types_with_and_without_a_json_form(heads_server: ServerProcess) -> None:
    plain = {"bfloat16": [1.5], "float16": [2.5], "uint16": [7], "int4": [1], "float8_e4m3fn": [1.0]}
    asked = {"signature_name": "types", "inputs": plain | {"complex64": [1.0], "complex128": [1.0]}}
    reply = predict(heads_server, "heads", json.dumps(asked))
    assert reply.status == 501
    assert reply.error.startswith("Conversion of JSON Value: 1.0 to type: ")


@pytest.mark.rule("better-5", "predict-5", "predict-6")
def test_outputs_are_chosen_in_a_body(server: ServerProcess) -> None:
    row = {"input_ids": [1] * 500, "e1_mas": [0] * 500, "e2_mas": [0] * 500}
    body = {"instances": [row], "output_filter": ["labels"]}
    (only,) = good(server, TEXT_CNN, json.dumps(body))["predictions"]
    assert isinstance(only, int)
    reply = predict(server, TEXT_CNN, json.dumps(body | {"output_filter": ["nonesuch"]}))
    assert reply.error.startswith("output tensor alias not found in signature: nonesuch Outputs expected to be in the")
