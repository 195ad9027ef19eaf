"""Two results compared: thresholds mean what they say, and what does not compare is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.lab import measured

from servable.core.errors import Code, ServingError
from servable.lab.comparison import row_of, with_ratios
from servable.lab.difference import compare
from servable.lab.difference_page import as_json, difference_report
from servable.lab.result import Step
from servable.lab.thresholds import METRICS, parse_threshold
from servable.report.blocks import Tone
from servable.report.html import write_html

OLD = measured.step("8 in flight", 1000, 2.0)


def slower(factor: float) -> Step:
    latency = replace(
        OLD.latency, **{name: getattr(OLD.latency, name) * factor for name in ("p50_ms", "p99_ms", "p999_ms")}
    )
    return replace(OLD, latency=latency, throughput_per_s=OLD.throughput_per_s / factor)


def missed(new: Step, *thresholds: str, old: Step = OLD) -> list[str]:
    found = compare(measured.result(old), measured.result(new), [parse_threshold(text) for text in thresholds])
    return [threshold.text for change in found.exceeded for threshold in change.exceeded]


@pytest.mark.parametrize(
    ("text", "factor", "expected"),
    [
        ("p99=+10%", 1.09, False),
        ("p99=+10%", 1.11, True),
        ("p99=+10%", 0.5, False),
        ("p50=+1ms", 1.4, False),
        ("p50=+1ms", 1.6, True),
        ("p50=2.5ms", 1.2, False),
        ("p50=2500us", 1.3, True),
        ("rate=-5%", 1.04, False),
        ("rate=-5%", 1.06, True),
        ("rate=-100", 1.2, True),
        ("rate=900", 1.2, True),
        ("rate=900", 1.05, False),
        ("cpu=+1%", 1.0, False),
        ("memory=150MiB", 1.0, False),
        ("memory=100MiB", 1.0, True),
    ],
)
def test_thresholds(text: str, factor: float, expected: bool) -> None:
    assert missed(slower(factor), text) == ([text] if expected else [])


def test_exactly_at_the_threshold_is_within() -> None:
    assert missed(slower(1.0), "p99=+0%", "rate=-0%", "wrong=0", "errors=+0") == []


def test_errors_are_shares_of_all_requests() -> None:
    failing = replace(OLD, errors=round(OLD.ok * 0.02))
    assert missed(failing, "errors=1%") == ["errors=1%"]
    assert missed(failing, "errors=3%", "errors=+3%") == []
    assert missed(failing, "errors=0") == ["errors=0"]


def test_an_answer_that_became_wrong_is_always_missed() -> None:
    assert missed(replace(OLD, wrong=1)) == ["wrong=+0"]
    assert missed(replace(OLD, wrong=1), old=replace(OLD, wrong=1)) == []


def test_no_right_answer_at_all_misses_every_bound_of_latency() -> None:
    dead = Step(OLD.label, 0, 50, 0)
    assert missed(dead, "p99=+500%", "rate=-50%") == ["rate=-50%", "p99=+500%"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p98=+1%", "no metric 'p98'"),
        ("p99", "expected such as p99=+10%"),
        ("p99=", "expected such as p99=+10%"),
        ("p99=+1furlong", "expected such as p99=+10%"),
        ("p99=10%", "needs a sign"),
        ("p99=50", "needs a unit, such as 50ms"),
        ("p99=-10%", "worse is +"),
        ("rate=+10%", "worse is -"),
        ("rate=5ms", "rate is not measured in ms"),
        ("memory=5ms", "memory is not measured in ms"),
    ],
)
def test_thresholds_that_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(ServingError, match="(?s)" + said.replace("+", r"\+")) as caught:
        parse_threshold(text)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ("machine", "cpu", "another"),
        ("machine", "cores", 64),
        ("scenario", "arrivals", "poisson"),
        ("scenario", "connections", 99),
        ("target", "model", "other"),
        ("target", "wire", "tfserving-rest"),
    ],
)
def test_results_of_different_things_are_refused_unless_allowed(place: str, field: str, value: object) -> None:
    old = measured.result(OLD)
    new = replace(old, **{place: replace(getattr(old, place), **{field: value})})
    with pytest.raises(ServingError, match=rf"do not compare: {place}\.{field} was") as caught:
        compare(old, new, [])
    assert caught.value.code is Code.FAILED_PRECONDITION
    found = compare(old, new, [], allow_conflicts=True)
    report = difference_report(found, "old", "new")
    assert f"{place}.{field}" in str(report.lead), "allowed, but never silent"


def test_results_without_a_common_step_are_refused() -> None:
    with pytest.raises(ServingError, match="no step is in both: the old result has 8 in flight; the new, 9 in flight"):
        compare(measured.result(OLD), measured.result(replace(OLD, label="9 in flight")), [])


def test_a_threshold_that_cannot_be_judged_is_an_error_and_no_pass() -> None:
    with pytest.raises(ServingError, match="cpu=\\+5% cannot be judged: the old result has no such number"):
        missed(OLD, "cpu=+5%", old=replace(OLD, server=None))


def test_other_versions_are_remarked() -> None:
    old = measured.result(OLD)
    new = replace(old, versions={**old.versions, "numpy": "2.5.0"})
    assert compare(old, new, []).remarks == ("numpy was '2.4.6', is now '2.5.0'",)


def test_steps_are_told_apart_from_noise() -> None:
    same = compare(measured.result(OLD), measured.result(measured.step("8 in flight", 1000, 2.0, seed=5)), [])
    far = compare(measured.result(OLD), measured.result(measured.step("8 in flight", 1000, 3.0, seed=5)), [])
    assert [change.noise for change in same.changes if change.metric.name == "p50"] == [True]
    assert [change.noise for change in far.changes if change.metric.name == "p50"] == [False]


def test_comparisons_are_compared_row_by_row() -> None:
    old = measured.comparison()
    slower = with_ratios(
        row_of(row.contestant, row.protocol, row.wire, row.concurrency, [
            replace(block, throughput_per_s=block.throughput_per_s * (0.5 if row.contestant == "servable" else 1))
            for block in row.blocks
        ])
        for row in old.rows
    )  # fmt: skip
    found = compare(old, replace(old, rows=slower), [parse_threshold("rate=-10%"), parse_threshold("p99=+0%")])
    assert {change.step for change in found.exceeded} == {
        f"servable, {protocol}, {concurrency} in flight" for protocol in ("gRPC", "REST") for concurrency in (1, 32)
    }, "and nobody who was not measured"
    assert {change.metric.name for change in found.exceeded} == {"rate"}
    ratios = {change.step: change.ratio for change in found.changes if change.metric.name == "ratio"}
    assert ratios["tensorflow_model_server, REST, 32 in flight"] == pytest.approx(2)
    assert ratios["servable, REST, 32 in flight"] == 1, "the first is what the others are compared with"
    noise = {(change.step, change.metric.name): change.noise for change in found.changes}
    assert noise["servable, gRPC, 1 in flight", "rate"] is False
    assert noise["flask + gunicorn, gRPC, 1 in flight", "rate"] is True
    assert "p95" not in {change.metric.name for change in found.changes}
    mine = {c.metric.name: c.old for c in found.changes if c.step == "servable, gRPC, 32 in flight"}
    assert mine["p50"] == pytest.approx(32 / 5000, rel=0.05), "seconds"
    assert mine["cpu"] == pytest.approx(0.9 / 5000, rel=0.05), "seconds a request"
    assert mine["memory"] == 140 << 20
    with pytest.raises(ServingError, match="p95=\\+5% cannot be judged"):
        compare(old, old, [parse_threshold("p95=+5%")])


def test_comparisons_of_different_things_are_refused_and_a_result_is_none() -> None:
    old = measured.comparison()
    moved = replace(old, model="another", conditions=replace(old.conditions, threads=7))
    with pytest.raises(
        ServingError, match=r"model was 'text_cnn_small', is 'another'; conditions\.threads was 1, is 7"
    ):
        compare(old, moved, [])
    with pytest.raises(ServingError, match="one of these files is a result, the other a comparison"):
        compare(old, measured.result(OLD), [])


def test_what_only_one_comparison_has_is_remarked() -> None:
    old = measured.comparison()
    fewer = tuple(replace(row, blocks=()) if row.contestant == "flask + gunicorn" else row for row in old.rows)
    found = compare(old, replace(old, rows=fewer, versions={"lab": {**measured.VERSIONS, "numpy": "9"}}), [])
    assert any("only in the old result: flask + gunicorn, gRPC, 1 in flight" in remark for remark in found.remarks)
    assert any(remark.startswith("lab: numpy was") for remark in found.remarks)


def test_the_report_and_the_json_agree() -> None:
    found = compare(measured.result(OLD), measured.result(slower(1.5)), [parse_threshold("p99=+10%")])
    report = difference_report(found, "old.json", "new.json")
    assert report.tone is Tone.BAD
    assert "8 in flight: p99 went from" in str(report.lead)
    assert "+50%" in write_html(report)
    document = as_json(found)
    assert [item["metric"] for item in document["exceeded"]] == ["p99"]
    assert document["exceeded"][0]["ratio"] == pytest.approx(1.5)
    assert {item["metric"] for item in document["changes"]} <= set(METRICS)
