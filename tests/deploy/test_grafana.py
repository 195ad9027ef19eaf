"""The dashboard and the alerts speak of metrics and labels that a server exposes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from servable.core.errors import Code
from servable.core.messages import InferResponse, ModelRef
from servable.core.status import VersionState, VersionStatus
from servable.observe.metrics import Metrics

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
OF_THE_SCRAPE = {"job", "instance", "le"}
OF_THE_PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
_SELECTOR = re.compile(r"\b((?:servable|process|python)_[a-z_]+)(?:\{([^}]*)\})?")
_BY = re.compile(r"\bby \(([^)]*)\)")


def exposed() -> dict[str, set[str]]:
    """Return the labels of every series of a server that has done a little of everything."""
    status = VersionStatus(1, VersionState.AVAILABLE, None, "onnxruntime", "f32", "")
    metrics = Metrics(lambda: [("m", status)], {"m"}.__contains__)
    ref = ModelRef("m", 1)
    metrics.meter("grpc", "Predict").answered(InferResponse(ref, "s", {}), 0.1)
    metrics.batch(ref, "s", 1, 1, 2, 0.0, 0.1)
    metrics.queued(ref, "s", 1, 1, 0.1)
    metrics.tried("m", 1, "ok")
    metrics.trial("m", 1, ended=False)
    metrics.logged("m", Code.OK)
    metrics.dropped_lines("overflow")
    metrics.transport_event("rst_received")
    metrics.transport_stall("socket", 0.1)
    metrics.meter("grpc", "Predict").failed(ref, Code.INTERNAL)
    families = text_string_to_metric_families(metrics.exposition().decode())
    found: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found | {"servable_event_loop_lag_seconds_bucket": set(), **{name: set() for name in OF_THE_PROCESS}}


def check(expression: str, known: dict[str, set[str]]) -> None:
    selectors = _SELECTOR.findall(expression)
    assert selectors, expression
    labels: set[str] = set(OF_THE_SCRAPE)
    for name, filters in selectors:
        assert name in known, f"{name} is not exposed: {expression}"
        labels |= known[name]
        asked = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", filters))
        assert asked <= known[name] | OF_THE_SCRAPE, f"{name} has no {asked - known[name]}: {expression}"
    for names in _BY.findall(expression):
        assert {name.strip() for name in names.split(",")} <= labels, expression
    assert expression.count("(") == expression.count(")"), expression
    assert expression.count("{") == expression.count("}"), expression


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_the_dashboard_asks_for_what_is_exposed() -> None:
    dashboard = json.loads((GRAFANA / "servable.json").read_text())
    known = exposed()
    asked = list(expressions(dashboard))
    assert len(asked) > 20
    for expression in asked:
        check(expression, known)
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([*asked, *map(str, dashboard["templating"]["list"])])))
    assert used - {"__rate_interval", "__all"} <= names
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            call = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert call is not None
            check(call[1], known)
            (selected, _), *_ = _SELECTOR.findall(call[1])
            assert call[2] in known[selected] | OF_THE_SCRAPE
    shown = {name for expression in asked for name, _ in _SELECTOR.findall(expression)}
    ours = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in known if name.startswith("servable_")}
    missing = ours - {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert missing <= {"servable_transport_stall_seconds_total"}, "every family of ours has its place"


def test_panels_have_their_own_places() -> None:
    panels = json.loads((GRAFANA / "servable.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_alerts_ask_for_what_is_exposed() -> None:
    rules = re.findall(r"^        expr: (.+)$", (GRAFANA / "alerts.yml").read_text(), re.MULTILINE)
    assert len(rules) >= 6
    for expression in rules:
        check(expression, exposed())
