"""Model x step x engine: what each step of the forge makes of four models, and how each engine runs it.

    python -m bench.forge_matrix [MODEL ...] [--quick] [--minutes 20] [--keep DIR]

Every artifact that ``servable optimize`` makes is timed in every engine that reads it, each in a process of its own,
and compared with the SavedModel in TensorFlow, or the ONNX file where the model has none. What cannot be done is a row
with its reason. Writes docs/benchmarks/forge_matrix.md and forge_matrix.json. About 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from servable.core.errors import failed_precondition
from servable.engines.base import ENGINES, Artifact, engine_class
from servable.engines.tuned_plan import Setting
from servable.forge.appraisal import Figures, Timing, appraise
from servable.forge.artifacts import find_source
from servable.forge.pipeline.optimize import Plan, optimize
from servable.forge.pipeline.optimized import Row, State
from servable.forge.pipeline.records import versions
from servable.forge.reference import Reference
from servable.forge.samples import Samples
from servable.forge.surroundings import surroundings
from servable.report.blocks import Cell, Column, Facts, Paragraph, Report, Section, Table, Tone, Toned
from servable.report.markdown import write_markdown
from servable.report.units import BYTES, RATIO, SECONDS, SHARE, quantity
from servable.zoo import catalog

REPORTS = Path(__file__).parent.parent / "docs" / "benchmarks"
TITLE = "Model by step by engine"
PREFACE = (
    "Every artifact that the steps of the forge make of four models, in every engine that reads it, each in a process "
    "of its own. What cannot be done, or was thrown away because it answers otherwise, is a gap with its reason."
)
SEED = 11
BF16 = "openvino"
"""The engine that computes in bf16 where it is asked to."""
CALIBRATED = 64
EXACT = ("freeze", "fold-graph_def", "saved_model-to-onnx", "fold-onnx", "onnx-to-openvino", "fold-openvino",
         "saved_model-to-openvino", "saved_model-to-tflite", "onnx-to-tflite", "graph_def-to-onnx")  # fmt: skip
SMALLER = ("fp16-onnx", "fp16-openvino", "fp16-tflite", "bf16-openvino", "int8-weights-onnx", "int8-weights-openvino",
           "int8-weights-tflite", "int8-onnx", "int8-onnx-nncf", "int8-openvino", "int8-tflite")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Subject:
    """One model of the zoo: what it is made as, on how many rows it is judged, and at which batch sizes it is timed."""

    name: str
    kind: str = "saved_model"
    rows: int = 128
    batches: tuple[int, ...] = (1, 8)
    seconds: float = 0.4
    steps: tuple[str, ...] = (*EXACT, *SMALLER)


SUBJECTS = (
    Subject("simple_cnn_fitted", rows=200),
    Subject("lstm_tokens"),
    Subject("text_cnn"),
    Subject(
        "resnet50_fitted",
        "onnx",
        rows=200,  # fewer cannot tell 99 % from less
        seconds=0.6,
        steps=(
            "fold-onnx",
            "onnx-to-openvino",
            "onnx-to-tflite",
            *(step for step in SMALLER if not step.endswith("tflite")),
        ),
    ),
)
QUICK = (
    Subject("lstm_tokens", rows=32, batches=(1,), seconds=0.1, steps=("saved_model-to-onnx", "int8-weights-onnx")),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact in one engine."""

    model: str
    step: str
    source: str
    kind: str
    engine: str
    state: str
    disk_bytes: int | None = None
    seconds: float | None = None
    figures: Figures | None = None
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        figures = self.figures
        return {
            "model": self.model,
            "step": self.step,
            "source": self.source,
            "kind": self.kind,
            "engine": self.engine,
            "state": self.state,
            "disk_bytes": self.disk_bytes,
            "step_s": self.seconds,
            "measured": None if figures is None or figures.measured is None else figures.measured.as_json(),
            "judged": None if figures is None or figures.judged is None else figures.judged.as_json(),
            "reason": self.reason,
        }


@dataclass
class Matrix:
    """All that was done, and when it must end."""

    ends: float
    rows: list[Entry] = field(default_factory=list)
    gaps: list[tuple[str, str]] = field(default_factory=list)

    def late(self) -> bool:
        return time.monotonic() > self.ends


def main() -> None:
    """Measure, then write the report and the numbers behind it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(one.name for one in SUBJECTS))
    parser.add_argument("--quick", action="store_true", help="one model, two steps: to see that it works")
    parser.add_argument("--minutes", type=float, default=20.0, help="of measuring; what is left then is a gap")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="artifacts, found again by the next run")
    parser.add_argument("--out", type=Path, default=REPORTS / "forge_matrix.md")
    arguments = parser.parse_args()
    began, conditions = time.monotonic(), surroundings()
    matrix = Matrix(began + 60 * arguments.minutes)
    subjects = [
        one for one in (QUICK if arguments.quick else SUBJECTS) if one.name in arguments.models or not arguments.models
    ]
    with tempfile.TemporaryDirectory(prefix="servable-") as folder:
        root = arguments.keep or Path(folder)
        sources = [built(subject, root) for subject in subjects]
        measuring = time.monotonic()
        for place, (subject, source) in enumerate(zip(subjects, sources, strict=True), 1):
            # What one model leaves over of its share, the next ones have.
            matrix.ends = measuring + 60 * arguments.minutes * place / len(subjects)
            measure(subject, source, root, matrix)
    document = {
        "schema": "servable.forge_matrix/1",
        "command": ["python", "-m", "bench.forge_matrix", *sys.argv[1:]],
        "machine": conditions,
        "versions": versions(),
        "seconds": time.monotonic() - began,
        "rows": [row.as_json() for row in matrix.rows],
    }
    written = {
        ".json": json.dumps(document, indent=1, allow_nan=False) + "\n",
        ".md": write_markdown(page(matrix.rows, subjects, time.monotonic() - began, conditions)),
    }
    for suffix, text in written.items():
        place_less = text.replace(f"{root}/", "").replace(f"{root}/".replace("_", "\\_"), "")
        arguments.out.with_suffix(suffix).write_text(place_less)
    say(f"written: {arguments.out}")


def measure(subject: Subject, source: Artifact, root: Path, matrix: Matrix) -> None:
    """Do all steps with one model, and run what they make in every engine."""
    samples = samples_of(subject)
    timing = Timing(subject.batches, budget_s=subject.seconds)
    # What is left of the rows is seen by no calibration.
    options = {"calibrate": CALIBRATED}
    plan = Plan(source, root / "made" / subject.name, subject.steps, timing, lambda _: samples, options)
    found = optimize(plan, lambda line: say(f"{subject.name}: {line}"), is_over=matrix.late)
    reference = Reference.of(source, samples)
    for row in found.rows:
        if row.state is State.FAILED:
            matrix.rows.append(
                Entry(subject.name, row.step or row.name, row.source, row.kind, "", row.state.value, reason=row.reason)
            )
            continue
        artifact = source if row.state is State.GIVEN else find_source(Path(row.path).parent)
        matrix.rows += in_engines(subject, row, artifact, reference, timing, matrix)


def in_engines(
    subject: Subject, row: Row, artifact: Artifact, reference: Reference, timing: Timing, matrix: Matrix
) -> Iterator[Entry]:
    """Yield a row for each engine that reads the artifact."""
    own = "" if row.figures is None or row.figures.measured is None else row.figures.measured.engine
    # The engine that would serve it first: the first row of all is what the others are compared with.
    for engine in sorted(ENGINES, key=lambda name: name != own):
        found = engine_class(engine)
        if artifact.kind not in found.kinds:
            continue
        cell = Entry(
            subject.name,
            row.step or row.name,
            row.source,
            row.kind,
            engine,
            row.state.value,
            row.disk_bytes,
            row.seconds,
        )
        if not found.installed():
            yield with_figures(cell, None, f"{engine} is not installed")
        elif engine == own:
            yield with_figures(cell, row.figures, "")
        elif matrix.late():
            yield with_figures(cell, None, "not measured: the time was over")
        else:
            figures = appraise(f"{subject.name} {row.name} in {engine}", artifact, reference, timing,
                               setting=Setting(engine), report=say)  # fmt: skip
            yield with_figures(cell, figures, "")
        if engine == BF16 and row.step.startswith("bf16"):
            # A file cannot say that it is to be computed with in bf16: whoever serves it does, and so does this row.
            figures = appraise(f"{subject.name} {row.name} in {engine} at bf16", artifact, reference, timing,
                               setting=Setting(engine, "bf16"), report=say)  # fmt: skip
            yield with_figures(replace(cell, engine=f"{engine} at bf16"), figures, "")


def with_figures(cell: Entry, figures: Figures | None, reason: str) -> Entry:
    told = reason or ("" if figures is None else figures.reason)
    if figures is not None and figures.judged is not None and figures.judged.fault:
        told = told or figures.judged.fault
    return Entry(
        cell.model,
        cell.step,
        cell.source,
        cell.kind,
        cell.engine,
        cell.state,
        cell.disk_bytes,
        cell.seconds,
        figures,
        told,
    )


def built(subject: Subject, root: Path) -> Artifact:
    """Build a model of the zoo, in a process of its own: TensorFlow would stay in this one."""
    path = root / "zoo" / subject.kind / subject.name / "1"
    if not path.exists():
        say(f"{subject.name}: building")
        words = ["example", "build", subject.name, "--format", subject.kind, "--out", str(path.parent.parent)]
        command = [sys.executable, "-m", "servable", *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise failed_precondition(f"cannot build {subject.name}: {done.stderr.strip()[-500:]}")
    return find_source(path)


def samples_of(subject: Subject) -> Samples:
    """Return labelled pictures for a model that was fitted, seeded inputs otherwise."""
    if catalog.describe(subject.name).labelled:
        inputs, labels = catalog.labelled(subject.name, subject.rows, SEED)
        return Samples(inputs, "labelled pictures of the zoo", labels=labels)
    return Samples(
        catalog.sample_inputs(subject.name, subject.rows, SEED, kind=subject.kind), "seeded inputs of the zoo"
    )


def page(rows: Sequence[Entry], subjects: Sequence[Subject], seconds: float, conditions: dict[str, Any]) -> Report:
    """Return the report: a table for each model, and what could not be done below it."""
    sections = []
    for subject in subjects:
        mine = [row for row in rows if row.model == subject.name]
        blocks: list[Any] = [table_of(subject, [row for row in mine if row.figures is not None])]
        gaps = [row for row in mine if row.reason]
        if gaps:
            alike: dict[str, list[str]] = {}
            for row in gaps:
                where = f"{row.step} in {row.engine}" if row.engine else row.step
                alike.setdefault(short(row.reason), []).append(where)
            rows_of_gaps = [(", ".join(dict.fromkeys(found)), reason) for reason, found in alike.items()]
            blocks += [Paragraph("Gaps:"), Table((Column("what"), Column("why not")), rows_of_gaps)]
        sections.append(Section(subject.name, blocks, note_of(subject)))
    facts = Facts(
        [
            ("Processor", f"{conditions['cpu']}, {conditions['cores']} cores"),
            ("System", conditions["system"]),
            ("Load average at the begin", f"{conditions['load_average']:g}"),
            ("Took", quantity(seconds, SECONDS)),
            *sorted(versions().items()),
        ]
    )
    command = Facts([("Command", "python -m bench.forge_matrix " + " ".join(sys.argv[1:]))], code=True)
    return Report(
        TITLE,
        PREFACE,
        sections=[*sections, Section("Conditions", (facts, command))],
    )


def note_of(subject: Subject) -> str:
    judged = (
        "accuracy is of labelled pictures"
        if catalog.describe(subject.name).labelled
        else "inputs are seeded, weights random"
    )
    return (
        f"Differences are to the {subject.kind} as it was built, over {subject.rows} rows, of which the first "
        f"{CALIBRATED} calibrate; {judged}. "
        "Times are medians; ratios of sizes and times are to the first row."
    )


def table_of(subject: Subject, rows: Sequence[Entry]) -> Table:
    batches = subject.batches
    columns = [
        Column("step"),
        Column("from"),
        Column("engine"),
        Column("size", BYTES),
        Column("size ratio", RATIO),
        *(Column(f"batch {batch}", SECONDS) for batch in batches),
        Column(f"times as fast, batch {batches[0]}", RATIO),
        Column("max |d|"),
        Column("relative"),
        Column("same top class", SHARE),
        Column("accuracy", SHARE),
        Column("result"),
    ]
    first = rows[0] if rows else None
    return Table(columns, [cells(row, first, batches) for row in rows])


def cells(row: Entry, first: Entry | None, batches: Sequence[int]) -> list[Cell]:
    figures = row.figures
    judged = None if figures is None else figures.judged
    times = [None if figures is None else figures.median_s(batch) for batch in batches]
    before = None if first is None or first.figures is None else first.figures.median_s(batches[0])
    size = None if first is None else first.disk_bytes
    return [
        row.step,
        row.source,
        row.engine,
        row.disk_bytes,
        row.disk_bytes / size if row.disk_bytes and size else None,
        *times,
        before / times[0] if before and times[0] else None,
        None if judged is None else judged.max_abs,
        None if judged is None else judged.relative,
        None if judged is None else judged.agreement,
        None if judged is None else judged.accuracy,
        Toned("see below", Tone.BAD) if row.reason else "ok",
    ]


def short(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= 240 else line[:239] + "…"


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
