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
SAID = "the event loop was blocked for "


def lag_seconds(server: ServerProcess) -> float:
    with urllib.request.urlopen(f"{server.rest_url}/metrics", timeout=10) as reply:
        found = re.search(rb"^servable_event_loop_lag_seconds_sum (\S+)$", reply.read(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_a_server_that_stood_still_says_so(serve: Callable[..., ServerProcess], models: LiveModels) -> None:
    server = serve(models.onnx("half_plus_two")).ready()
    before, said = lag_seconds(server), server.stderr.count(SAID)  # a crowded machine may have made it wait already
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED_S)
    server.process.send_signal(signal.SIGCONT)
    wait_until(lambda: lag_seconds(server) > before + 1, "the server has seen it")
    wait_until(lambda: server.stderr.count(SAID) > said, "the server has said it")
    server.log_of_this_test(last=True)  # a server that was blocked fails its test: not this one
