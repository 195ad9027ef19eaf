"""Prometheus' own parser reads our metrics page, and the numbers there are what was sent."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable import Client
from servable.core.errors import ServingError

pytestmark = pytest.mark.conformance

Page = dict[str, dict[tuple[tuple[str, str], ...], float]]


def page(server: ServerProcess) -> Page:
    """Return every sample: name -> its labels, sorted -> value."""
    with urllib.request.urlopen(f"{server.rest_url}/metrics") as reply:
        assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = reply.read().decode()
    found: Page = {}
    for family in text_string_to_metric_families(text):
        assert family.type in {"counter", "gauge", "histogram", "info"}, family
        assert family.documentation
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), f"{sample} is there twice"
            found[sample.name][labels] = sample.value
    return found


def value(found: Page, name: str, **labels: str) -> float:
    return found[name][tuple(sorted(labels.items()))]


@pytest.mark.rule("better-7")
def test_counts_are_what_was_sent(serve: Callable[..., ServerProcess], models: LiveModels) -> None:
    server = serve(models.onnx("half_plus_two"), models.made("echo")).ready()
    x = np.ones((3, 1), np.float32)
    for url, sent in ((server.grpc_url, 20), (server.rest_url, 30)):
        with Client(url) as client:
            for _ in range(sent):
                client.predict("half_plus_two", x=x)
            for model, inputs in (("half_plus_two", {"y": x}), ("nonesuch", {"x": x}), ('evil\n"\\', {"x": x})):
                with pytest.raises(ServingError):
                    client.predict(model, inputs=inputs)
    found = page(server)
    half = {"model": "half_plus_two", "version": "1", "signature": "serving_default"}
    for wire, sent in (("grpc", 20), ("rest", 30)):
        assert value(found, "servable_requests_total", **half, wire=wire, api="Predict", code="OK") == sent
        assert value(found, "servable_request_duration_seconds_count", **half, wire=wire, api="Predict") == sent
        failed: dict[str, Any] = {"version": "", "signature": "", "wire": wire, "api": "Predict"}
        assert value(found, "servable_requests_total", **failed, model="half_plus_two", code="INVALID_ARGUMENT") == 1
        assert value(found, "servable_requests_total", **failed, model="", code="NOT_FOUND") == 2
        buckets = found["servable_request_duration_seconds_bucket"]
        series = sorted(
            (float(dict(labels)["le"]), count) for labels, count in buckets.items() if ("wire", wire) in labels
        )
        counts = [count for _, count in series]
        assert counts == sorted(counts)
        assert series[-1] == (float("inf"), sent)
    assert value(found, "servable_queue_duration_seconds_count", **half) == 50
    assert value(found, "servable_batch_rows_sum", **half) == 150
    assert 1 <= value(found, "servable_batch_duration_seconds_count", **half) <= 50
    states = found["servable_version_state"]
    assert {dict(labels)["model"]: dict(labels)["state"] for labels in states} == {
        "half_plus_two": "AVAILABLE",
        "echo": "AVAILABLE",
    }
    assert found["process_resident_memory_bytes"][()] > 1_000_000


def test_a_client_adds_no_series_of_its_own(server: ServerProcess) -> None:
    """Labels come from the configuration; a client that invents names must not fill the server's memory."""

    def ask(name: str) -> None:
        request = urllib.request.Request(f"{server.rest_url}/v1/models/{name}:predict", b'{"instances": [[1.0]]}')
        with pytest.raises(urllib.error.HTTPError) as raised, urllib.request.urlopen(request):
            pass
        raised.value.close()

    ask("nonesuch")
    before = {name: len(samples) for name, samples in page(server).items()}
    for number in range(30):
        ask(f"nonesuch-{number}")
    assert {name: len(samples) for name, samples in page(server).items()} == before
