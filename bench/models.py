"""Two small text models at 32 connections, as a ratio to a raw TensorFlow session loop on the same core in the run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.loads import h2load
from bench.processes import SERVER_CORE, pinned, servable_server
from bench.questions import PREDICT, Verifier, samples
from servable.zoo import catalog

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    model: str
    rows_per_s: float
    session_rows_per_s: float
    ratio: float
    p50_us: float
    p99_us: float
    failed: int
    verified: int
    wrong: int


def figures(seconds: float, repeats: int, models: Sequence[str] = ("text_cnn_small", "lstm_tokens")) -> list[Row]:
    found = []
    for model in models:
        print(f"{model}: served against a raw session", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            onnx = catalog.build(model, Path(folder, "onnx"), kind="onnx").parent
            saved = catalog.build(model, Path(folder, "saved"), kind="saved_model")
            found.append(_alternate(model, onnx, saved, seconds, repeats))
        print(f"  {found[-1]}", flush=True)
    return found


def _alternate(model: str, onnx: Path, saved: Path, seconds: float, repeats: int) -> Row:
    questions = samples(model, (1,) * 8)
    bodies = [question.framed(model) for question in questions]
    served, sessions, latencies = [], [], []
    failed = verified = wrong = 0
    for _ in range(repeats):
        sessions.append(raw_session_rows_per_s(saved, model, seconds))
        with servable_server(str(onnx)) as (_, port), Verifier(model, port, "grpc", questions) as verifier:
            load = h2load(port, PREDICT, bodies, connections=32, seconds=seconds)
        served.append(load.rate)
        latencies.append((load.p50_us, load.p99_us))
        failed += load.failed
        verified += verifier.right
        wrong += len(verifier.wrong)
        for problem in verifier.wrong[:3]:
            print("  wrong:", problem)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(served, sessions, strict=True))
    p50_us, p99_us = sorted(latencies)[len(latencies) // 2]
    return Row(
        model, statistics.median(served), statistics.median(sessions), ratio, p50_us, p99_us, failed, verified, wrong
    )


def raw_session_rows_per_s(saved: Path, model: str, seconds: float) -> float:
    """Rows a second of ``tf.compat.v1.Session.make_callable`` at batch 32 on the server's core."""
    command = [sys.executable, str(HERE / "session_loop.py"), str(saved), model, f"{seconds:g}"]
    output = subprocess.run(pinned(SERVER_CORE, command), check=True, capture_output=True, text=True).stdout
    return float(output)
