"""From JSON values to tensors: the rules of each element type, the messages, and the quick path against the walk."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servable.core.errors import Code, ServingError
from servable.core.tensors import (
    ALL_DTYPES,
    BFLOAT16,
    BOOL,
    COMPLEX64,
    FLOAT8_E4M3FN,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT4,
    INT8,
    INT16,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Array,
    DType,
)  # fmt: skip
from servable.wire.json_tensors import MAX_RANK, base64_bytes, exact_values, from_values, may_hold_bool, pack, tensor

NAN, INF = math.nan, math.inf

ACCEPTED: list[tuple[DType, Any, Any]] = [
    (FLOAT32, [0.1, 1, -0.0, 1e300, NAN, -INF], np.array([0.1, 1, -0.0, INF, NAN, -INF], np.float32)),
    (FLOAT32, 2**63, np.float32(2.0**63)),
    (FLOAT64, [1, 0.1, 2**53 + 1], np.array([1.0, 0.1, 2.0**53])),
    (FLOAT16, [0.1, 65504, 1e9], np.array([0.1, 65504, INF], np.float16)),
    (BFLOAT16, [1.5, 2], np.array([1.5, 2], BFLOAT16.numpy)),
    (FLOAT8_E4M3FN, [1.5, 2], np.array([1.5, 2], FLOAT8_E4M3FN.numpy)),
    (INT32, [[-(2**31)], [2**31 - 1]], np.array([[-(2**31)], [2**31 - 1]], np.int32)),
    (INT16, [70000, -1], np.array([4464, -1], np.int16)),
    (INT8, [300, -129], np.array([44, 127], np.int8)),
    (UINT8, [255, 256, -1], np.array([255, 0, 255], np.uint8)),
    (UINT16, [0, 65535], np.array([0, 65535], np.uint16)),
    (UINT32, 2**32 - 1, np.uint32(2**32 - 1)),
    (INT64, [2**53 + 1, -(2**63), 2**63 - 1], np.array([2**53 + 1, -(2**63), 2**63 - 1], np.int64)),
    (UINT64, [2**64 - 1, 0], np.array([2**64 - 1, 0], np.uint64)),
    (BOOL, [[True, False]], np.array([[True, False]])),
    (STRING, ["é", ""], np.array(["é".encode(), b""], object)),
    (STRING, {"b64": "/+8="}, np.array(b"\xff\xef", object)),
    (STRING, [["a"], [{"b64": ""}]], np.array([[b"a"], [b""]], object)),
    (INT32, [], np.zeros(0, np.int32)),
    (STRING, [[], []], np.zeros((2, 0), object)),
    (FLOAT32, [[[], []]], np.zeros((1, 2, 0), np.float32)),
]  # fmt: skip

MISMATCHES: list[tuple[DType, Any, str, str]] = [
    (FLOAT32, True, "True", "float"),
    (FLOAT32, "1", "String", "float"),
    (FLOAT64, None, "Null", "double"),
    (FLOAT16, "x", "String", "half"),
    (BFLOAT16, False, "False", "bfloat16"),
    (INT32, 1.0, "Number", "int32"),
    (INT32, 2**31, "Number", "int32"),
    (INT8, 2**31, "Number", "int8"),
    (UINT8, 0.5, "Number", "uint8"),
    (INT32, False, "False", "int32"),
    (INT64, 2**63, "Number", "int64"),
    (INT64, 1e5, "Number", "int64"),
    (UINT16, 65536, "Number", "uint16"),
    (UINT32, -1, "Number", "uint32"),
    (UINT64, 2.0**64, "Number", "uint64"),
    (BOOL, 1, "Number", "bool"),
    (BOOL, 0, "Number", "bool"),
    (STRING, 1, "Number", "string"),
    (STRING, None, "Null", "string"),
    (INT32, {"b64": "AAAA"}, "Object", "int32"),
]


def refused(value: Any, dtype: DType) -> ServingError:
    with pytest.raises(ServingError) as caught:
        tensor(value, dtype)
    return caught.value


def same(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.tolist() == right.tolist() if left.dtype.hasobject else left.tobytes() == right.tobytes()


@pytest.mark.parametrize(("dtype", "value", "expected"), ACCEPTED)
def test_elements_that_are_accepted(dtype: DType, value: Any, expected: Any) -> None:
    found = tensor(value, dtype)
    assert found.dtype == dtype.numpy
    assert found.shape == np.shape(expected)
    np.testing.assert_array_equal(found, np.asarray(expected, found.dtype))


def test_signed_zero_survives() -> None:
    assert np.signbit(tensor([-0.0], FLOAT32)[0])


@pytest.mark.parametrize(("dtype", "value", "kind", "word"), MISMATCHES)
def test_elements_of_the_wrong_type(dtype: DType, value: Any, kind: str, word: str) -> None:
    for given_value in (value, [value], [[value]]):
        error = refused(given_value, dtype)
        assert error.code is Code.INVALID_ARGUMENT
        assert error.message.startswith("JSON Value: ")
        assert error.message.endswith(f" Type: {kind} is not of expected type: {word}")


def test_a_mismatch_quotes_the_value() -> None:
    assert refused([1, 2.5], INT32).message == "JSON Value: 2.5 Type: Number is not of expected type: int32"


@pytest.mark.parametrize("good", [0, 1])
def test_one_bool_among_numbers_is_found(good: int) -> None:
    for dtype in (INT32, FLOAT32, INT64, UINT8):
        for position in range(5):
            row: list[Any] = [good] * 5
            row[position] = True
            assert "Type: True" in refused([[good] * 5, row], dtype).message


@pytest.mark.parametrize("dtype", [COMPLEX64, INT4])
def test_types_without_a_json_form(dtype: DType) -> None:
    error = refused([1], dtype)
    assert error.code is Code.UNIMPLEMENTED
    assert error.message == f"Conversion of JSON Value: 1 to type: {dtype.name}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1, 2], [3]], "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([[], [1]], "Encountered list at unexpected size: 1 at level: 1 expected size: 0"),
        ([[[1], [2]], [[1], [2, 3]]], "Encountered list at unexpected size: 2 at level: 2 expected size: 1"),
        ([1, [2]], "Encountered list at unexpected level: 1 expected < 1"),
        ([[1], [[2]]], "Encountered list at unexpected level: 2 expected < 2"),
        ([[1], 2], "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ([[[1]], [2.5]], "JSON Value: 2.5 found at incorrect level: 3 in the JSON DOM. Expected at level: 3"),
        ([[], 1], "JSON Value: 1 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ],
)
@pytest.mark.parametrize("dtype", [FLOAT32, STRING, BOOL, FLOAT16])
def test_ragged_lists(value: Any, message: str, dtype: DType) -> None:
    convert = {STRING: str, BOOL: bool}.get(dtype, lambda leaf: leaf)

    def leaves(item: Any) -> Any:
        return [leaves(inner) for inner in item] if isinstance(item, list) else convert(item)

    words = {STRING: '"{}"', BOOL: "true"}.get(dtype, "{}")
    for number in ("2.5", "2", "1"):
        message = message.replace(f"JSON Value: {number} ", f"JSON Value: {words.format(number)} ")
    assert refused(leaves(value), dtype).message == message


def test_the_first_fault_is_reported() -> None:
    assert "Type: Null" in refused([[1, None], [3]], FLOAT32).message
    assert "unexpected size" in refused([[1], [3, None]], FLOAT32).message


def test_rank_is_bounded() -> None:
    value: Any = 1
    for _ in range(MAX_RANK):
        value = [value]
    assert tensor(value, INT32).ndim == MAX_RANK
    for _ in range(500):
        value = [value]
        assert "nested too deeply" in refused(value, INT32).message


@pytest.mark.parametrize("text", ["QUJD", "QUI=", "QUI", "QQ==", "QQ", " QU\nJD\t", "", "/+//"])
def test_base64_padded_or_not(text: str) -> None:
    bare = "".join(text.split())
    assert base64_bytes(text) == base64.b64decode(bare + "=" * (-len(bare) % 4))


@pytest.mark.parametrize("text", ["Q", "QQ=", "QUJD=", "QUJ*", "-_--", "QQ==QQ==", "=", "é"])
def test_what_is_not_base64(text: str) -> None:
    error = refused({"b64": text}, STRING)
    assert (error.code, error.message) == (Code.INVALID_ARGUMENT, "Unable to base64 decode")


@pytest.mark.parametrize("value", [{"b64": 1}, {"b64": "QQ==", "more": 1}, {}, {"base64": "QQ=="}])
def test_objects_that_are_not_base64(value: Any) -> None:
    assert refused([value], STRING).message.endswith(" not formatted correctly for base64 data")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"instances":[1,2,3]}', False),
        (b'{"instances":[true]}', True),
        (b'{"instances":[1, false]}', True),
        (b'{"signature_name":"serving_default","inputs":[1]}', False),
        (b'{"inputs":{"truly":1}}', False),
        (b'{"inputs":{"construed":[true]}}', True),
    ],
)
def test_bools_are_noticed_in_the_text(text: bytes, expected: bool) -> None:
    assert may_hold_bool(text) is expected


LEAVES: st.SearchStrategy[Any] = (
    st.integers(-3, 3)
    | st.sampled_from([2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
    | st.floats(width=32)
    | st.floats()
    | st.booleans()
    | st.none()
    | st.text(max_size=3)
    | st.builds(lambda text: {"b64": text}, st.sampled_from(["QQ==", "QQ", "", "!"]))
    | st.just({})
)


@st.composite
def values(draw: st.DrawFn) -> Any:
    """Mostly regular nested lists of mostly one kind of leaf, so that every check is met by what almost passes it."""
    kinds = [st.integers(-3, 3), st.integers(), st.floats(), st.booleans(), st.text(max_size=3), LEAVES]
    leaf = draw(st.sampled_from(kinds))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))

    def build(level: int) -> Any:
        if draw(st.integers(0, 40)) == 0:
            return draw(LEAVES | st.lists(LEAVES, max_size=2))
        if level == len(shape):
            return draw(leaf)
        return [build(level + 1) for _ in range(shape[level])]

    return build(0)


def strict(value: Any) -> Any:
    """Make a value what a JSON parser can have given: integers above 64 bits are floats there."""
    if isinstance(value, list):
        return [strict(item) for item in value]
    if type(value) is int and not -(2**63) <= value < 2**64:
        return float(value) if abs(value) < 2**1000 else 0.5
    return value


def walked(value: Any, dtype: DType) -> Array | ServingError:
    try:
        return from_values(*exact_values(value, dtype), dtype)
    except ServingError as error:
        return error


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values(), st.sampled_from(ALL_DTYPES))
def test_the_quick_path_and_the_walk_agree(value: Any, dtype: DType) -> None:
    value = strict(value)
    try:
        bools = may_hold_bool(orjson.dumps(value))
    except TypeError:  # a lone surrogate
        bools = True
    quick = pack(value, dtype, bools)
    exact = walked(value, dtype)
    if isinstance(exact, ServingError):
        assert quick is None, f"the quick path accepts what the walk refuses: {exact}"
        return
    assert same(tensor(value, dtype, bools), exact)
    if exact.size and "b64" not in repr(value):
        assert quick is not None, "the walk had to do what the quick path is for"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_float32_is_the_rounded_double_of_the_text(numbers: list[int | float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array([float(number) for number in numbers]).astype(np.float32)
    assert same(tensor(numbers, FLOAT32), expected)
