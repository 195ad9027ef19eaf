"""text_cnn_small under TensorFlow Serving's batching parameters and under `auto`, alternating, over gRPC."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.loads import Load, h2load
from bench.processes import servable_server
from bench.questions import PREDICT, Sample, Verifier, samples
from servable.zoo import catalog

MODEL = "text_cnn_small"
PARAMETERS = "max_batch_size { value: 32 } batch_timeout_micros { value: 1000 }\n"
CONTESTANTS = {
    "auto": [],
    "32 rows, 1 ms": ["--enable_batching"],
    "32 rows, 1 ms, sizes 8, 16, 32": ["--enable_batching"],
    "off": ["--batching=off"],
}


@dataclass(frozen=True)
class Row:
    batching: str
    in_flight: int
    requests_per_s: float
    rate_to_auto: float
    p50_us: float
    p99_us: float
    p50_to_auto: float
    failed: int
    wrong: int


def figures(seconds: float, repeats: int) -> list[Row]:
    loads: dict[tuple[str, int], list[tuple[Load, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = catalog.build(MODEL, Path(folder, MODEL), kind="onnx").parent
        questions = samples(MODEL, (1,) * 8)
        for repeat in range(repeats):
            names = list(CONTESTANTS) if repeat % 2 == 0 else list(reversed(CONTESTANTS))
            for name in names:
                for in_flight, outcome in _measure(name, path, Path(folder), questions, seconds).items():
                    loads.setdefault((name, in_flight), []).append(outcome)
                    print(f"{name}, {in_flight} in flight: {outcome[0].rate:.0f}/s", flush=True)
    return [_row(name, in_flight, loads) for name, in_flight in loads]


def _measure(
    name: str, path: Path, folder: Path, questions: list[Sample], seconds: float
) -> dict[int, tuple[Load, int]]:
    arguments = [f"{MODEL}={path}", *CONTESTANTS[name]]
    if "--enable_batching" in arguments:
        file = folder / "batching.config"
        sizes = "".join(f"allowed_batch_sizes: {size}\n" for size in (8, 16, 32)) if "sizes" in name else ""
        file.write_text(PARAMETERS + sizes)
        arguments.append(f"--batching_parameters_file={file}")
    bodies = [question.framed(MODEL) for question in questions]
    found = {}
    with servable_server(*arguments) as (_, port), Verifier(MODEL, port, "grpc", questions) as verifier:
        for in_flight in (32, 1):
            load = h2load(port, PREDICT, bodies, connections=in_flight, seconds=seconds)
            found[in_flight] = (load, len(verifier.wrong))
    return found


def _row(name: str, in_flight: int, loads: dict[tuple[str, int], list[tuple[Load, int]]]) -> Row:
    ours, autos = loads[name, in_flight], loads["auto", in_flight]
    return Row(
        name,
        in_flight,
        statistics.median(load.rate for load, _ in ours),
        statistics.median(load.rate / auto.rate for (load, _), (auto, _) in zip(ours, autos, strict=True)),
        statistics.median(load.p50_us for load, _ in ours),
        statistics.median(load.p99_us for load, _ in ours),
        statistics.median(load.p50_us / auto.p50_us for (load, _), (auto, _) in zip(ours, autos, strict=True)),
        sum(load.failed for load, _ in ours),
        sum(wrong for _, wrong in ours),
    )
