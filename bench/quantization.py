"""Every way to quantize the example models: python -m bench.quantization [MODEL ...] [--rounds N] [--methods ...]

Writes docs/benchmarks/quantization.md. The fitted models are calibrated with labelled pictures that they were not
fitted on, and judged by others that no calibration saw. Each form is compared with its source in the engine that it is
for, and timed in turn with all others of the model, forwards and backwards. About 6 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.run import conditions
from servable.core.errors import ServingError
from servable.engines.base import Artifact
from servable.engines.tuned_plan import Setting
from servable.forge.artifacts import bytes_of, find_source
from servable.forge.measure import Candidate, Measured, alternate, compared
from servable.forge.quantization.quantize import Wish, quantize
from servable.forge.quantization.rows import CALIBRATE
from servable.forge.quantization.steps import METHODS
from servable.forge.reference import Judged, Reference
from servable.forge.samples import Samples
from servable.forge.workshop import NotVerifiedError
from servable.zoo import catalog

REPORT = Path(__file__).parent.parent / "docs" / "benchmarks" / "quantization.md"
MODELS = ("simple_cnn_fitted", "resnet50_fitted")
HELD_OUT = {"simple_cnn_fitted": 500, "resnet50_fitted": 200}
"""Rows that forms are judged by; of other models ``ROWS``."""
ROWS = 200
BATCHES = (1, 8)
SEED = 77
"""Of the rows to calibrate with; those to judge by have the next one."""
FEW = 32
"""Rows that a form without calibration is compared on as it is made."""
DEFAULT_METHODS = ("fp16", "bf16", "int8-weights", "int8")
WISHES = (
    Wish("fp16", "onnxruntime"),
    Wish("fp16", "openvino"),
    Wish("fp16", "litert"),
    Wish("bf16", "openvino"),
    Wish("int8-weights", "onnxruntime"),
    Wish("int8-weights", "openvino"),
    Wish("int8-weights", "litert"),
    Wish("int4-weights", "openvino"),
    Wish("int8", "onnxruntime", "onnxruntime"),
    Wish("int8", "onnxruntime", "nncf"),
    Wish("int8", "openvino"),
    Wish("int8", "litert"),
)


@dataclass
class Row:
    """One form of one model."""

    method: str
    engine: str
    precision: str
    artifact: Artifact | None = None
    judged: Judged | None = None
    seconds: float = 0.0
    reason: str = ""
    measured: Measured | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(DEFAULT_METHODS))
    arguments = parser.parse_args()
    began = time.monotonic()
    parts = [f"# Quantization\n\n{_INTRODUCTION}\n"]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            print(f"{name}:", flush=True)
            parts.append(_section(name, figures(name, Path(folder), arguments.rounds, arguments.methods)))
    command = " ".join(["python -m bench.quantization", *sys.argv[1:]])
    parts.append(f"Command: `{command}`, {time.monotonic() - began:.0f} s. {conditions()}\n")
    REPORT.write_text("\n".join(parts))
    print(REPORT.read_text())


def figures(name: str, folder: Path, rounds: int, methods: Sequence[str]) -> list[Row]:
    sources = {"onnx": find_source(catalog.build(name, folder / "onnx").parent)}
    wishes = [one for one in WISHES if one.method in methods and (one.engine != "litert" or name != "resnet50_fitted")]
    try:
        if any(one.engine == "litert" for one in wishes):
            sources["saved_model"] = find_source(catalog.build(name, folder / "saved", kind="saved_model").parent)
    except ServingError as error:
        print(f"  no SavedModel: {error.message}", flush=True)
    calibration, held_out = rows_of(name, CALIBRATE, SEED), rows_of(name, HELD_OUT.get(name, ROWS), SEED + 1)
    reference = Reference.of(sources["onnx"], held_out)
    rows = [Row("source", engine, precision, sources["onnx"]) for engine, precision in _SOURCES]
    rows[0].judged = reference.judge_itself()
    for wish in wishes:
        kind = "saved_model" if wish.engine == "litert" else "onnx"
        row = Row(_called(wish), wish.engine or "", "f32")
        rows.append(row)
        if kind in sources:
            _make(row, wish, sources[kind], calibration, folder / "made" / name / f"{_called(wish)}-{wish.engine}")
        else:
            row.reason = "there is no SavedModel of it"
        if row.artifact is not None:
            row.judged = reference.judge(row.artifact, row.engine)
        print(f"  {row.method} for {row.engine}: {row.reason or 'done'}", flush=True)
    able = [row for row in rows if row.artifact is not None]
    candidates = [Candidate(row.artifact, Setting(row.engine, row.precision)) for row in able if row.artifact]
    timed = alternate(candidates, batches=BATCHES, samples=calibration, rounds=rounds)
    for row, measured in zip(able, timed, strict=True):
        row.measured = measured
    return rows


def rows_of(name: str, rows: int, seed: int) -> Samples:
    """Return rows of a seed; labels where the model was fitted."""
    if catalog.describe(name).labelled:
        inputs, labels = catalog.labelled(name, rows, seed)
        return Samples(inputs, f"pictures of seed {seed}", labels=labels)
    return Samples(catalog.sample_inputs(name, rows, seed), f"random inputs of seed {seed}")


_SOURCES = (("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16"))
_INTRODUCTION = """How small and how fast the example models become, and how much they still agree with what they were.
Each was calibrated with 128 rows. *rel* is the largest difference over the largest value of the output; *same class*
the share of rows whose top class is the source's; times are medians of batches of 1 and 8 rows; *x* is how many times
as fast as the source in the same engine (in ONNX Runtime for LiteRT), paired by round, at the batch size where that is
more."""


def _called(wish: Wish) -> str:
    return f"{wish.method} ({wish.toolchain})" if (wish.method, wish.engine) == ("int8", "onnxruntime") else wish.method


def _make(row: Row, wish: Wish, source: Artifact, calibration: Samples, out: Path) -> None:
    few = Samples({name: array[:FEW] for name, array in calibration.rows.items()}, calibration.origin)
    data = Samples(calibration.rows, calibration.origin) if wish.method == "int8" else few
    try:
        done = quantize(source, out, replace(wish, min_agreement=0.0), data=data)
    except NotVerifiedError as error:
        row.reason = error.verdict.faults[0]
    except ServingError as error:
        row.reason = re.sub(r"/\S+/(\S*)", r"\1", error.message)[:200]
    else:
        row.artifact, row.seconds = done.outcome.artifact, done.outcome.seconds


def _section(name: str, rows: Sequence[Row]) -> str:
    columns = "| form | engine | MB | of f32 | rel | same class | accuracy | b1 ms | b8 ms | x | made in s |"
    seen = next((row.judged.rows for row in rows if row.judged), 0)
    lines = [
        f"## {name}",
        "",
        f"Judged by {seen} rows that no calibration saw.",
        "",
        columns,
        f"|{' --- |' * columns.count(' | ')} --- |",
    ]
    base = next(bytes_of(row.artifact) for row in rows if row.artifact)
    for row in rows:
        if row.artifact is None or row.measured is None:
            lines.append(f"| {row.method} | {row.engine} | | | | | | | | | {row.reason} |")
            continue
        size, judged = bytes_of(row.artifact), row.judged
        cells: list[Any] = [
            row.method if row.precision == "f32" else f"{row.method} at {row.precision}",
            row.engine,
            f"{size / 1e6:.2f}",
            f"{100 * size / base:.0f} %",
            "" if judged is None else f"{judged.relative:.1e}",
            _share(None if judged is None else judged.agreement),
            _share(None if judged is None else judged.accuracy),
            *(_milliseconds(row.measured, batch) for batch in BATCHES),
            _gain(row, rows),
            f"{row.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _milliseconds(measured: Measured, rows: int) -> str:
    found = measured.at(rows)
    return "" if found is None else f"{1e3 * found.median_s:.3g}"


def _gain(row: Row, rows: Sequence[Row]) -> str:
    engine = "onnxruntime" if row.engine == "litert" else row.engine
    base = next((one for one in rows if (one.method, one.engine, one.precision) == ("source", engine, "f32")), None)
    if base is None or base is row or base.measured is None or row.measured is None:
        return ""
    gains = [found for batch in BATCHES if (found := compared(row.measured, base.measured, batch)) is not None]
    best = max(gains, key=lambda one: one.value, default=None)
    return "" if best is None or not np.isfinite(best.value) else f"{best.value:.2f}"


if __name__ == "__main__":
    main()
