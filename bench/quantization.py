"""Every way to quantize the example models: python -m bench.quantization [MODEL ...] [--rounds N]

Writes docs/benchmarks/quantization.md. The fitted models are asked labelled pictures that they were not fitted on; of
those the first ones calibrate. Each form is compared with its source in the engine that it is for, and timed in turn
with all others of the model, forwards and backwards.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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
from servable.forge.quantization.steps import METHODS
from servable.forge.samples import Samples
from servable.forge.workshop import NotVerifiedError
from servable.zoo import catalog

REPORT = Path(__file__).parent.parent / "docs" / "benchmarks" / "quantization.md"
MODELS = ("simple_cnn_fitted", "resnet50_fitted", "text_cnn", "lstm_tokens")
ROWS = 138
CALIBRATE = 48
BATCHES = (1, 8)
SEED = 77
"""Of pictures that nobody was fitted on."""
WISHES = (
    Wish("fp16", "onnxruntime"),
    Wish("fp16", "openvino"),
    Wish("bf16", "openvino"),
    Wish("int8-weights", "onnxruntime"),
    Wish("int8-weights", "openvino"),
    Wish("int4-weights", "openvino"),
    Wish("int8", "onnxruntime", "onnxruntime"),
    Wish("int8", "onnxruntime", "nncf"),
    Wish("int8", "openvino"),
    Wish("fp16", "litert"),
    Wish("int8-weights", "litert"),
    Wish("int8", "litert"),
)


@dataclass
class Row:
    """One form of one model."""

    method: str
    engine: str
    precision: str
    artifact: Artifact | None = None
    relative: float = 0.0
    agreement: float | None = None
    accuracy: float | None = None
    before: float | None = None
    seconds: float = 0.0
    reason: str = ""
    measured: Measured | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    parts = [f"# Quantization\n\n{_INTRODUCTION}\n"]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            print(f"{name}:", flush=True)
            parts.append(_section(name, figures(name, Path(folder), arguments.rounds, arguments.methods)))
    chosen = "" if arguments.methods == list(METHODS) else f" --methods {' '.join(arguments.methods)}"
    command = f"python -m bench.quantization {' '.join(arguments.models)} --rounds {arguments.rounds}{chosen}"
    parts.append(f"Command: `{command}`. {conditions()}\n")
    REPORT.write_text("\n".join(parts))
    print(REPORT.read_text())


def figures(name: str, folder: Path, rounds: int, methods: Sequence[str]) -> list[Row]:
    sources = {"onnx": find_source(catalog.build(name, folder / "onnx").parent)}
    try:
        sources["saved_model"] = find_source(catalog.build(name, folder / "saved", kind="saved_model").parent)
    except ServingError as error:
        print(f"  no SavedModel: {error.message}", flush=True)
    data = rows_of(name)
    rows = [Row("source", engine, precision, sources["onnx"]) for engine, precision in _SOURCES]
    for wish in (one for one in WISHES if one.method in methods):
        kind = "saved_model" if wish.engine == "litert" else "onnx"
        row = Row(_called(wish), wish.engine or "", "f32")
        rows.append(row)
        if kind in sources:
            _make(row, wish, sources[kind], data, folder / "made" / name / f"{_called(wish)}-{wish.engine}")
        else:
            row.reason = "there is no SavedModel of it"
        print(f"  {row.method} for {row.engine}: {row.reason or 'done'}", flush=True)
    for row in rows[: len(_SOURCES)]:
        row.accuracy = next((one.before for one in rows if one.before is not None), None)
    able = [row for row in rows if row.artifact is not None]
    candidates = [Candidate(row.artifact, Setting(row.engine, row.precision)) for row in able if row.artifact]
    for row, measured in zip(able, alternate(candidates, batches=BATCHES, samples=data, rounds=rounds), strict=True):
        row.measured = measured
    return rows


def rows_of(name: str) -> Samples:
    """Return rows to calibrate, compare and time with; labels where the model was fitted."""
    if catalog.describe(name).labelled:
        rows, labels = catalog.labelled(name, ROWS, SEED)
        return Samples(rows, f"pictures of seed {SEED}", labels=labels)
    return Samples(catalog.sample_inputs(name, ROWS, SEED), f"random inputs of seed {SEED}")


_SOURCES = (("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16"))
_INTRODUCTION = """How small and how fast the example models become, and how much they still agree with what they were.
*rel* is the largest difference over the largest value of any output of floats; *same class* the share of rows whose top
class is the source's; times are medians of batches of 1 and 8 rows; *x* is how many times as fast as the source in the
same engine (in ONNX Runtime for LiteRT), paired by round, at the batch size where that is more."""


def _called(wish: Wish) -> str:
    return f"{wish.method} ({wish.toolchain})" if (wish.method, wish.engine) == ("int8", "onnxruntime") else wish.method


def _make(row: Row, wish: Wish, source: Artifact, data: Samples, out: Path) -> None:
    from dataclasses import replace

    try:
        done = quantize(source, out, replace(wish, calibrate=CALIBRATE, min_agreement=0.0), data=data)
    except NotVerifiedError as error:
        row.reason = error.verdict.faults[0]
        row.agreement = error.verdict.agreement
    except ServingError as error:
        row.reason = re.sub(r"/\S+/(\S*)", r"\1", error.message)[:200]
    else:
        row.artifact = done.outcome.artifact
        floats = [one.relative for one in done.outcome.verdict.outputs.values() if one.cosine is not None]
        row.relative = max(floats, default=0.0)
        row.agreement = done.outcome.verdict.agreement
        row.before, row.accuracy = (None, None) if done.accuracy is None else done.accuracy
        row.seconds = done.outcome.seconds


def _section(name: str, rows: Sequence[Row]) -> str:
    columns = "| form | engine | MB | of f32 | rel | same class | accuracy | b1 ms | b8 ms | x | made in s |"
    lines = [f"## {name}", "", columns, f"|{' --- |' * columns.count(' | ')} --- |"]
    base = next(bytes_of(row.artifact) for row in rows if row.artifact)
    for row in rows:
        if row.artifact is None or row.measured is None:
            share = "" if row.agreement is None else f"{100 * row.agreement:.1f} %"
            lines.append(f"| {row.method} | {row.engine} | | | | {share} | | | | | {row.reason} |")
            continue
        size = bytes_of(row.artifact)
        cells: list[Any] = [
            row.method if row.precision == "f32" else f"{row.method} at {row.precision}",
            row.engine,
            f"{size / 1e6:.2f}",
            f"{100 * size / base:.0f} %",
            f"{row.relative:.1e}",
            "" if row.agreement is None else f"{100 * row.agreement:.1f} %",
            "" if row.accuracy is None else f"{100 * row.accuracy:.1f} %",
            *(_milliseconds(row.measured, batch) for batch in BATCHES),
            _gain(row, rows),
            f"{row.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


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
