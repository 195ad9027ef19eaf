"""Each flood at full speed from one client, while another client's calls are timed: what does the flood cost it?

    python bench/attack.py [--seconds N] [--only WORD]

The flood connects again as soon as the server has ended its connection. Server on one core, both clients on the other.
Prints a table: latency of the other client's calls, resident memory after the flood, connections it used up.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from bench.processes import LOADER_CORE, pinned, resident_mb, servable_server
from bench.questions import PREDICT, samples
from servable.transport.http2 import frames
from servable.transport.http2.hpack import encode_block
from servable.zoo import catalog

CALL = encode_block(
    [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", PREDICT.encode()),
        (b":authority", b"a"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
)
MALFORMED = encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a")])
OPEN, WHOLE = frames.END_HEADERS, frames.END_HEADERS | frames.END_STREAM


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.header(len(payload), kind, flags, stream) + payload


def headers(stream: int, flags: int = WHOLE, block: bytes = CALL) -> bytes:
    return frame(frames.HEADERS, flags, stream, block)


def large_block(stream: int) -> bytes:
    return headers(stream, WHOLE, CALL + encode_block([(b"x", b"%d" % stream + b"z" * 16_000)]))


Flood = Callable[[int], bytes]
"""What is sent for a stream id that has not been used on this connection."""
FLOODS: dict[str, Flood] = {
    "rapid reset": lambda n: headers(n, OPEN) + frames.rst_stream(n, frames.CANCEL),
    "made you reset": lambda n: headers(n, OPEN) + frames.window_update(n, 2**31 - 1),
    "malformed requests": lambda n: headers(n, WHOLE, MALFORMED),
    "CONTINUATION": lambda n: headers(n, 0) + frame(frames.CONTINUATION, 0, n, b"") * 1000,
    "SETTINGS": lambda _: frames.settings([]) * 1000,
    "PING": lambda _: frames.ping(b"abcdefgh") * 1000,
    "empty DATA": lambda n: headers(n, OPEN) + frame(frames.DATA, 0, n) * 1000,
    "tiny DATA": lambda n: headers(n, OPEN) + frame(frames.DATA, 0, n, b"\0") * 1000,
    "PRIORITY": lambda n: frame(frames.PRIORITY, 0, n, bytes(4) + b"\1") * 1000,
    "WINDOW_UPDATE": lambda _: frames.window_update(0, 1) * 1000,
    "unknown frames": lambda _: frame(0xEE, 0, 0, b"what") * 1000,
    "large header blocks": large_block,
    "unfinished bodies": lambda n: headers(n, OPEN) + frame(frames.DATA, 0, n, b"\0\0\x10\0\0" + bytes(4000)),
    "bad requests": lambda n: headers(n, OPEN) + frame(frames.DATA, frames.END_STREAM, n, bytes(5)),
}


def attack(name: str, port: int, seconds: float) -> int:
    """Flood until the time is over; return how many connections that took."""
    make = FLOODS[name]
    end = time.monotonic() + seconds
    used = 0
    while time.monotonic() < end:
        used += 1
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(0.5)
                connection.sendall(frames.PREFACE + frames.settings([]) + frames.SETTINGS_ACK)
                stream = 1
                while time.monotonic() < end:
                    chunk = b"".join(make(n) for n in range(stream, stream + 64, 2))
                    stream += 64
                    connection.sendall(chunk)
        except OSError:  # the server has had enough
            continue
    return used


def timed_calls(call: grpc.UnaryUnaryMultiCallable, body: bytes, seconds: float) -> list[float]:
    """Latencies in milliseconds, sorted."""
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        call(body, timeout=10)
        found.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.001)
    return sorted(found)


def rows(port: int, pid: int, body: bytes, seconds: float, only: str) -> Iterator[tuple[str, list[float], float, str]]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PREDICT)
        timed_calls(call, body, 1.0)
        yield "(calm)", timed_calls(call, body, seconds), resident_mb(pid), "-"
        for name in FLOODS:
            if only not in name:
                continue
            command = [sys.executable, __file__, "--flood", name, "--port", str(port), "--seconds", str(seconds)]
            flood = subprocess.Popen(pinned(LOADER_CORE, command), stdout=subprocess.PIPE, text=True)
            latencies = timed_calls(call, body, seconds)
            used = flood.communicate()[0].strip()
            yield name, latencies, resident_mb(pid), used


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each flood lasts")
    parser.add_argument("--only", default="", help="only the floods whose name contains this")
    parser.add_argument("--flood", choices=FLOODS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        print(attack(options.flood, options.port, options.seconds))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        catalog.build("half_plus_two", Path(folder), kind="onnx")
        body = samples("half_plus_two", (1,))[0].grpc_body("half_plus_two")
        with servable_server(folder) as (pid, port):
            print(f"{'flood':22}{'calls':>7}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'RSS MB':>9}{'connections':>13}")
            for name, found, memory, used in rows(port, pid, body, options.seconds, options.only):
                p50, p99 = found[len(found) // 2], found[int(len(found) * 0.99)]
                print(f"{name:22}{len(found):7}{p50:9.2f}{p99:9.2f}{found[-1]:9.2f}{memory:9.1f}{used:>13}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
