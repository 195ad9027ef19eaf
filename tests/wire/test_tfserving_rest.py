"""Paths and errors of TensorFlow Serving's REST API."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servable.core.errors import Code, ServingError, failed_precondition, invalid_argument, not_found
from servable.core.messages import ModelRef
from servable.wire import tfserving_rest as rest
from servable.wire.tfserving_rest import Action, Target, make_path, parse_path

ACTIONS: list[Action] = ["predict", "classify", "regress", "status", "metadata"]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "/v1/models/m:predict", Target("predict", ModelRef("m"))),
        ("POST", "/v1/models/m:classify", Target("classify", ModelRef("m"))),
        ("POST", "/v1/models/m:regress", Target("regress", ModelRef("m"))),
        ("POST", "/v1/models/m/versions/007:predict", Target("predict", ModelRef("m", 7))),
        ("POST", "/v1/models/m/versions/9223372036854775807:predict", Target("predict", ModelRef("m", 2**63 - 1))),
        ("POST", "/v1/models/m/labels/stable:predict", Target("predict", ModelRef("m", label="stable"))),
        ("POST", "/V1/Models/m/Versions/1:predict", Target("predict", ModelRef("m", 1))),
        ("POST", "/v1/models/a%2Fb%3Ac/labels/x%20y:predict", Target("predict", ModelRef("a/b:c", label="x y"))),
        ("POST", "/v1/models/m%C3%A9:predict?trace=1#top", Target("predict", ModelRef("mé"))),
        ("GET", "/v1/models/m", Target("status", ModelRef("m"))),
        ("HEAD", "/v1/models/m", Target("status", ModelRef("m"))),
        ("GET", "/v1/models/m?a:b/c", Target("status", ModelRef("m"))),
        ("GET", "/v1/models/m/versions/0", Target("status", ModelRef("m", 0))),
        ("GET", "/v1/models/m/labels/l", Target("status", ModelRef("m", label="l"))),
        ("GET", "/v1/models/m/metadata", Target("metadata", ModelRef("m"))),
        ("GET", "/v1/models/m/versions/3/metadata", Target("metadata", ModelRef("m", 3))),
        ("GET", "/v1/models/metadata", Target("status", ModelRef("metadata"))),
        ("GET", "/v1/models/a+b", Target("status", ModelRef("a+b"))),
    ],
)
def test_paths(method: str, target: str, expected: Target) -> None:
    assert parse_path(method, target) == expected
    assert parse_path(method.encode(), target.encode()) == expected


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:Predict"),
        ("POST", "/v1/models/m:predict/"),
        ("POST", "/v1/models/m:multiInference"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/models/m/versions/-1:predict"),
        ("POST", "/v1/models/m/versions/1/labels/l:predict"),
        ("POST", "/v1/models/m/versions/1²:predict"),
        ("POST", "/v1/models/m:predict\n"),
        ("GET", "/v1/models/m:predict"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/m/Metadata"),
        ("GET", "/v1/"),
        ("PUT", "/v1/models/m"),
        ("DELETE", "/v1/models/m:predict"),
        ("get", "/v1/models/m"),
    ],
)
def test_malformed_requests(method: str, target: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_path(method, target)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message == f"Malformed request: {method} {target}"


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("GET", "/v1/models", "Missing model name in request."),
        ("GET", "/v1/models?all", "Missing model name in request."),
        ("GET", "/v1/models/versions/1", "Missing model name in request."),
        ("POST", "/v1/models/m/versions/9223372036854775808:predict",
         "Failed to convert version: 9223372036854775808 to numeric."),
        ("GET", f"/v1/models/m/versions/{'9' * 5000}", f"Failed to convert version: {'9' * 5000} to numeric."),
        ("GET", "/v1/models/%zz", "Failed to decode model name:%zz"),
        ("GET", "/v1/models/%ff", "Failed to decode model name:%ff"),
        ("POST", "/v1/models/m/labels/%:predict", "Failed to decode model version label:%"),
    ],
)  # fmt: skip
def test_requests_for_what_cannot_be(method: str, target: str, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_path(method, target)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, message)


@pytest.mark.parametrize("target", ["/", "/v2/models/m", "/v1", "/v1models", "//v1/models/m", "*", "", b"/\xff"])
def test_foreign_paths_are_not_found(target: str | bytes) -> None:
    with pytest.raises(ServingError) as caught:
        parse_path("GET", target)
    assert caught.value.code is Code.NOT_FOUND
    assert json.loads(rest.encode_error(caught.value))["error"]


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(
    st.sampled_from(ACTIONS), NAMES, st.none() | st.integers(0, 2**63 - 1), st.none() | NAMES
)  # fmt: skip
def test_paths_that_clients_make_are_read_back(
    action: Action, name: str, version: int | None, label: str | None
) -> None:
    model = ModelRef(name, version, None if version is not None else label)
    method = "GET" if action in {"status", "metadata"} else "POST"
    assert parse_path(method, make_path(action, model)) == Target(action, model)


@pytest.mark.rule("status-2")
def test_every_code_has_its_http_status() -> None:
    assert {code.name: rest.http_status(code) for code in Code} == {
        "OK": 200, "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504,
        "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429,
        "FAILED_PRECONDITION": 400, "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501, "INTERNAL": 500,
        "UNAVAILABLE": 503, "DATA_LOSS": 500, "UNAUTHENTICATED": 401,
    }  # fmt: skip


@pytest.mark.rule("rest-10")
def test_an_error_body_has_the_message_alone() -> None:
    body = rest.encode_error(not_found("Servable not found for request: Latest(m)"))
    assert body == b'{\n    "error": "Servable not found for request: Latest(m)"\n}'


@given(st.text(st.characters()), st.sampled_from(Code))
def test_every_error_can_be_written(message: str, code: Code) -> None:
    found = json.loads(rest.encode_error(ServingError(code, message)))
    assert found == {"error": message.encode("utf-8", "replace").decode()}


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_clients_read_errors_back(code: Code) -> None:
    error = rest.decode_error(rest.http_status(code), rest.encode_error(ServingError(code, "why")))
    assert error.message == "why"
    assert rest.http_status(error.code) == rest.http_status(code)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (404, b"<html>nothing</html>", Code.NOT_FOUND, "HTTP status 404: <html>nothing</html>"),
        (502, b"", Code.UNAVAILABLE, "HTTP status 502"),
        (418, b'{"detail": 1}', Code.UNKNOWN, 'HTTP status 418: {"detail": 1}'),
        (400, b'{"error": 5}', Code.INVALID_ARGUMENT, 'HTTP status 400: {"error": 5}'),
        (500, b"\xff" * 1000, Code.INTERNAL, "HTTP status 500: " + "\N{REPLACEMENT CHARACTER}" * 200),
    ],
)
def test_clients_understand_errors_of_others(status: int, body: bytes, code: Code, message: str) -> None:
    error = rest.decode_error(status, body)
    assert (error.code, error.message) == (code, message)


def test_a_missing_signature_is_told_as_rest_tells_it() -> None:
    missing = failed_precondition('Serving signature key "s" not found.')
    for name, told in (("s", "s"), ("", "serving_default")):
        error = rest.lookup_error(missing, name)
        assert error.code is Code.INVALID_ARGUMENT
        assert error.message == f'Serving signature name: "{told}" not found in signature def'
    for other in (not_found("Servable not found for request: Latest(m)"), invalid_argument("no"),
                  failed_precondition("not now")):  # fmt: skip
        assert rest.lookup_error(other, "s") is other


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"{}", b""),
        (b"{}", b"identity"),
        (gzip.compress(b"{}"), b"gzip"),
        (gzip.compress(b"{}"), b" GZIP "),
        (gzip.compress(b"{}"), b"x-gzip"),
        (gzip.compress(b"{}"), b"identity, gzip"),
        (zlib.compress(b"{}"), b"deflate"),
    ],
)
def test_a_body_is_what_it_was_before_its_content_encoding(body: bytes, encoding: bytes) -> None:
    assert rest.decompress(body, encoding, 2) == b"{}"


@pytest.mark.parametrize(
    ("body", "encoding", "text"),
    [
        (b"{}", b"br", "Content-Encoding: br is none of gzip, deflate and identity"),
        (b"{}", b"gzip, gzip", "Content-Encoding: gzip, gzip is none of gzip, deflate and identity"),
        (b"{}", b"gzip", "not valid gzip"),
        (gzip.compress(b"{}")[:-1], b"gzip", "it ends too early"),
        (gzip.compress(b"[[]]"), b"gzip", "larger than max 2"),
    ],
)
def test_a_body_that_cannot_be_decompressed(body: bytes, encoding: bytes, text: str) -> None:
    with pytest.raises(ServingError, match=text) as raised:
        rest.decompress(body, encoding, 2)
    assert raised.value.code is Code.INVALID_ARGUMENT
