"""From exec to the first right answer of the ONNX ``text_cnn``, and what the server then holds in memory."""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.processes import free_port, resident_mb, running
from bench.questions import Sample, close, samples
from servable.zoo import catalog


@dataclass(frozen=True)
class Row:
    model: str
    seconds: float
    slowest_s: float
    resident_mb: float


def figures(repeats: int, model: str = "text_cnn") -> list[Row]:
    print(f"cold start: {model}", flush=True)
    (question,) = samples(model, (1,))
    times, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = catalog.build(model, Path(folder), kind="onnx").parent
        for _ in range(repeats):
            port = free_port()
            began = time.monotonic()
            command = [sys.executable, "-m", "servable", "serve", str(path), "--listen", f"127.0.0.1:{port}"]
            with running([*command, "--log_level", "warning"], core="0,1", environment={}) as process:
                while not _answers(port, model, question):
                    if process.poll() is not None:
                        raise RuntimeError("the server ended")
                    time.sleep(0.002)
                times.append(time.monotonic() - began)
                memory.append(resident_mb(process.pid))
    row = Row(model, statistics.median(times), max(times), statistics.median(memory))
    print(f"  {row}", flush=True)
    return [row]


def _answers(port: int, model: str, question: Sample) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", f"/v1/models/{model}:predict", question.rest_body())
        reply = connection.getresponse()
        if reply.status != 200:
            return False
        outputs = json.load(reply)["outputs"]
    except OSError:
        return False
    finally:
        connection.close()
    return all(close(np.asarray(outputs[name]), expected) for name, expected in question.outputs.items())
