"""The reader of TensorFlow Serving's JSON dialect: what it takes beyond the standard, and what it says of the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servable.core.errors import Code, ServingError
from servable.wire.json_dialect import EXCERPT_SIZE, MAX_DEPTH, excerpt, loads, loads_lenient, text_bytes, type_name

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=12)
        | st.lists(SCALARS, min_size=8, max_size=20)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=4)
    ),
    max_leaves=40,
)


def attempt(read: Callable[[bytes], Any], text: bytes) -> Any:
    """Return the value, or the error if it is one of ours: any other fails the test."""
    try:
        return read(text)
    except ServingError as error:
        return error


def refusal(text: bytes) -> str:
    with pytest.raises(ServingError) as caught:
        loads(text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "problem", "offset"),
    [
        (b" \n", "The document is empty.", 2),
        (b"\xef\xbb\xbf", "The document is empty.", 3),
        (b"x", "Invalid value.", 0),
        (b"nul", "Invalid value.", 3),
        (b"[trux]", "Invalid value.", 4),
        (b"[", "Invalid value.", 1),
        (b"[,1]", "Invalid value.", 1),
        (b"[1,]", "Invalid value.", 3),
        (b"[1, /* two */ 2]", "Invalid value.", 4),
        (b'{"a":}', "Invalid value.", 5),
        (b"-", "Invalid value.", 1),
        (b"+1", "Invalid value.", 0),
        (b".5", "Invalid value.", 0),
        (b"[Nan]", "Invalid value.", 3),
        (b"[Infi]", "Invalid value.", 5),
        (b"\xff", "Invalid value.", 0),
        (b"[1 2]", "Missing a comma or ] after an array element.", 3),
        (b"[01]", "Missing a comma or ] after an array element.", 2),
        (b"[[1,2,3]", "Missing a comma or ] after an array element.", 8),
        (b"[1,2}", "Missing a comma or ] after an array element.", 4),
        (b'{"instances": [1,2', "Missing a comma or ] after an array element.", 18),
        (b'{"a":1 "b"', "Missing a comma or } after an object member.", 7),
        (b'{"a":[1]]', "Missing a comma or } after an object member.", 8),
        (b"{", "Missing a name for object member.", 1),
        (b"{1:2}", "Missing a name for object member.", 1),
        (b"{'a':2}", "Missing a name for object member.", 1),
        (b'{"a":1,}', "Missing a name for object member.", 7),
        (b'{"a" 1}', "Missing a colon after a name of object member.", 5),
        (b'["abc', "Missing a closing quotation mark in string.", 5),
        (b'["a\\', "Invalid escape character in string.", 3),
        (b'["a\\x"]', "Invalid escape character in string.", 3),
        (b'["a\nb"]', "Invalid encoding in string.", 3),
        (b'["\\u12g4"]', "Incorrect hex digit after \\u escape in string.", 2),
        (b'["\\ud800"]', "The surrogate pair in string is invalid.", 2),
        (b'["\\udc00"]', "The surrogate pair in string is invalid.", 2),
        (b'["\\ud800\\u0041"]', "The surrogate pair in string is invalid.", 2),
        (b"[1.]", "Miss fraction part in number.", 3),
        (b"[1e]", "Miss exponent in number.", 3),
        (b"[1e+]", "Miss exponent in number.", 4),
        (b"[1, -1e999]", "Number too big to be stored in double.", 4),
        (b"9" * 400, "Number too big to be stored in double.", 0),
        (b"[" * (MAX_DEPTH + 1), f"Nested deeper than {MAX_DEPTH} levels.", MAX_DEPTH + 1),
        (b"[" + b"1," * 5000 + b"x]", "Invalid value.", 10001),
        (b"[" + b'{"a":[1]},' * 9 + b"{]", "Missing a name for object member.", 92),
        (b"[" + b'"\\n",' * 50 + b'"', "Missing a closing quotation mark in string.", 252),
        (b"[1,2,3,4,5,6,7,8,9,1.,", "Miss fraction part in number.", 21),
    ],
)
def test_what_is_wrong_and_where(text: bytes, problem: str, offset: int) -> None:
    assert refusal(text) == f"JSON Parse error: {problem} at offset: {offset}"


def test_the_empty_body_has_a_message_of_its_own() -> None:
    assert refusal(b"") == "JSON Parse error: The document is empty"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"\xef\xbb\xbf[1]", [1]),
        (b'{"a": 1} and more', {"a": 1}),
        (b"[1]]", [1]),
        (b"[Infinity, -Infinity, Inf, -Inf, 1]", [math.inf, -math.inf, math.inf, -math.inf, 1]),
        (b'{"a": Inf, "b": "Infinity"}', {"a": math.inf, "b": "Infinity"}),
        (b"[[1, Infinity], [2.5, -Infinity]]", [[1, math.inf], [2.5, -math.inf]]),
        (b'[1,2,3,4,5,6,7,8,"NaN",Infinity]', [1, 2, 3, 4, 5, 6, 7, 8, "NaN", math.inf]),
        (b'["[", Inf, "]"]', ["[", math.inf, "]"]),
        (b'["\\ud83d\\ude00\\u00e9\\/", Inf]', ["\U0001f600é/", math.inf]),
        (b"[1E5, -0, 1e-2, 18446744073709551616, -9223372036854775809, Inf]",
         [1e5, 0, 1e-2, 2.0**64, -(2.0**63), math.inf]),
        (b'{"a": {}, "b": [], "c": [{}, Inf]}', {"a": {}, "b": [], "c": [{}, math.inf]}),
        (b"true, or not", True),
    ],
)  # fmt: skip
def test_what_is_accepted_beyond_the_standard(text: bytes, value: Any) -> None:
    assert loads(text) == value


def test_nan_is_a_number() -> None:
    assert all(math.isnan(number) for number in loads(b"[NaN, -NaN]"))
    assert math.isnan(loads(b'{"a": NaN}')["a"])


def test_the_last_of_duplicate_names_wins_in_both_parsers() -> None:
    text = b'{"a": 1, "a": 2}'
    assert loads(text) == loads(text + b" trailing") == {"a": 2}


def test_bytes_that_are_not_utf8_arrive_as_they_were_sent() -> None:
    value = loads(b'["\xff\\n\xe9", "\xc3\xa9"]')
    assert [text_bytes(item) for item in value] == [b"\xff\n\xe9", "é".encode()]


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"instances":[', b"[[1],"])
def test_half_a_million_levels_are_refused_without_recursion(opening: bytes) -> None:
    assert "Nested deeper" in refusal(opening * 500_000)
    assert "Nested deeper" in refusal(b'{"junk": ' + b"[" * 500_000 + b"]" * 500_000 + b', "inputs": 1}')


def test_the_greatest_depth_is_read() -> None:
    value = loads_lenient(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    depth = 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == MAX_DEPTH - 1


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 2]))
def test_the_lenient_parser_agrees_with_orjson_and_json_on_strict_json(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    found = loads_lenient(text)
    assert found == orjson.loads(text) == json.loads(text)
    assert json.dumps(found) == json.dumps(value)  # 1, 1.0 and true are equal, but not the same


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text('[]{}",:\\ 019.-+eENaIinftyrulsd\n', max_size=40))
def test_any_text_is_read_as_orjson_reads_it_or_refused_with_an_offset_inside(text: str) -> None:
    body = text.encode()
    found = attempt(loads_lenient, body)
    try:
        strict = orjson.loads(body)
    except orjson.JSONDecodeError:
        if isinstance(found, ServingError) and body:
            assert 0 <= int(found.message.rpartition(" ")[2]) <= len(body)
        return
    assert repr(found) == repr(strict)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENTS, st.binary(max_size=3), st.data())
def test_damaged_documents_are_never_more_than_refused(value: Any, damage: bytes, data: st.DataObject) -> None:
    text = orjson.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    for body in (text[:at], text[:at] + damage + text[at:], text[:at] + damage + text[at + 1 :]):
        found = attempt(loads, body)
        assert not isinstance(found, ServingError) or found.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1.0"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (None, "null"),
        ('a"\n', '"a\\"\\n"'),
        ([], "[]"),
        ({}, "{}"),
        ([1, [2, "x"]], '[1, [2, "x"]]'),
        ({"a": 1, "b": [True]}, '{\n    "a": 1,\n    "b": [true]\n}'),
        ({"a": {"b": {}}}, '{\n    "a": {\n        "b": {}\n    }\n}'),
        (b"\xff".decode("utf-8", "surrogateescape"), '"\N{REPLACEMENT CHARACTER}"'),
    ],
)
def test_excerpts(value: Any, text: str) -> None:
    assert excerpt(value) == text


def test_excerpts_are_short_whatever_the_value() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    for value in ("x" * 10_000_000, list(range(1_000_000)), deep, {"k" * 5000: 1}):
        text = excerpt(value)
        assert len(text) == EXCERPT_SIZE + 3
        assert text.endswith("...")


def test_type_names_are_rapidjsons() -> None:
    values: list[Any] = [None, False, True, {}, [], "", 1, 1.5]
    assert [type_name(value) for value in values] == [
        "Null", "False", "True", "Object", "Array", "String", "Number", "Number",
    ]  # fmt: skip
