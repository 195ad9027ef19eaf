"""A server notices that its event loop stood still, and says so in its log and its metrics."""

from __future__ import annotations

import re
import signal
import time
import urllib.request
from collections.abc import Callable

from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

STOPPED_S = 1.3


def lag_seconds(server: ServerProcess) -> float:
    with urllib.request.urlopen(f"{server.rest_url}/metrics", timeout=10) as reply:
        found = re.search(rb"^servable_event_loop_lag_seconds_sum (\S+)$", reply.read(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_a_server_that_stood_still_says_so(serve: Callable[..., ServerProcess], models: LiveModels) -> None:
    server = serve(models.onnx("half_plus_two")).ready()
    assert lag_seconds(server) < 1
    assert "was blocked" not in server.stderr
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED_S)
    server.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "the event loop was blocked for 1." in server.stderr, "the server has seen it")
    assert lag_seconds(server) > 1
    server.log_of_this_test(last=True)  # a server that was blocked fails its test: not this one
