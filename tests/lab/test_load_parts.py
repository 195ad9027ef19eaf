"""The small parts of the lab: schedules, histograms, URLs, what servers say of their time, judging, made-up data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servable.core.errors import ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import BOOL, FLOAT32, INT32, STRING, UINT8
from servable.lab import expectations, sources
from servable.lab.exchange import Fault, Sample, Told
from servable.lab.histogram import HIGHEST_NS, Histogram, curve
from servable.lab.judge import WRONG, Judge, Tolerance, agrees
from servable.lab.measure import Measurement
from servable.lab.plan import Plan
from servable.lab.recorder import Recorder
from servable.lab.schedule import Schedule, doubling, parse_trace, share_of
from servable.lab.server_timing import parse
from servable.lab.session import Load
from servable.lab.synthesis import Wanted, synthesise
from servable.lab.target import parse_endpoint
from servable.lab.wires.http import Http, Template
from servable.lab.wires.kserve import KserveGrpc, KserveRest
from servable.lab.wires.tfserving import TfservingGrpc, TfservingRest
from servable.protos import serving
from servable.protos.tfrecord import frame_record
from servable.transport.errors import Failure, TransportError
from servable.transport.reply import Reply
from servable.wire import tfserving_grpc

hdrh = pytest.importorskip("hdrh.histogram")


# --- histograms


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, HIGHEST_NS), min_size=1, max_size=60))
def test_histograms_count_as_hdrhistogram_does(values: list[int]) -> None:
    ours, theirs = Histogram(), hdrh.HdrHistogram(1, HIGHEST_NS, 3)
    ours.record(values)
    for value in values:
        theirs.record_value(value)
    assert ours.counts.tolist() == list(theirs.counts)
    for percent in (50.0, 90.0, 99.0, 100.0):
        rank_above = sorted(values)[max(0, int(-(-len(values) * percent // 100)) - 1)]
        assert theirs.values_are_equivalent(round(ours.percentile(percent) * 1e6), rank_above)
    again = hdrh.HdrHistogram.decode(ours.encode())
    assert again.get_total_count() == len(values)
    assert again.get_value_at_percentile(100) == theirs.get_value_at_percentile(100)
    assert Histogram.decode(ours.encode()).counts.tolist() == ours.counts.tolist()


def test_histograms_add_up_and_say_what_is_no_histogram() -> None:
    one, other = Histogram(), Histogram()
    one.record([1_000_000] * 3)
    other.record([5_000_000])
    one.add(other)
    assert one.count == 4
    assert one.share_above(2) == 0.25
    assert one.mean() == pytest.approx(2, rel=1e-3)
    assert curve(one)[0][1] == pytest.approx(1, rel=1e-3)
    assert Histogram().summary().count == 0
    assert Histogram.decode(Histogram().encode()).count == 0
    with pytest.raises(ServingError, match="no coded HdrHistogram"):
        Histogram.decode("nonsense")
    with pytest.raises(ServingError, match="in nanoseconds"):
        Histogram.decode(hdrh.HdrHistogram(1, 1000, 2).encode().decode())


def test_what_is_missing_is_said_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh", None)
    with pytest.raises(ServingError, match=r"pip install 'servable\[lab\]'"):
        Measurement(Plan(url="grpc://127.0.0.1:1/m", loads=(Load(concurrency=1),)))


# --- schedules


def test_constant_and_poisson_schedules_have_their_rate_and_are_shared_without_loss() -> None:
    constant = Schedule("constant", 200).offsets(2)
    assert len(constant) == 400
    assert set(np.diff(constant)) == {5_000_000}
    poisson = Schedule("poisson", 1000, seed=7)
    offsets = poisson.offsets(30)
    assert len(offsets) == pytest.approx(30_000, rel=0.02)
    gaps = np.diff(offsets) / 1e6
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05), "gaps of a Poisson process vary as much as they last"
    shares = [poisson.offsets(30, share, 3) for share in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == offsets.tolist()
    assert Schedule("poisson", 1000, seed=8).offsets(30).tolist() != offsets.tolist()


def test_traces_are_replayed_and_begin_again() -> None:
    trace = Schedule("trace", trace_s=parse_trace("10.0\n# comment\n10.1\n\n10.4 # third\n", "x"))
    assert trace.mean_rate_per_s == pytest.approx(5)
    assert (trace.offsets(1.2) / 1e6).round().tolist() == [0, 100, 400, 600, 700, 1000]
    for text, problem in (("1\nx", "line 2: 'x' is no time"), ("nan", "no time")):
        with pytest.raises(ServingError, match=problem):
            parse_trace(text, "file")
    for times in ((1.0,), (2.0, 1.0), (1.0, 1.0)):
        with pytest.raises(ServingError, match="trace"):
            Schedule("trace", trace_s=times)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ServingError, match="expected a number above 0"):
        Schedule("constant", rate)


def test_endless_schedules_are_refused() -> None:
    with pytest.raises(ServingError, match="more than 200,000,000 requests"):
        Schedule("constant", 1e9).offsets(10)


def test_whole_numbers_are_shared_and_doubled() -> None:
    assert [share_of(10, place, 4) for place in range(4)] == [3, 3, 2, 2]
    assert list(doubling(1)) == [1]
    assert list(doubling(20)) == [1, 2, 4, 8, 16, 20]
    assert list(doubling(16)) == [1, 2, 4, 8, 16]


# --- what servers say of their time


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"queue;dur=0.25, compute;dur=1.5", Told(250_000, 1_500_000)),
        (b'compute;desc="a, b; dur=9";dur=2,other', Told(-1, 2_000_000)),
        (b"total;dur=3", None),
        (b"queue", None),
        (b"queue;dur=x", None),
        (b"queue;dur=-1", None),
        (b"queue;dur=nan", None),
        (b"", None),
    ],
)
def test_server_timing_is_read_where_it_can_be(value: bytes, told: Told | None) -> None:
    assert parse(value) == told


# --- URLs


@pytest.mark.parametrize(
    ("url", "wire", "found"),
    [
        ("grpc://h/m", "", ("tfserving-grpc", "h:8500", ModelRef("m"))),
        ("grpcs://h:1/m/versions/3", "kserve-grpc", ("kserve-grpc", "h:1", ModelRef("m", 3))),
        ("http://h/v1/models/m:predict", "", ("tfserving-rest", "h:8501", ModelRef("m"))),
        ("http://h:1/v1/models/m/labels/stable:predict", "", ("tfserving-rest", "h:1", ModelRef("m", None, "stable"))),
        ("http://[::1]:2/v2/models/m/versions/4/infer", "", ("kserve-rest", "[::1]:2", ModelRef("m", 4))),
        ("http://h/m", "kserve-binary", ("kserve-binary", "h:8000", ModelRef("m"))),
        ("grpc://unix:/tmp/x.sock/m", "", ("tfserving-grpc", "unix:/tmp/x.sock", ModelRef("m"))),
        ("http://unix:/tmp/x.sock:/a%20b", "", ("tfserving-rest", "unix:/tmp/x.sock", ModelRef("a b"))),
        ("https://h/any/path?x=1", "http", ("http", "h:443", ModelRef(""))),
    ],
)
def test_urls_say_wire_address_and_model(url: str, wire: str, found: tuple[str, str, ModelRef]) -> None:
    endpoint = parse_endpoint(url, wire)
    assert (endpoint.wire, str(endpoint.address), endpoint.model) == found
    assert endpoint.secure == url.split(":")[0].endswith("s")


@pytest.mark.parametrize(
    ("url", "wire", "problem"),
    [
        ("ftp://h/m", "", "is no server"),
        ("h:8500", "", "is no server"),
        ("grpc://h", "", "names no model"),
        ("http://h/a/b", "", "names no model"),
        ("grpc://h/m", "kserve-rest", "cannot speak kserve-rest"),
        ("http://h/m", "soap", "is no wire"),
        ("grpcs://unix:/x/m", "", "no TLS on Unix sockets"),
        ("grpc://h:99999/m", "", "ports end at 65535"),
    ],
)
def test_urls_that_mean_nothing_are_refused(url: str, wire: str, problem: str) -> None:
    with pytest.raises(ServingError, match=problem):
        parse_endpoint(url, wire)


# --- judging


RIGHT = {"scores": np.array([[0.25, 0.75]], np.float32)}


def grpc_reply(scores: list[list[float]], status: bytes | None = b"0", http: int = 200) -> Reply:
    response = InferResponse(ModelRef("m", 1), "serving_default", {"scores": np.array(scores, np.float32)})
    trailers = () if status is None else ((b"grpc-status", status), (b"grpc-message", b"50%25 too much"))
    return Reply(http, (), tfserving_grpc.encode_predict_response(response, framed=True), trailers)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (grpc_reply([[0.25, 0.75]]), None),
        (grpc_reply([[0.250001, 0.75]]), None),
        (grpc_reply([[0.75, 0.25]]), WRONG),
        (grpc_reply([[0.25, 0.75, 0.0]]), WRONG),
        (grpc_reply([[0.25, 0.75]], b"8"), Fault("RESOURCE_EXHAUSTED", "50% too much")),
        (grpc_reply([[0.25, 0.75]], b"99"), Fault("UNKNOWN", "50% too much")),
        (grpc_reply([[0.25, 0.75]], None), "no gRPC server"),
        (grpc_reply([[0.25, 0.75]], None, 503), "UNAVAILABLE"),
        (grpc_reply([[0.25, 0.75]], b"0", 500), "HTTP 500 with grpc-status"),
        (Reply(200, (), b"", ((b"grpc-status", b"0"),)), "UNREADABLE"),
        (Reply(200, (), b"\0\0\0\0\x03abc", ((b"grpc-status", b"0"),)), "UNREADABLE"),
        (TransportError(Failure.LOST, "gone"), Fault("CONNECTION LOST", "gone")),
    ],
)
def test_only_right_answers_pass(reply: Reply | TransportError, verdict: object) -> None:
    wire = TfservingGrpc(ModelRef("m"), b"h")
    prepared = [wire.prepare(Sample({"x": np.zeros((1, 2), np.float32)}, RIGHT))]
    judge = Judge(wire, prepared, Tolerance(), Recorder(0, 0, 10))
    for _ in range(3):  # what was judged before is judged the same again
        found = judge.judge(0, reply)
        if isinstance(verdict, str):
            assert found is not None
            assert verdict in " ".join(found)
        else:
            assert found == verdict
            assert judge.judge(0, grpc_reply([[0.25, 0.75]])) is None


def test_rest_replies_are_judged_by_status_and_content() -> None:
    specs = {"scores": TensorSpec("scores", FLOAT32, (None, 2))}
    wire = TfservingRest(ModelRef("m"), b"h", specs=specs)
    prepared = [wire.prepare(Sample({"x": np.zeros((1, 2), np.float32)}, RIGHT))]
    judge = Judge(wire, prepared, Tolerance(), Recorder(0, 0, 10))
    assert judge.judge(0, Reply(200, (), b'{"predictions": [[0.25, 0.75]]}')) is None
    assert judge.judge(0, Reply(200, (), b'{"predictions": [[0.25, 0.76]]}')) is WRONG
    assert judge.judge(0, Reply(200, (), b"<html>error</html>")) is not None
    assert judge.judge(0, Reply(404, (), b'{"error": "no such model"}')) == Fault("HTTP 404", "no such model")


def test_kserve_replies_are_read() -> None:
    request = Sample({"x": np.ones((1, 2), np.float32)}, RIGHT)
    body = json.dumps(
        {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}]}
    ).encode()
    for binary in (False, True):
        wire = KserveRest(ModelRef("m"), b"h", binary=binary)
        judge = Judge(wire, [wire.prepare(request)], Tolerance(), Recorder(0, 0, 10))
        assert judge.judge(0, Reply(200, (), body)) is None
        assert judge.judge(0, Reply(400, (), b'{"error": "bad"}')) == Fault("HTTP 400", "bad")
    assert KserveGrpc(ModelRef("m"), b"h").prepare(request).head.target.endswith(b"ModelInfer")


def test_agreement_has_shapes_strings_integers_and_not_a_number() -> None:
    close = Tolerance(1e-3, 0)
    texts = np.array([b"a", b"b"], object)
    assert agrees({"y": texts, "more": texts}, {"y": texts}, close)
    assert not agrees({"y": texts[:1]}, {"y": texts}, close)
    assert not agrees({"y": texts[::-1]}, {"y": texts}, close)
    assert not agrees({}, {"y": texts}, close)
    assert agrees({"y": np.array([np.nan, 1.0005])}, {"y": np.array([np.nan, 1.0])}, close)
    assert not agrees({"y": np.array([1000])}, {"y": np.array([1001])}, close), "whole numbers are exact"
    assert agrees(b"x", b"x", close)
    assert not agrees(b"x", b"y", close)


# --- data


SIGNATURE = Signature(
    "serving_default",
    {
        "ids": TensorSpec("ids", INT32, (None, 4)),
        "flag": TensorSpec("flag", BOOL, ()),
        "text": TensorSpec("text", STRING, (None, None)),
    },
    {"scores": TensorSpec("scores", FLOAT32, (None, 2))},
)
PICTURES = Signature("serving_default", {"image": TensorSpec("image", UINT8, (None, 6, 8, 3))}, SIGNATURE.outputs)


def test_made_up_requests_fit_the_signature_vary_and_come_again() -> None:
    wanted = Wanted(batch=3, samples=5, shapes={"text": (2,)}, ranges={"ids": (5, 9)}, string_bytes=7)
    samples = synthesise(SIGNATURE, wanted)
    assert len(samples) == 5
    for sample in samples:
        assert sample.inputs["ids"].shape == (3, 4)
        assert sample.inputs["ids"].dtype == np.int32
        assert 5 <= sample.inputs["ids"].min() <= sample.inputs["ids"].max() < 9
        assert sample.inputs["flag"].shape == ()
        assert sample.inputs["text"].shape == (3, 2)
        assert {len(text) for text in sample.inputs["text"].reshape(-1)} == {7}
        assert sample.rows == 3
    assert len({sample.inputs["ids"].tobytes() for sample in samples}) > 1
    assert synthesise(SIGNATURE, wanted)[4].inputs["ids"].tolist() == samples[4].inputs["ids"].tolist()
    with pytest.raises(ServingError, match="no input 'idz'; there are 'ids', 'flag', 'text'"):
        synthesise(SIGNATURE, Wanted(shapes={"idz": (1,)}))
    with pytest.raises(ServingError, match=r"a row of shape \[5\] does not fit"):
        synthesise(SIGNATURE, Wanted(shapes={"ids": (5,)}))


def test_arrays_are_cut_into_requests_with_their_answers(tmp_path: Path) -> None:
    rows = np.arange(40, dtype=np.int32).reshape(10, 4)
    np.savez(tmp_path / "data.npz", ids=rows)
    np.savez(tmp_path / "right.npz", scores=rows[:, :2].astype(np.float32))
    samples = sources.read_samples(tmp_path / "data.npz", SIGNATURE, 4, 100)
    assert [sample.inputs["ids"].tolist() for sample in samples] == [rows[:4].tolist(), rows[4:8].tolist()]
    expected = expectations.from_file(tmp_path / "right.npz", samples, 4, SIGNATURE)
    assert expected[1].expected is not None
    assert expected[1].expected["scores"].tolist() == rows[4:8, :2].tolist()
    with pytest.raises(ServingError, match="10 rows: too few for one request of 11"):
        sources.read_samples(tmp_path / "data.npz", SIGNATURE, 11, 100)
    np.savez(tmp_path / "other.npz", idz=rows)
    with pytest.raises(ServingError, match="'idz', which is no input"):
        sources.read_samples(tmp_path / "other.npz", SIGNATURE, 1, 100)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"ids": [[1, 2, 3, 4]]}'),
        ("b.json", '[{"inputs": {"ids": [[1, 2, 3, 4]]}}]'),
        ("c.jsonl", '{"instances": [{"ids": [1, 2, 3, 4]}]}\n\n'),
    ],
)
def test_json_requests_come_in_the_forms_people_have(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (sample,) = sources.read_samples(tmp_path / name, SIGNATURE, 1, 10)
    assert sample.inputs["ids"].tolist() == [[1, 2, 3, 4]]
    assert sample.inputs["ids"].dtype == np.int32


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.json", "{", "no JSON"),
        ("x.jsonl", "{}\n{", "line 2 is no JSON"),
        ("x.json", "3", "a request is an object of inputs"),
        ("x.json", "[]", "holds no requests"),
        ("x.npz", "nonsense", "no array file"),
        ("x.tfrecord", "nonsense, and more of it", "x.tfrecord: "),
        ("x.csv", "1,2", "no data that can be read"),
    ],
)
def test_files_that_cannot_be_data_are_named(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ServingError, match=problem):
        sources.read_samples(tmp_path / name, SIGNATURE, 1, 10)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    for name in ("x.json", "x.jsonl", "x.npz", "x.tfrecord"):
        with pytest.raises(ServingError, match=f"cannot read .*{name}"):
            sources.read_samples(tmp_path / name, SIGNATURE, 1, 10)


def test_logged_requests_bring_their_logged_answers(tmp_path: Path) -> None:
    request = InferRequest(ModelRef("m"), {"ids": np.array([[1, 2, 3, 4]], np.int32)})
    response = InferResponse(ModelRef("m", 1), "serving_default", RIGHT)
    log = serving.PredictionLog()
    log.predict_log.request.ParseFromString(tfserving_grpc.encode_predict_request(request))
    log.predict_log.response.ParseFromString(tfserving_grpc.encode_predict_response(response))
    other = serving.PredictionLog()
    other.classify_log.request.model_spec.name = "m"
    records = [other.SerializeToString(), *[log.SerializeToString()] * 3]
    (tmp_path / "log.tfrecord").write_bytes(b"".join(map(frame_record, records)))
    samples = sources.read_samples(tmp_path / "log.tfrecord", None, 1, 2)
    assert len(samples) == 2
    assert samples[0].inputs["ids"].tolist() == [[1, 2, 3, 4]]
    assert samples[0].expected is not None
    assert samples[0].expected["scores"].tolist() == [[0.25, 0.75]]


def test_folders_of_images_become_pixels_or_files(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        image.new("RGB", (20, 10), colour).save(tmp_path / f"{number}.png")
    (first,) = sources.read_samples(tmp_path, PICTURES, 2, 10)
    assert first.inputs["image"].shape == (2, 6, 8, 3)
    assert first.inputs["image"][1, 3, 3].tolist() == [0, 255, 0]
    chw = Signature("s", {"image": TensorSpec("image", FLOAT32, (None, 3, 6, 8))}, {})
    (first,) = sources.read_samples(tmp_path, chw, 3, 10)
    assert first.inputs["image"].shape == (3, 3, 6, 8)
    assert first.inputs["image"][2, :, 0, 0].tolist() == [0.0, 0.0, 1.0]
    texts = Signature("s", {"jpeg": TensorSpec("jpeg", STRING, (None,))}, {})
    files = sources.read_samples(tmp_path, texts, 1, 10)
    assert files[0].inputs["jpeg"][0] == (tmp_path / "0.png").read_bytes()
    with pytest.raises(ServingError, match="3 images: too few for one request of 4"):
        sources.read_samples(tmp_path, PICTURES, 4, 10)


# --- templates


def test_templates_fill_their_places() -> None:
    template = Template(
        "POST", "/x?n={{index}}", (("X-Id", "{{uuid}}"),), '{"v": {{values}}, "r": {{randint:1:6}}, "f": {{ random }}}'
    )
    wire = Http(template, b"h", seed=3)
    sample = Sample({"values": np.array([[1, 2]], np.int32)})
    first, second = wire.prepare(sample), wire.prepare(sample)
    assert (first.head.target, second.head.target) == (b"/x?n=0", b"/x?n=1")
    body = json.loads(first.body)
    assert body["v"] == [[1, 2]]
    assert 1 <= body["r"] <= 6
    assert 0 <= body["f"] < 1
    assert first.head.fields[0][1] != second.head.fields[0][1]
    assert Http(template, b"h", seed=3).prepare(sample).body == first.body
    for text in ("{{nothing}}", "{{randint:6:1}}"):
        with pytest.raises(ServingError, match="is no variable of a template"):
            Http(Template(body=text), b"h").prepare(sample)
    with pytest.raises(ServingError, match="cannot be sent"):
        Http(Template(path="/a b"), b"h").prepare(sample)
