"""The same bytes against a real server over real sockets, while another client's calls must go on being right."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import grpc

from bench.fuzz.scripts import FrameScript, damaged, request
from bench.fuzz.sessions import BrokenError, check
from bench.processes import free_port, pinned, resident_mb, wait_until_ok
from bench.questions import PREDICT, samples
from servable.transport.http2 import frames
from servable.zoo import catalog

_ASK_EVERY = 50


@dataclass(frozen=True)
class Found:
    """What a real server made of it."""

    connections: int
    frames: int
    requests: int
    right_answers: int
    before_mb: float
    after_mb: float
    longest_lag_s: str
    events: Counter[str]


def against_a_server(seed: str, connections: int) -> Found:
    """Fuzz ``servable serve`` over ``connections`` connections, half of them HTTP/1.1."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        catalog.build("half_plus_two", Path(folder), kind="onnx")
        port = free_port()
        command = [sys.executable, "-m", "servable", "serve", folder, "--listen", f"127.0.0.1:{port}"]
        server = subprocess.Popen(
            pinned("0", [*command, "--log_level", "warning"]), stdout=subprocess.DEVNULL, stderr=log
        )
        try:
            wait_until_ok(f"http://127.0.0.1:{port}/readyz", server)
            found = _fuzz(Random(seed), port, server.pid, connections)
            check(holds=server.poll() is None, what="the server has ended")
        finally:
            server.terminate()
            server.wait(30)
        log.seek(0)
        said = log.read().decode("utf-8", "replace")
        check(holds="Traceback" not in said and '"error"' not in said, what=f"the server logged: {said[-2000:]}")
    return found


def _fuzz(random: Random, port: int, pid: int, connections: int) -> Found:
    sample = samples("half_plus_two", (1,))[0]
    frame_count = request_count = right = 0
    before = 0.0
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PREDICT)
        body = sample.grpc_body("half_plus_two")
        expected = call(body, timeout=10)
        for number in range(connections):
            if number == connections // 10:
                before = resident_mb(pid)
            if number % 2:
                frame_count += _send_frames(random, port)
            else:
                request_count += _send_requests(random, port)
            if number % _ASK_EVERY == 0:
                check(holds=call(body, timeout=10) == expected, what="another client got a wrong answer")
                right += 1
    _wait_until_idle(port)
    metrics = _metrics(port)
    lag, events = _longest_lag(metrics), _events(metrics)
    return Found(connections, frame_count, request_count, right, before, resident_mb(pid), lag, events)


def _send_frames(random: Random, port: int) -> int:
    script = FrameScript(random, random.choice((0.0, 0.02, 0.5)))
    count = random.choice((5, 50, 300))
    data = b"".join(script.next() for _ in range(count))
    if random.random() < 0.1:
        data = damaged(random, data)
    _send(random, port, frames.PREFACE + frames.settings([]) + frames.SETTINGS_ACK + data)
    return count


def _send_requests(random: Random, port: int) -> int:
    count = random.choice((1, 3, 10))
    _send(random, port, b"".join(damaged(random, request(random)) for _ in range(count)))
    return count


def _send(random: Random, port: int, data: bytes) -> None:
    """Send what the server takes, read some of what it says, and leave: decently, by half-closing, or with a reset."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(0.05)
        connection.sendall(data)
        if random.random() < 0.5:
            connection.shutdown(socket.SHUT_WR)
        if random.random() < 0.7:
            connection.recv(random.choice((1, 100_000)))


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        return str(reply.read().decode())


def _wait_until_idle(port: int) -> None:
    """Wait until connections that were left have been noticed: the file descriptors are few again."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = re.search(r"^process_open_fds (\S+)$", _metrics(port), re.MULTILINE)
        if found is not None and float(found[1]) < 60:
            return
        time.sleep(0.2)
    raise BrokenError("connections are still open ten seconds after their clients left")


def _events(metrics: str) -> Counter[str]:
    lines = re.findall(r'^servable_transport_events_total\{event="(\w+)"\} (\S+)$', metrics, re.MULTILINE)
    return Counter({event: int(float(count)) for event, count in lines})


def _longest_lag(metrics: str) -> str:
    """Return the lowest limit of the histogram that holds every lag of the event loop."""
    rows: list[tuple[str, str]] = re.findall(
        r'^servable_event_loop_lag_seconds_bucket\{le="(\S+)"\} (\S+)$', metrics, re.MULTILINE
    )
    total = float(rows[-1][1])
    longest = next(limit for limit, count in rows if float(count) == total)
    check(holds=longest != "+Inf" and float(longest) <= 1.0, what=f"the event loop was blocked: {longest} s")
    return longest
