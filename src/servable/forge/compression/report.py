"""Every way of compression on one small network and one data set: accuracy, size and latency in one table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from servable.core.errors import ServingError
from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.engines.base import Artifact
from servable.engines.tuned_plan import Setting
from servable.forge import arrays
from servable.forge.artifacts import bytes_of, find_source
from servable.forge.compression.coding import gzipped_bytes, huffman_bytes
from servable.forge.compression.compress import Compressed, apart, compress
from servable.forge.compression.graph import Graph
from servable.forge.compression.small import small_pictures, write_small_cnn
from servable.forge.compression.steps import TRAINING
from servable.forge.measure import Candidate, Measured, alternate
from servable.forge.reference import Judged, Reference
from servable.forge.samples import Samples
from servable.forge.steps import check_step, step_named
from servable.forge.surroundings import disturbance, surroundings
from servable.forge.worker import run_apart
from servable.lab import machine

BATCHES: Final = (1, 32)
_PICTURES: Final = 11
"""Seed of the pictures, beside that of the weights."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it: pictures, epochs of each training, rounds of the measurement; ``keep`` is where models stay."""

    rows: int = 2400
    epochs: int = 10
    seed: int = 1
    rounds: int = 12
    keep: Path | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """One line of the table: a step, of the base or of what another line made. ``trained``: with the data."""

    name: str
    title: str
    step: str
    options: Mapping[str, Any]
    trained: bool = True
    of: str = "base"


_SIGNS: Final[Mapping[str, Any]] = MappingProxyType({"epochs": 16})
WAYS: Final = (
    Way("pruned50", "pruned 50 %, not trained", "prune", {"sparsity": 0.5}, trained=False),
    Way("pruned80", "pruned 80 %", "prune", {"sparsity": 0.8}),
    Way("channels50", "half of the channels cut out", "prune-channels", {"share": 0.5}),
    Way("distilled", "half of the width, taught by the base", "distill", {}),
    Way("clustered16", "16 shared values a layer", "cluster", {"clusters": 16}),
    Way("pruned-clustered", "pruned 80 %, then 16 shared values", "cluster", {"clusters": 16}, of="pruned80"),
    Way("lowrank60", "factors with 60 % of the squares", "lowrank", {"energy": 0.6}),
    Way("binary", "binary, bits counted by OpenVINO", "xnor", _SIGNS),
    Way("packed", "binary, bits counted in numpy", "xnor-packed", _SIGNS),
    Way("signs", "binary, as ONNX of +1 and -1", "xnor-signs", _SIGNS),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One model: how right it is, what it takes on disk, and how long a batch takes."""

    title: str
    judged: Judged
    stored: Mapping[str, int]
    measured: Measured

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "title": self.title,
            "judged": self.judged.as_json(),
            "stored": dict(self.stored),
            "measured": self.measured.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """The whole table, the base first."""

    plan: Plan
    lines: tuple[Line, ...]
    failed: Mapping[str, str]
    conditions: Mapping[str, Any] = field(default_factory=surroundings)


def make(plan: Plan, report: Progress = unheard) -> Found:
    """Train the base, make every compressed form of it, judge and measure all. Takes minutes."""
    for name in {way.step for way in WAYS}:
        step = step_named(name)
        check_step(replace(step, needs={**step.needs, **TRAINING}), Artifact("onnx", Path()))
    conditions = surroundings()
    with _folder(plan.keep) as folder:
        inputs, labels = small_pictures(plan.rows, _PICTURES)
        np.savez(folder / "pictures.npz", labels=labels, **inputs)  # type: ignore[arg-type]  # the stub knows no names
        data = Samples(inputs, "labelled pictures", labels=labels)
        report(f"training the base on {plan.rows} pictures")
        base = _train_base(folder, data, plan, report)
        reference = Reference.of(base, apart(data)[1])
        known = _Model("base, float32", Candidate(base), _stored(base), reference.judge_itself())
        elsewhere = Candidate(base, Setting(engine="openvino"))
        models = {"base": known, "elsewhere": replace(known, title="base, in OpenVINO", candidate=elsewhere)}
        failed: dict[str, str] = {}
        for way in WAYS:
            try:
                done = _compress(way, models[way.of].candidate.artifact, folder, data, plan, report).outcome
            except (ServingError, KeyError) as error:
                failed[way.title] = str(error)
                continue
            judged = reference.judge(done.artifact)
            models[way.name] = _Model(way.title, Candidate(done.artifact), done.facts["stored"], judged)
            report(f"{way.title}: accuracy {judged.accuracy}")
        measured = alternate(
            [model.candidate for model in models.values()],
            batches=BATCHES,
            samples=reference.samples,
            rounds=plan.rounds,
            report=report,
        )
    lines = (
        Line(model.title, model.judged, model.stored, times)
        for model, times in zip(models.values(), measured, strict=True)
    )
    return Found(plan, tuple(lines), failed, conditions)


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of the table that was made and judged, and has yet to be measured."""

    title: str
    candidate: Candidate
    stored: Mapping[str, int]
    judged: Judged


def as_json(found: Found) -> dict[str, Any]:
    """Return the table for JSON."""
    return {
        "rows": found.plan.rows,
        "epochs": found.plan.epochs,
        "seed": found.plan.seed,
        "lines": [line.as_json() for line in found.lines],
        "failed": dict(found.failed),
        "machine": _machine(),
    }


def as_page(found: Found) -> str:
    """Return the table as Markdown."""
    plan, base = found.plan, found.lines[0]
    held_out = base.judged.rows
    columns = (
        "model", "accuracy", "agrees", "KB", "gzip KB", "Huffman KB",
        *(f"ms, batch {rows}" for rows in BATCHES), "speed",
    )  # fmt: skip
    about = (
        f"A small CNN on 32 x 32 pictures of ten patterns, trained here on {plan.rows - held_out} of them for "
        f"{plan.epochs} epochs, and every way to make it smaller. Each is trained as long again where not said "
        f"otherwise; the binary network, which needs more, for {_SIGNS['epochs']} epochs. Accuracy, and the share of "
        f"answers that are those of the base, on {held_out} pictures that no training saw."
    )
    engines = ", ".join(sorted({line.measured.engine for line in found.lines}))
    sizes = (
        "KB is the file as it is served; gzip KB that file after gzip; Huffman KB an estimate: each array in a Huffman "
        f"code of its own, with its table. Speed is the base's time over this one's at batch {BATCHES[-1]}, each in "
        f"its engine ({engines}); what OpenVINO counts bits of is to be held against the base in OpenVINO. The Python "
        "model's times are those of its class, without the way to its process."
    )
    made_by = (
        f"Command: `servable compress report --rows {plan.rows} --epochs {plan.epochs} --seed {plan.seed}`. Times are "
        f"medians of {plan.rounds} rounds in which all models take turns. {_machine()}"
    )
    text = [
        *("# Compression", "", about, "", "| " + " | ".join(columns) + " |"),
        "| --- |" + " ---: |" * (len(columns) - 1),
        *(_row(line, base) for line in found.lines),
        "",
        *(f"- {title}: {reason}" for title, reason in found.failed.items()),
        *(sizes, "", made_by),
        *(["", disturbed] if (disturbed := disturbance(found.conditions)) else []),
    ]
    return "\n".join(text) + "\n"


def _row(line: Line, base: Line) -> str:
    times = [line.measured.at(rows) for rows in BATCHES]
    last, first = times[-1], base.measured.at(BATCHES[-1])
    faster = first.median_s / last.median_s if first is not None and last is not None else None
    cells = [
        line.title,
        _percent(line.judged.accuracy),
        _percent(line.judged.agreement),
        *(f"{line.stored[name] / 1000:.1f}" for name in ("bytes", "gzip", "huffman")),
        *("-" if one is None else f"{1000 * one.median_s:.3f}" for one in times),
        "-" if faster is None else f"{faster:.2f} x",
    ]
    return "| " + " | ".join(cells) + " |"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _machine() -> str:
    here, versions = machine.describe(), machine.versions()
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("python", "numpy") if name in versions)
    return f"{here.cores} cores, {here.cpu}, {here.system}, {libraries}."


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with scratch() as folder:
        yield folder


def _train_base(folder: Path, data: Samples, plan: Plan, report: Progress) -> Artifact:
    drawn = write_small_cnn(folder / "drawn.onnx", plan.seed)
    write_small_cnn(folder / "student.onnx", plan.seed + 1, width=0.5)
    seen, _ = apart(data)
    assert seen.labels is not None
    rows = folder / "rows.npz"
    arrays.save(rows, [seen.rows, {"labels": seen.labels}])
    final = folder / "base.onnx"
    options = {"epochs": plan.epochs, "rate": 3e-3, "seed": plan.seed}
    run_apart(
        "servable.forge.compression.actions:learn",
        {"source": str(drawn), "target": str(final), "rows": str(rows), "options": options},
        report,
    )
    rows.unlink()
    return find_source(final)


def _compress(way: Way, source: Artifact, folder: Path, data: Samples, plan: Plan, report: Progress) -> Compressed:
    options: dict[str, Any] = {"epochs": plan.epochs, "seed": plan.seed, **way.options}
    if way.options is _SIGNS:
        options["learnt"] = str((folder / "signs.npz").absolute())  # one training, three forms
    if way.step == "distill":
        options["student"] = str((folder / "student.onnx").absolute())
        options["rate"] = 3e-3
    step = step_named(way.step)
    final = folder / (f"{way.name}.onnx" if step.writes == "onnx" else way.name)
    # A model that is judged by agreement with rows of its own is no worse for that: the table tells.
    return compress(
        step, source, final, data=data if way.trained else None, options=options, max_drop=1.0, report=report
    )


def _stored(artifact: Artifact) -> dict[str, int]:
    graph = Graph.read(artifact.path)
    constants: Sequence[Any] = [graph.array(name) for name in graph.constants()]
    return {
        "bytes": bytes_of(artifact),
        "gzip": gzipped_bytes(artifact.path),
        "huffman": huffman_bytes(constants),
    }
