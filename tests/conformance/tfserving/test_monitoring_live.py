"""What is counted of calls by every method, read from the monitoring path of a live server."""

from __future__ import annotations

import urllib.request
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.conformance.tfserving.rest import call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable import protos

PREDICTION = "/tensorflow.serving.PredictionService"
EXAMPLES = 3


def value(server: ServerProcess, name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"{server.rest_url}/monitoring") as page:
        families = text_string_to_metric_families(page.read().decode())
    # This parser puts "_total" behind the names of counters, as its own are called.
    samples = {
        (sample.name.removesuffix("_total"), frozenset(sample.labels.items())): sample.value
        for each in families
        for sample in each.samples
    }
    return samples.get((f":tensorflow:{name}".removesuffix("_total"), frozenset(labels.items())), 0)


def ask(server: ServerProcess, method: str, request: Any) -> None:
    with grpc.insecure_channel(server.address) as channel:
        made: Any = channel.unary_unary(f"{PREDICTION}/{method}")
        made(request.SerializeToString(), timeout=10)


def examples() -> Any:
    made = protos.serving.Input()
    for _ in range(EXAMPLES):
        made.example_list.examples.add().features.feature["x"].float_list.value.extend([1.0, 0.0])
    return made


@pytest.mark.rule("metrics-4", "metrics-5", "metrics-6")
def test_methods_are_told_apart(models: LiveModels) -> None:
    with ServerProcess(models.heads(), "--monitoring_path=/monitoring") as server:
        server.ready()
        classify = protos.serving.ClassificationRequest(input=examples())
        classify.model_spec.name = "heads"
        ask(server, "Classify", classify)
        multi = protos.serving.MultiInferenceRequest(input=examples())
        task = multi.tasks.add(method_name="tensorflow/serving/classify")
        task.model_spec.name = "heads"
        ask(server, "MultiInference", multi)
        assert call(server.address, "GET", "/v1/models/heads/metadata").status == 200
        assert call(server.address, "GET", "/v1/models/invented").status == 404
        body = {"signature_name": "predict", "instances": [[1.0, 0.0]]}
        assert call(server.address, "POST", "/v1/models/heads:predict", body).status == 200
        count = "serving:request_count"
        assert value(server, count, model_name="heads", status="OK") == 3, "not MultiInference"
        assert value(server, count, model_name="", status="NOT_FOUND") == 1
        latency = "serving:request_latency_count"
        for api, entrypoint in (("Classify", "GRPC"), ("predict", "REST"), ("", "REST")):
            assert value(server, latency, model_name="heads", API=api, entrypoint=entrypoint) == 1, api
        assert value(server, "serving:request_example_count_total", model="heads") == EXAMPLES
        assert value(server, "serving:request_example_counts_count", model="heads") == 1
        assert value(server, "core:graph_runs") == 3
