"""TensorFlow Serving's REST API as plain HTTP sees it: routes, verbs, bodies, errors, compression."""

from __future__ import annotations

import gzip
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conformance.tfserving.rest import Reply, call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable import protos

HEADS = "/v1/models/heads"
HALF = "/v1/models/half_plus_two"
JSON = "application/json"


def ask(server: ServerProcess, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    reply = call(server.address, method, path, body, **headers)
    assert reply.headers["content-type"] == JSON
    return reply


def post(server: ServerProcess, path: str, body: Any, **headers: str) -> Reply:
    return ask(server, "POST", path, body, **headers)


# -- classify and regress ----------------------------------------------------------------------------------------------


def features(row: bytes) -> dict[str, Any]:
    """Return an Example as JSON."""
    kinds = protos.tensorflow.Example.FromString(row).features.feature
    found: dict[str, Any] = {}
    for name, feature in kinds.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value)
        found[name] = [{"b64": "/wA="} for _ in values] if kind == "bytes_list" else values
    return found


@pytest.fixture(scope="module")
def noted(models: LiveModels) -> Any:
    return pickle.loads(Path(models.heads_answers()).read_bytes())


@pytest.mark.parametrize("case", ["one", "plain", "many"])
@pytest.mark.rule("rest-example-1", "rest-example-4")
def test_classify_as_tensorflow_computes(heads_server: ServerProcess, noted: Any, case: str) -> None:
    rows, answers = noted
    body = {"examples": [features(row) for row in rows[case]]}
    expected = answers["serving_default"][case]
    results = post(heads_server, f"{HEADS}:classify", body).json["results"]
    assert [[label for label, _ in row] for row in results] == [["low", "middle", "höher"]] * len(rows[case])
    scores = [[score for _, score in row] for row in results]
    np.testing.assert_allclose(scores, expected["scores"], rtol=1e-4, atol=1e-5)
    only = post(heads_server, f"{HEADS}:classify", body | {"signature_name": "scores"}).json["results"]
    assert {label for row in only for label, _ in row} == {""}
    only = post(heads_server, f"{HEADS}:classify", body | {"signature_name": "classes"}).json["results"]
    assert {score for row in only for _, score in row} == {0.0}


@pytest.mark.parametrize("case", ["one", "plain", "many"])
@pytest.mark.parametrize("signature", ["regress", "flat"])
@pytest.mark.rule("rest-example-4", "rest-2", "label-1")
def test_regress_as_tensorflow_computes(heads_server: ServerProcess, noted: Any, case: str, signature: str) -> None:
    rows, answers = noted
    body = {"signature_name": signature, "examples": [features(row) for row in rows[case]]}
    for path in (f"{HEADS}:regress", f"{HEADS}/versions/1:regress", f"{HEADS}/labels/stable:regress"):
        results = post(heads_server, path, body).json["results"]
        np.testing.assert_allclose(results, answers[signature][case]["outputs"].ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.rule("rest-example-1", "example-2")
def test_a_context_belongs_to_every_example(heads_server: ServerProcess) -> None:
    rows: list[dict[str, Any]] = [{"x": [1.0, 0.5]}, {"x": [2.0, 0.5], "k": 1}, {"k": [2]}]
    context: dict[str, Any] = {"x": [0.25, 4.0], "k": 3}
    got = post(heads_server, f"{HEADS}:regress", {"signature_name": "flat", "context": context, "examples": rows})
    merged = [context | row for row in rows]
    want = post(heads_server, f"{HEADS}:regress", {"signature_name": "flat", "examples": merged})
    assert got.json == want.json


@pytest.mark.rule("rest-example-2")
def test_json_decides_the_kind_of_a_feature(heads_server: ServerProcess) -> None:
    """The graph's parser is the judge: it refuses every kind but its own."""
    body = {"signature_name": "flat", "examples": [{"x": [1.0, 2.0], "k": True, "word": "ä"}]}
    assert post(heads_server, f"{HEADS}:regress", body).status == 200
    for feature, kind in ((1, "int64"), ("x", "string"), ({"b64": "eA=="}, "string"), (False, "int64")):
        body = {"signature_name": "flat", "examples": [{"x": [feature, feature]}]}
        reply = post(heads_server, f"{HEADS}:regress", body)
        assert reply.status == 400
        assert f"Data type: {kind} but expected type: float" in reply.error
    numbers = post(heads_server, f"{HEADS}:regress", b'{"signature_name": "flat", "examples": [{"x": [NaN, 1e0]}]}')
    assert numbers.body == b'{"results":[NaN]}'
    assert math.isnan(numbers.json["results"][0])


SIGNATURE_NAME = (
    "JSON Value: {\n    \"signature_name\": 3\n} not formatted correctly. 'signature_name' key must be a string value."
)


@pytest.mark.parametrize("action", ["classify", "regress"])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b'{"examples": [{}]', "JSON Parse error: Missing a comma or } after an object member. at offset: 17"),
        (b'{"signature_name": 3}', SIGNATURE_NAME),
        (b"{}", "JSON Value: {} When method is ACTION, key 'examples' is expected and was not found"),
        (b'{"examples": {}}', "JSON Value: {\n    \"examples\": {}\n} Expecting 'examples' value to be an list/array"),
        (b'{"examples": []}', "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
        (b'{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        (b'{"examples": [{}], "context": []}', "Example must be JSON object but got JSON Array"),
        (b'{"examples": [{"f": [1, 2.0]}]}', "Unexpected element type in feature: f expecting type: int64"),
        (b'{"examples": [{"f": [2.5, "a"]}]}', "Unexpected element type in feature: f expecting type: float"),
        (b'{"examples": [{"f": ["a", 1]}]}', "Unexpected element type in feature: f expecting type: bytes"),
        (b'{"examples": [{"f": null}]}', "Feature: f has element with unexpected JSON type: Null"),
        (b'{"examples": [{"f": [[1]]}]}', "Feature: f has element with unexpected JSON type: Array"),
        (b'{"examples": [{"f": {"a": 1}}]}', "Feature: f has element with unexpected JSON type: Object"),
        (b'{"examples": [{"f": 9223372036854775808}]}',
         "Feature: f has uint64_t element. Only int64_t is supported."),
        (b'{"examples": [{"f": {"b64": "*"}}]}', "Unable to base64 decode"),
    ],
)  # fmt: skip
@pytest.mark.rule("rest-example-3", "json-4")
def test_bodies_that_are_no_examples(heads_server: ServerProcess, action: str, body: bytes, text: str) -> None:
    reply = post(heads_server, f"{HEADS}:{action}", body)
    assert (reply.status, reply.error) == (400, text.replace("ACTION", action))


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/models/nonesuch:classify", {}, 404, "Servable not found for request: Latest(nonesuch)"),
        (f"{HEADS}/versions/4:classify", {}, 404, "Servable not found for request: Specific(heads, 4)"),
        (f"{HEADS}/labels/x:classify", {}, 400, "Unrecognized servable version label: x"),
        (f"{HEADS}:classify", {"signature_name": "x"}, 400, "No signature was found with the name: x"),
        (f"{HEADS}:classify", {"signature_name": "double_scores"}, 400,
         "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        (f"{HEADS}:regress", {"signature_name": "wide"}, 400,
         "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,3]"),
        (f"{HEADS}:regress", {"signature_name": "two_inputs"}, 400, "Expected one input Tensor."),
    ],
)  # fmt: skip
@pytest.mark.rule("lookup-3", "lookup-4", "lookup-5", "example-4", "example-7")
def test_errors_of_models_and_signatures(
    heads_server: ServerProcess, path: str, body: dict[str, Any], status: int, text: str
) -> None:
    reply = post(heads_server, path, body | {"examples": [{"x": [1.0, 2.0]}]})
    assert (reply.status, reply.error) == (status, text)


@pytest.mark.rule("example-12")
def test_another_engine_says_what_would_help(heads_server: ServerProcess) -> None:
    reply = post(heads_server, f"{HALF}:regress", {"examples": [{"x": 1.0}]})
    assert reply.status == 400
    assert "It runs on onnxruntime, which does not parse them" in reply.error


# -- routes and verbs --------------------------------------------------------------------------------------------------


def predict(server: ServerProcess, path: str) -> Reply:
    return post(server, path, {"instances": [[1.0], [2.0]]})


@pytest.mark.parametrize("where", ["", "/versions/1", "/versions/3", "/labels/old", "/labels/a%20b", "/versions/01"])
@pytest.mark.rule("rest-2", "rest-4", "label-1", "select-1")
def test_predict_by_version_and_label(heads_server: ServerProcess, where: str) -> None:
    assert predict(heads_server, f"{HALF}{where}:predict").json == {"predictions": [[2.5], [3.0]]}


@pytest.mark.parametrize(
    "path", ["/V1/Models/half_plus_two:predict", "/v1/models/half%5Fplus_two:predict", f"{HALF}:predict?timeout=3#x"]
)
@pytest.mark.rule("rest-3", "rest-4", "better-1")
def test_spellings_of_a_path(heads_server: ServerProcess, path: str) -> None:
    assert predict(heads_server, path).status == 200


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (f"{HALF}/versions/2:predict", 404, "Servable not found for request: Specific(half_plus_two, 2)"),
        (f"{HALF}/labels/new:predict", 400, "Unrecognized servable version label: new"),
        (f"{HALF}/versions/9223372036854775808:predict", 400,
         "Failed to convert version: 9223372036854775808 to numeric."),
        (f"{HALF}:Predict", 400, f"Malformed request: POST {HALF}:Predict"),
        (f"{HALF}:guess", 400, f"Malformed request: POST {HALF}:guess"),
        (f"{HALF}:multiinference", 400, f"Malformed request: POST {HALF}:multiinference"),
        ("/v1/config/reload", 400, "Malformed request: POST /v1/config/reload"),
        (f"{HALF}/versions/x:predict", 400, f"Malformed request: POST {HALF}/versions/x:predict"),
        (f"{HALF}/versions/1/labels/old:predict", 400, f"Malformed request: POST {HALF}/versions/1/labels/old:predict"),
        (HALF, 400, f"Malformed request: POST {HALF}"),
        ("/v1/models/%FF:predict", 400, "Failed to decode model name:%FF"),
        (f"{HALF}/labels/%ZZ:predict", 400, "Failed to decode model version label:%ZZ"),
        ("/v1/", 400, "Malformed request: POST /v1/"),
    ],
)  # fmt: skip
@pytest.mark.rule("rest-3", "rest-4", "rest-5", "rest-6", "rest-16")
def test_paths_that_are_wrong(heads_server: ServerProcess, path: str, status: int, text: str) -> None:
    reply = predict(heads_server, path)
    assert (reply.status, reply.error) == (status, text)


@pytest.mark.parametrize("verb", ["PUT", "DELETE", "PATCH", "GET"])
@pytest.mark.rule("rest-6")
def test_verbs_that_are_wrong(heads_server: ServerProcess, verb: str) -> None:
    reply = ask(heads_server, verb, f"{HALF}:predict", {"instances": [[1.0]]} if verb != "GET" else None)
    assert (reply.status, reply.error) == (400, f"Malformed request: {verb} {HALF}:predict")


@pytest.mark.rule("better-1")
def test_paths_of_others_are_not_found(heads_server: ServerProcess) -> None:
    for verb in ("GET", "POST", "OPTIONS"):
        reply = ask(heads_server, verb, "/v2", b"" if verb == "POST" else None)
        assert reply.status == 404
        assert "/v1/models/NAME" in reply.error


@pytest.mark.rule("rest-11", "rest-12")
def test_options_is_for_browsers(heads_server: ServerProcess) -> None:
    for origin, status in (("http://a.example", 200), ("https://a.example", 200), ("file://", 400)):
        reply = ask(heads_server, "OPTIONS", f"{HALF}:predict", Origin=origin)
        assert (reply.status, reply.body) == (status, b"")
        assert not [name for name in reply.headers if name.startswith("access-control-")]
    assert ask(heads_server, "OPTIONS", "/v1/x").status == 400


# -- status and metadata -----------------------------------------------------------------------------------------------


def available(*versions: int) -> dict[str, Any]:
    good = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": str(each), "state": "AVAILABLE", "status": good} for each in versions]}


@pytest.mark.rule("rest-13", "rest-15", "state-4", "better-1", "state-3")
def test_status(heads_server: ServerProcess) -> None:
    assert ask(heads_server, "GET", HALF).json == available(3, 1)
    assert ask(heads_server, "GET", f"{HALF}/versions/1").json == available(1)
    assert ask(heads_server, "GET", f"{HALF}/labels/a%20b").json == available(3)
    assert ask(heads_server, "HEAD", HALF).body == b""
    for path, status, text in (
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/nonesuch", 404, "Could not find any versions of model nonesuch"),
        (f"{HALF}/versions/2", 404, "Could not find version 2 of model half_plus_two"),
    ):
        reply = ask(heads_server, "GET", path)
        assert (reply.status, reply.error) == (status, text)


@pytest.mark.rule("rest-14")
def test_metadata(heads_server: ServerProcess) -> None:
    for where in ("", "/versions/1", "/labels/stable"):
        document = ask(heads_server, "GET", f"{HEADS}{where}/metadata").json
        assert document["model_spec"] == {"name": "heads", "signature_name": "", "version": "1"}
        signature = document["metadata"]["signature_def"]["signature_def"]["flat"]
        assert signature["method_name"] == "tensorflow/serving/regress"
        assert signature["defaults"] == {}
        assert signature["inputs"] == {
            "inputs": {
                "dtype": "DT_STRING",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                "name": "examples:0",
            }
        }
    reply = ask(heads_server, "GET", "/v1/models/nonesuch/metadata")
    assert (reply.status, reply.error) == (404, "Servable not found for request: Latest(nonesuch)")


# -- compression -------------------------------------------------------------------------------------------------------

ROWS = np.random.default_rng(5).standard_normal((4000, 1)).astype(np.float32)


@pytest.mark.rule("rest-8")
def test_requests_may_be_gzip(heads_server: ServerProcess) -> None:
    body = gzip.compress(json.dumps({"instances": ROWS.tolist()}).encode())
    reply = post(heads_server, f"{HALF}:predict", body, Content_Encoding="gzip")
    np.testing.assert_allclose(reply.json["predictions"], ROWS / 2 + 2, rtol=1e-4)
    examples = gzip.compress(b'{"examples": [{"x": [1.0, 2.0]}]}')
    assert post(heads_server, f"{HEADS}:classify", examples, Content_Encoding="gzip").status == 200
    for broken in (b"not gzip", body[:-9]):
        reply = post(heads_server, f"{HALF}:predict", broken, Content_Encoding="gzip")
        assert reply.status == 400
        assert "not valid gzip" in reply.error


@pytest.mark.rule("rest-8")
def test_a_bomb_costs_its_sender_the_reply(heads_server: ServerProcess) -> None:
    bomb = gzip.compress(b" " * (300 * 1024 * 1024), compresslevel=1)
    reply = post(heads_server, f"{HALF}:predict", bomb, Content_Encoding="gzip")
    assert reply.status == 400
    assert "larger than max" in reply.error
    assert predict(heads_server, f"{HALF}:predict").status == 200


@pytest.mark.parametrize("rows", [1000, 4000])
@pytest.mark.rule("better-5")
def test_replies_are_gzip_for_those_who_take_it(heads_server: ServerProcess, rows: int) -> None:
    """Replies of 1000 rows are compressed at once, those of 4000 in a thread."""
    body = {"instances": ROWS[:rows].tolist()}
    plain = post(heads_server, f"{HALF}:predict", body)
    assert "content-encoding" not in plain.headers
    for accepted in ("gzip", "br, gzip;q=0.5", "*", "x-gzip, identity"):
        zipped = post(heads_server, f"{HALF}:predict", body, Accept_Encoding=accepted)
        assert zipped.headers["content-encoding"] == "gzip"
        assert int(zipped.headers["content-length"]) < 0.9 * int(plain.headers["content-length"])
        assert zipped.body == plain.body
    for refused in ("identity", "gzip;q=0", "br", "gzip; q=0.000, *"):
        reply = post(heads_server, f"{HALF}:predict", body, Accept_Encoding=refused)
        assert "content-encoding" not in reply.headers
        assert reply.headers["vary"] == "accept-encoding"


def test_small_replies_stay_as_they_are(heads_server: ServerProcess) -> None:
    reply = post(heads_server, f"{HALF}:predict", {"instances": [[1.0]]}, Accept_Encoding="gzip")
    assert "content-encoding" not in reply.headers
    assert "vary" not in reply.headers


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("deadline-2")
def test_the_time_that_a_request_may_take(serve: Any, models: LiveModels) -> None:
    server = serve(models.made("slow"), "--rest_api_timeout_in_ms=50").ready()
    quick = post(server, "/v1/models/slow:predict", {"inputs": 1})
    assert quick.json == {"outputs": 1}
    late = post(server, "/v1/models/slow:predict", {"inputs": 400})
    assert (late.status, late.error) == (504, "Deadline exceeded")
