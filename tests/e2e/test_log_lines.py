"""What a server logs: one JSON object a line for machines, one readable line for people."""

from __future__ import annotations

import datetime as dt
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

Start = Callable[..., ServerProcess]


def use(server: ServerProcess) -> None:
    """Have it load, answer, refuse and stop."""
    server.ready()
    url = f"{server.rest_url}/v1/models/half_plus_two:predict"
    with urllib.request.urlopen(url, b'{"instances": [[1.0]]}'):
        pass
    with pytest.raises(urllib.error.HTTPError) as raised, urllib.request.urlopen(url, b"{"):
        pass
    raised.value.close()
    assert server.stop() == 0


@pytest.mark.parametrize("flags", [["--log_format", "json"], ["--log_format=json", "--log_level=debug"], []])
def test_lines_for_machines(serve: Start, models: LiveModels, flags: list[str]) -> None:
    """Also without a flag, where stderr is no terminal."""
    server = serve(models.onnx("half_plus_two"), *flags)
    use(server)
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    assert lines
    for line in lines:
        assert line["level"] in {"debug", "info", "warning", "error"}
        assert line["logger"].startswith("servable.")
        assert line["message"]
        assert dt.datetime.fromisoformat(line["timestamp"]).tzinfo is not None
    messages = [line["message"] for line in lines]
    assert "half_plus_two version 1: LOADING" in messages
    assert any(message.startswith("half_plus_two version 1: AVAILABLE") for message in messages)
    assert any(message.startswith("stopping") for message in messages)
    assert ("--log_level=debug" in flags) == any(line["level"] == "debug" for line in lines)


@pytest.mark.tensorflow
def test_what_a_child_prints_becomes_lines_of_the_log(tensorflow_server: ServerProcess) -> None:
    lines = [json.loads(line) for line in tensorflow_server.stderr.splitlines()]
    assert any(line["logger"] == "servable.child" for line in lines)


def test_lines_for_people(serve: Start, models: LiveModels) -> None:
    server = serve(models.onnx("half_plus_two"), "--log_format", "console")
    use(server)
    lines = server.stderr.splitlines()
    assert lines
    assert not any(line.startswith("{") for line in lines)
    assert "\x1b" not in server.stderr, "colours are for terminals"
    loading = next(line for line in lines if "LOADING" in line)
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[info +\] half_plus_two version 1: LOADING", loading)


def test_only_what_is_severe(serve: Start, models: LiveModels) -> None:
    server = serve(models.onnx("half_plus_two"), "--log_level=warning")
    use(server)
    assert server.stderr == ""


def test_a_fault_of_a_client_writes_nothing(serve: Start, models: LiveModels) -> None:
    """A client that sends nonsense must not be able to fill the disk."""
    server = serve(models.onnx("half_plus_two")).ready()
    before = server.stderr
    for path, body in (("/v1/models/half_plus_two:predict", b"{"), ("/v1/models/x:predict", b"{}"), ("/x", None)):
        with (
            pytest.raises(urllib.error.HTTPError) as raised,
            urllib.request.urlopen(f"{server.rest_url}{path}", body),
        ):
            pass
        raised.value.close()
    assert server.stderr == before
