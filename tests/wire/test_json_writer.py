"""From tensors to JSON text: numbers that read back exactly, words for what is not finite, strings and base64."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servable.core.errors import Code, ServingError
from servable.core.tensors import BFLOAT16, FLOAT8_E5M2, INT4, UINT4, Array
from servable.wire.json_writer import dumps_rows, dumps_tensor, dumps_tensors


def written(array: Any, name: str = "y") -> str:
    text = dumps_tensor("k", name, np.asarray(array)).decode()
    assert text.startswith('{"k":')
    return text[5:-1]


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([0.1, 3, -0.0, 999999, 555557.5, 1234567], np.float32), "[0.1,3.0,-0.0,999999.0,555557.5,1234567.0]"),
        (np.float32(np.finfo(np.float32).max), "3.4028235e+38"),
        (np.array([1 / 3, 1e22], np.float64), "[0.3333333333333333,1e+22]"),
        (np.float64(0.1), "0.1"),
        (np.array([[np.nan, np.inf], [-np.inf, 1]], np.float32), "[[NaN,Infinity],[-Infinity,1.0]]"),
        (np.float64(np.nan), "NaN"),
        (np.float32(-np.inf), "-Infinity"),
        (np.array([0.5, np.nan], np.float16), "[0.5,NaN]"),
        (np.array(1.5, BFLOAT16.numpy), "1.5"),
        (np.array([1.5, 2], FLOAT8_E5M2.numpy), "[1.5,2.0]"),
        (np.array([-8, 7], INT4.numpy), "[-8,7]"),
        (np.array([15], UINT4.numpy), "[15]"),
        (np.array([2**63 - 1, -(2**63)]), "[9223372036854775807,-9223372036854775808]"),
        (np.array([2**64 - 1], np.uint64), "[18446744073709551615]"),
        (np.array([[1, -2]], np.int8), "[[1,-2]]"),
        (np.array([1, 65535], np.uint16), "[1,65535]"),
        (np.array([True, False]), "[true,false]"),
        (np.array(7, np.int32), "7"),
        (np.array(7, "longlong"), "7"),
        (np.array(7, "ulonglong"), "7"),
        (np.array(True), "true"),
        (np.zeros((2, 0), np.float32), "[[],[]]"),
        (np.zeros((0, 2), np.int32), "[]"),
        (np.arange(6).reshape(2, 3).T, "[[0,3],[1,4],[2,5]]"),
        (np.arange(6, dtype=np.float32)[::2], "[0.0,2.0,4.0]"),
        (np.array([1, 2], ">i4"), "[1,2]"),
        (np.array([[b"a/", "é".encode()]], object), '[["a/","é"]]'),
        (np.array(b'q"\\\n', object), '"q\\"\\\\\\n"'),
        (np.array([b"null", b"\xff"], object), '["null",{"b64":"/w=="}]'),
        (np.array([b"ab"]), '["ab"]'),
        (np.array([], object), "[]"),
    ],
)  # fmt: skip
@pytest.mark.rule("reply-4", "reply-5", "reply-6")
def test_forms(array: Any, text: str) -> None:
    assert written(array) == text


@pytest.mark.rule("reply-4")
def test_an_alias_that_ends_in_bytes_is_base64() -> None:
    assert written(np.array([[b"a", b""]], object), "image_bytes") == '[[{"b64":"YQ=="},{"b64":""}]]'
    assert written(np.array([1]), "size_bytes") == "[1]"


@pytest.mark.rule("reply-7")
def test_complex_numbers_are_refused() -> None:
    with pytest.raises(ServingError) as caught:
        written(np.array([1j]))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message == "Failed to write JSON value for tensor type: complex128"


def test_words_for_numbers_stand_beside_texts_that_look_like_orjsons_null() -> None:
    tensors = {
        "null": np.array([[1.0, np.nan], [np.inf, 2.0]]),
        "text": np.array([b"null", b"[null]"], object),
        "n": np.array([np.nan, 3], np.float32),
    }
    assert dumps_tensors({"null": "null"}, "outputs", tensors) == (
        b'{"null":"null","outputs":{"null":[[1.0,NaN],[Infinity,2.0]],"text":["null","[null]"],"n":[NaN,3.0]}}'
    )
    assert dumps_rows({}, "predictions", tensors) == (
        b'{"predictions":[{"null":[1.0,NaN],"text":"null","n":NaN},{"null":[Infinity,2.0],"text":"[null]","n":3.0}]}'
    )


def test_rows_of_both_types_that_c_has_for_64_bits() -> None:
    for dtype in ("long", "longlong", "ulong", "ulonglong"):
        tensors = {"label": np.array([1, 2], dtype), "score": np.zeros(2, np.float32)}
        text = b'{"predictions":[{"label":1,"score":0.0},{"label":2,"score":0.0}]}'
        assert dumps_rows({}, "predictions", tensors) == text


NUMERIC = hnp.arrays(
    st.sampled_from(["f4", "f8", "i1", "i4", "i8", "u1", "u2", "u8", "?"]), hnp.array_shapes(min_dims=0, max_dims=3)
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NUMERIC)
def test_numbers_read_back_exactly(array: Array) -> None:
    found = np.array(json.loads(written(array)), dtype=array.dtype)
    np.testing.assert_array_equal(found, array)
    assert found.shape == array.shape
    if array.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found[~np.isnan(array)]), np.signbit(array[~np.isnan(array)]))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_floats_are_as_short_as_they_can_be(array: Array) -> None:
    for number, text in zip(array, written(array)[1:-1].split(","), strict=True):
        digits = len(text.lstrip("-").partition("e")[0].replace(".", "").strip("0"))
        shortest = np.format_float_scientific(number, unique=True).lstrip("-").partition("e")[0]
        assert digits <= len(shortest.replace(".", "").strip("0"))
        assert "." in text or "e" in text
