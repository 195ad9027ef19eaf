"""Closed-loop load over grpcio with a deadline for each call: PORT IN_FLIGHT SECONDS BODY..."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from pathlib import Path

import grpc

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def main() -> None:
    port, in_flight, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    bodies = itertools.cycle([Path(name).read_bytes() for name in sys.argv[4:]])
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    call = channel.unary_unary(PREDICT, request_serializer=None, response_deserializer=None)
    call(next(bodies), timeout=10)
    micros: list[float] = []
    failed = 0
    lock, done = threading.Lock(), threading.Event()
    began = time.monotonic()
    running = in_flight

    def start() -> None:
        body = next(bodies)
        sent = time.monotonic()

        def finished(future: grpc.Future) -> None:
            nonlocal failed, running
            with lock:
                if future.code() is grpc.StatusCode.OK:
                    micros.append((time.monotonic() - sent) * 1e6)
                else:
                    failed += 1
                if time.monotonic() - began < seconds:
                    again = True
                else:
                    again = False
                    running -= 1
                    if running == 0:
                        done.set()
            if again:
                start()

        call.future(body, timeout=10).add_done_callback(finished)

    for _ in range(in_flight):
        start()
    done.wait()
    elapsed = time.monotonic() - began
    micros.sort()
    print(
        json.dumps(
            {
                "ok": len(micros),
                "failed": failed,
                "seconds": elapsed,
                "p50_us": micros[len(micros) // 2],
                "p99_us": micros[int(len(micros) * 0.99)],
            }
        )
    )


if __name__ == "__main__":
    main()
