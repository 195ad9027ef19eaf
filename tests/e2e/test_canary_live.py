"""A new version on trial, from ``servable.toml`` to the metrics of a live server."""

from __future__ import annotations

import shutil
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable.client import Client
from servable.core.errors import ServingError

Serve = Callable[..., ServerProcess]

FAILING = """
from typing import TypedDict

from servable import Tensor


class Answer(TypedDict):
    y: Tensor["float32", None, 1]


class Half:
    def predict(self, x: Tensor["float32", None, 1]) -> Answer:
        raise ValueError("this version was not tested")
"""


def settings(folder: Path, canary: str) -> Path:
    file = folder / "servable.toml"
    file.write_text(
        f'[[models]]\nname = "half"\npath = "{folder / "half"}"\nversions = "all"\n\n[models.canary]\n{canary}\n'
    )
    return file


def metrics(server: ServerProcess, name: str) -> Counter[str]:
    with urllib.request.urlopen(f"{server.rest_url}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[sample.labels.get("outcome", "")] += int(sample.value)
    return found


def available(server: ServerProcess) -> int:
    with Client(server.grpc_url) as client:
        return sum(status.state.name == "AVAILABLE" for status in client.status("half"))


@pytest.fixture
def two_versions(models: LiveModels, tmp_path: Path) -> Path:
    for version in ("1", "2"):
        shutil.copytree(models.onnx("half_plus_two") / "1", tmp_path / "half" / version)
    return tmp_path


@pytest.mark.parametrize("wire", ["grpc_url", "rest_url"])
def test_traffic_is_split_and_shadowed(wire: str, serve: Serve, two_versions: Path) -> None:
    file = settings(two_versions, "percent = 50\nshadow_percent = 100\nmax_difference_rate = 0.0\nmin_requests = 10")
    server = serve("--config", file).ready()
    wait_until(lambda: available(server) == 2, "both versions are available")
    with Client(getattr(server, wire)) as client:
        for value in range(40):
            found = client.predict("half", x=np.array([[value]], np.float32))
            assert found["y"].tolist() == [[value * 0.5 + 2]]
    canary = "servable_canary_outcomes_total"
    wait_until(
        lambda: sum(metrics(server, canary)[kind] for kind in ("ok",)) == 40, "every request met the new version"
    )
    counts = metrics(server, canary)
    assert 5 <= counts["same"] <= 35, "some were drawn, the others were shadowed"
    assert counts["different"] == counts["failed"] == 0
    assert metrics(server, "servable_canary_active") == {"": 1}


def test_a_version_that_fails_is_rolled_back(serve: Serve, two_versions: Path) -> None:
    shutil.rmtree(two_versions / "half" / "2")
    (two_versions / "half" / "2").mkdir()
    (two_versions / "half" / "2" / "model.py").write_text(FAILING)
    server = serve("--config", settings(two_versions, "percent = 50\nmin_requests = 5"), "--allow_python").ready()
    wait_until(lambda: available(server) == 2, "both versions are available")
    failures = 0
    with Client(server.grpc_url) as client:
        for _ in range(100):
            try:
                client.predict("half", x=np.array([[1.0]], np.float32))
            except ServingError:
                failures += 1
    assert failures == 5, "the fifth failure ended the trial"
    assert "half/2 is rolled back to version 1: 100.0% of its requests failed" in server.stderr
    assert metrics(server, "servable_canary_active") == {"": 0}


@pytest.mark.parametrize(
    ("canary", "words"),
    [
        ("percent = 200", "canary: percent is from 0 to 100"),
        ("percent = 'ten'", "canary: percent: expected a number"),
        ("percents = 5", "did you mean percent?"),
        ("", "nothing would be tried"),
    ],
)
def test_a_trial_that_makes_no_sense_is_refused(canary: str, words: str, serve: Serve, two_versions: Path) -> None:
    server = serve("--config", settings(two_versions, canary))
    assert server.wait() != 0
    assert words in server.stderr + server.stdout
