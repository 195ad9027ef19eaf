"""curl against the REST side of a port that speaks everything, in each of its ways to speak HTTP."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.conformance.tools import needs, run_tool
from tests.e2e.server_process import ServerProcess

from servable.zoo import catalog

pytestmark = [pytest.mark.conformance, needs("curl")]

STREAM_ERROR = 92
"""What curl 7 makes of a whole reply and RST_STREAM(NO_ERROR) that come while it has not yet sent its body. Rare."""
HTTP_VERSIONS = {"1.1": "--http1.1", "2 at once": "--http2-prior-knowledge", "2 offered": "--http2"}
SEPARATOR = "\n-- curl was told: "


class Reply(NamedTuple):
    """What curl got: ``version`` is the last response's."""

    status: int
    version: str
    connects: int
    """Connections opened for this transfer: 0 if one was used again."""
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def curl(*arguments: object, stdin: bytes = b"") -> list[Reply]:
    """Run curl and return a reply for each URL."""
    written = SEPARATOR + r"%{http_code} %{http_version} %{num_connects} %{content_type}\n"
    words = ("curl", "--silent", "--show-error", "--max-time", 15, "-w", written, *arguments)
    for _ in range(10):
        done = run_tool(*words, stdin=stdin)
        if done.returncode != STREAM_ERROR:
            break
    assert done.returncode == 0, done.stderr.decode()
    replies = []
    rest = done.stdout
    while rest:
        body, _, rest = rest.partition(SEPARATOR.encode())
        facts, _, rest = rest.partition(b"\n")
        status, version, connects, *kind = facts.decode().split(" ", 3)
        replies.append(Reply(int(status), version, int(connects), kind[0] if kind else "", body))
    return replies


def curl_one(*arguments: object, stdin: bytes = b"") -> Reply:
    (reply,) = curl(*arguments, stdin=stdin)
    return reply


@pytest.fixture(params=HTTP_VERSIONS, ids=lambda name: str(name).replace(" ", "_"))
def version(request: pytest.FixtureRequest) -> str:
    return HTTP_VERSIONS[request.param]


@pytest.fixture
def model(server: ServerProcess) -> str:
    return f"{server.rest_url}/v1/models/half_plus_two"


# -- predict -----------------------------------------------------------------------------------------------------------


def test_rows_and_columns(model: str, version: str) -> None:
    rows = curl_one(version, f"{model}:predict", "-d", '{"instances": [[1.0], [2.0], [5.0]]}')
    assert (rows.status, rows.content_type) == (200, "application/json")
    assert rows.json == {"predictions": [[2.5], [3.0], [4.5]]}
    named = curl_one(version, f"{model}:predict", "-d", '{"instances": [{"x": [1.0]}]}')
    assert named.json == {"predictions": [[2.5]]}
    columns = curl_one(version, f"{model}/versions/1:predict", "-d", '{"inputs": {"x": [[1.0], [2.0]]}}')
    assert columns.json == {"outputs": [[2.5], [3.0]]}
    bare = curl_one(version, f"{model}:predict", "-d", '{"signature_name": "serving_default", "inputs": [[1.0]]}')
    assert bare.json == {"outputs": [[2.5]]}


def test_the_version_that_was_asked_for(model: str) -> None:
    body = '{"instances": [[1.0]]}'
    spoken = [curl_one(flag, f"{model}:predict", "-d", body).version for flag in HTTP_VERSIONS.values()]
    # An offer to go on in HTTP/2 may be declined, and is: the answer comes in the version of the request.
    assert spoken == ["1.1", "2", "1.1"]


def test_several_inputs_and_outputs(server: ServerProcess, version: str) -> None:
    inputs = catalog.sample_inputs("text_cnn", 2, seed=5)
    right = catalog.reference("text_cnn", inputs)
    body = json.dumps({"inputs": {name: array.tolist() for name, array in inputs.items()}}).encode()
    reply = curl_one(version, f"{server.rest_url}/v1/models/text_cnn:predict", "--data-binary", "@-", stdin=body)
    assert reply.status == 200
    assert reply.json["outputs"]["labels"] == right["labels"].tolist()
    np.testing.assert_allclose(reply.json["outputs"]["probs"], right["probs"], rtol=1e-4, atol=1e-5)
    rows = [{name: array[row].tolist() for name, array in inputs.items()} for row in range(2)]
    body = json.dumps({"instances": rows}).encode()
    reply = curl_one(version, f"{server.rest_url}/v1/models/text_cnn:predict", "--data-binary", "@-", stdin=body)
    assert [row["labels"] for row in reply.json["predictions"]] == right["labels"].tolist()


def test_strings_in_base64_and_as_text(server: ServerProcess, version: str) -> None:
    types: dict[str, Any] = {name: [1] for name in ("int8", "int16", "int32", "int64", "uint8", "uint16")}
    types |= {"uint32": [1], "uint64": [2**64 - 1], "bool": [True]}
    types |= {"float16": [0.5], "float32": [0.1], "float64": [1e300]}
    given = {"b64": base64.b64encode("Grüße".encode()).decode()}
    for string in (given, "Gr\u00fc\u00dfe"):
        body = json.dumps({"inputs": {**types, "string": [string]}}).encode()
        reply = curl_one(version, f"{server.rest_url}/v1/models/types:predict", "--data-binary", "@-", stdin=body)
        assert reply.status == 200, reply.body
        outputs = reply.json["outputs"]
        assert outputs["same_string"] == ["Grüße"]
        assert outputs["same_uint64"] == [2**64 - 1]
        assert outputs["same_float64"] == [1e300]
        assert outputs["same_bool"] == [True]


# -- bodies ------------------------------------------------------------------------------------------------------------


def big_body() -> tuple[bytes, list[list[float]]]:
    values = [[float(number) for number in range(150_000)], [0.5] * 150_000]
    return json.dumps({"inputs": {"x": values}}).encode(), values


def test_a_body_that_waits_to_be_let_in(server: ServerProcess) -> None:
    body, values = big_body()
    assert len(body) > 2_000_000
    url = f"{server.rest_url}/v1/models/echo:predict"
    reply = curl_one(
        "--http1.1", url, "--data-binary", "@-", "-H", "Expect: 100-continue", "--expect100-timeout", 12, stdin=body
    )
    assert reply.status == 200
    assert reply.json["outputs"] == values


@pytest.mark.rule("rest-1")
def test_a_large_body_over_http2(server: ServerProcess) -> None:
    body, values = big_body()
    url = f"{server.rest_url}/v1/models/echo:predict"
    reply = curl_one("--http2-prior-knowledge", url, "--data-binary", "@-", stdin=body)
    assert (reply.status, reply.version) == (200, "2")
    assert reply.json["outputs"] == values


@pytest.mark.rule("rest-8")
def test_a_body_of_unknown_length(server: ServerProcess, version: str) -> None:
    body, values = big_body()
    url = f"{server.rest_url}/v1/models/echo:predict"
    reply = curl_one(version, url, "-X", "POST", "-T", "-", "-H", "Transfer-Encoding: chunked", stdin=body)
    assert reply.status == 200
    assert reply.json["outputs"] == values


def test_no_body_at_all(model: str, version: str) -> None:
    reply = curl_one(version, "-X", "POST", f"{model}:predict")
    assert (reply.status, reply.json) == (400, {"error": "JSON Parse error: The document is empty"})


def test_a_compressed_body(model: str, version: str) -> None:
    sent = ["-H", "Content-Encoding: gzip", "--data-binary", "@-"]
    body = gzip.compress(b'{"instances": [[1.0]]}')
    reply = curl_one(version, f"{model}:predict", *sent, stdin=body)
    assert (reply.status, reply.json) == (200, {"predictions": [[2.5]]})
    # The same request line without the field is another request, and so is one with a broken body.
    plain = curl_one(version, f"{model}:predict", "-d", '{"instances": [[1.0]]}')
    assert plain.json == {"predictions": [[2.5]]}
    broken = curl_one(version, f"{model}:predict", *sent, stdin=body[:-4])
    assert broken.status == 400
    assert "not valid gzip" in broken.json["error"]
    unknown = curl_one(version, f"{model}:predict", "-H", "Content-Encoding: br", "-d", "x")
    assert unknown.status == 400
    assert "br is none of gzip, deflate and identity" in unknown.json["error"]


# -- connections -------------------------------------------------------------------------------------------------------


# curl 7.88 fails by itself when it uses a plain-text HTTP/2 connection again; nghttp and h2load do that here.


def test_one_connection_for_many_requests(model: str) -> None:
    replies = curl("--http1.1", "-d", '{"instances": [[1.0]]}', *[f"{model}:predict"] * 20)
    assert [reply.connects for reply in replies] == [1] + [0] * 19
    assert all(reply.json == {"predictions": [[2.5]]} for reply in replies)


@pytest.mark.rule("rest-1", "rest-10")
def test_errors_keep_the_connection(model: str, server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    replies = curl(
        *("--http1.1", "--data-binary", f"@{tmp_path}/bad.json"),
        *(f"{model}:predict", f"{server.rest_url}/nonesuch", f"{model}:nonesuch", f"{model}:predict"),
    )
    assert [reply.status for reply in replies] == [400, 404, 400, 400]
    assert [reply.connects for reply in replies] == [1, 0, 0, 0]


def test_requests_beside_each_other(model: str) -> None:
    replies = curl("--http1.1", "--parallel", "--parallel-max", 20, *[model] * 60)
    assert len(replies) == 60
    assert {reply.status for reply in replies} == {200}


def test_http_1_0(model: str) -> None:
    reply = curl_one("--http1.0", f"{model}:predict", "-d", '{"instances": [[1.0]]}')
    assert (reply.status, reply.json) == (200, {"predictions": [[2.5]]})


# -- pages -------------------------------------------------------------------------------------------------------------


def test_status(model: str, version: str) -> None:
    reply = curl_one(version, model)
    state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert reply.json == {"model_version_status": [state]}
    assert curl_one(version, f"{model}/versions/1").json == reply.json
    assert curl_one(version, f"{model}?verbose=1").json == reply.json


def test_metadata(model: str, version: str) -> None:
    reply = curl_one(version, f"{model}/metadata")
    assert reply.status == 200
    assert reply.json["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "1"}
    signature = reply.json["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    dims = [{"size": "-1", "name": ""}, {"size": "1", "name": ""}]
    assert signature["inputs"]["x"]["tensor_shape"] == {"dim": dims, "unknown_rank": False}


@pytest.mark.parametrize("page", ["healthz", "readyz", "metrics", "servable/status", "v1/models/half_plus_two"])
@pytest.mark.rule("better-1")
def test_head_is_get_without_its_body(server: ServerProcess, version: str, page: str) -> None:
    url = f"{server.rest_url}/{page}"
    head, get = curl_one(version, "--head", url), curl_one(version, url)
    assert (head.status, head.content_type) == (get.status, get.content_type) == (200, get.content_type)
    fields = dict(
        line.lower().split(": ", 1) for line in head.body.decode().replace("\r", "").split("\n") if ": " in line
    )
    if page != "metrics":  # its numbers change from page to page
        assert int(fields["content-length"]) == len(get.body)
    assert get.body


# -- errors ------------------------------------------------------------------------------------------------------------

ERRORS = [
    ("POST", "/v1/models/nonesuch:predict", 404, "Servable not found for request: Latest(nonesuch)"),
    (
        "POST",
        "/v1/models/half_plus_two/versions/9:predict",
        404,
        "Servable not found for request: Specific(half_plus_two, 9)",
    ),
    (
        "POST",
        "/v1/models/half_plus_two/labels/stable:predict",
        400,
        "Unrecognized servable version label: stable",
    ),
    ("POST", "/v1/models/half_plus_two", 400, "Malformed request: POST /v1/models/half_plus_two"),
    ("POST", "/v1/models/half_plus_two:Predict", 400, "Malformed request: POST /v1/models/half_plus_two:Predict"),
    ("GET", "/v1/models/half_plus_two:predict", 400, "Malformed request: GET /v1/models/half_plus_two:predict"),
    ("DELETE", "/v1/models/half_plus_two", 400, "Malformed request: DELETE /v1/models/half_plus_two"),
    ("GET", "/v1/models", 400, "Missing model name in request."),
    ("GET", "/v1/models/nonesuch", 404, "Could not find any versions of model nonesuch"),
    ("GET", "/v1/models/half_plus_two/versions/9", 404, "Could not find version 9 of model half_plus_two"),
    ("GET", "/v1/models/nonesuch/metadata", 404, "Servable not found for request: Latest(nonesuch)"),
    (
        "GET",
        "/v1/models/half_plus_two/versions/99999999999999999999",
        400,
        "Failed to convert version: 99999999999999999999 to numeric.",
    ),
]


@pytest.mark.parametrize(
    ("method", "path", "status", "text"), ERRORS, ids=[f"{method} {path}" for method, path, _, _ in ERRORS]
)
def test_error_of_a_path(server: ServerProcess, version: str, method: str, path: str, status: int, text: str) -> None:
    data = ["-d", '{"instances": [[1.0]]}'] if method == "POST" else []
    reply = curl_one(version, "-X", method, *data, f"{server.rest_url}{path}")
    assert (reply.status, reply.content_type, reply.json) == (status, "application/json", {"error": text})


def test_paths_where_nothing_is(server: ServerProcess, version: str) -> None:
    for path in ("/", "/v1", "/v2/models/half_plus_two", "/favicon.ico", "/%00", "/" + "x" * 3000):
        reply = curl_one(version, f"{server.rest_url}{path}")
        assert (reply.status, reply.content_type) == (404, "application/json")
        assert "/v1/models/NAME" in reply.json["error"]


BODIES = [
    ('{"instances": [[1.0]], "signature_name": "x"}', 'Serving signature name: "x" not found in signature def'),
    ("[1]", "Is not object"),
    ("{}", "Missing 'inputs' or 'instances' key"),
    ('{"instances": [], "inputs": []}', "expecting only one of 'inputs' or 'instances' keys to exist"),
    ('{"instances": []}', "No values in 'instances' array"),
    ('{"instances": [["a"]]}', "is not of expected type: float"),
    ('{"instances": [[1.0], [1.0, 2.0]]}', "Expecting tensor size: 1 but got: 2"),
    ('{"instances": [[1.0], {"x": [1.0]}]}', "Expecting value/list but got object at item 1"),
    ('{"inputs": {"y": [[1.0]]}}', "Missing named input: x in 'inputs' object."),
    ('{"instances": [[1.0]', "JSON Parse error: "),
]


@pytest.mark.parametrize(("body", "text"), BODIES)
def test_error_of_a_body(model: str, version: str, body: str, text: str) -> None:
    reply = curl_one(version, f"{model}:predict", "-d", body)
    assert (reply.status, reply.content_type) == (400, "application/json")
    assert text in reply.json["error"]
