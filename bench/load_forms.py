"""How long a model takes from exec to its first answer, as code with a checkpoint and in every frozen form.

``python -m bench.load_forms [--model lstm_tokens] [--repeats N]`` writes docs/benchmarks/load_forms.md. Each run is a
fresh process; the forms take turns. User and system time are the whole process's, from exec to exit; so is wall.
``load`` is what comes after the framework was imported: the model and its first answer. Every answer is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.run import REPORTS, conditions, steal_ticks
from servable.core.errors import Code
from servable.engines.base import Artifact
from servable.forge.steps import step_named
from servable.forge.worker import run_apart
from servable.forge.workshop import perform
from servable.zoo import catalog
from servable.zoo import weights as w

CODE = "servable.zoo.keras_builders"
ENOUGH = 5.0
"""How many times faster the frozen form must load."""


@dataclass
class Form:
    """One form of the model. ``runs`` are wall, user, system, import, load and first answer, in seconds."""

    name: str
    engine: str
    path: Path
    runs: list[tuple[float, ...]] = field(default_factory=list)

    def median(self, place: int) -> float:
        return statistics.median(run[place] for run in self.runs)

    @property
    def wall(self) -> float:
        return self.median(0)

    @property
    def cpu(self) -> float:
        return statistics.median(run[1] + run[2] for run in self.runs)

    @property
    def load(self) -> float:
        return statistics.median(run[4] + run[5] for run in self.runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lstm_tokens", choices=("lstm_tokens", "text_cnn_small", "simple_cnn"))
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    steal = steal_ticks()
    with tempfile.TemporaryDirectory() as folder:
        forms = build(arguments.model, Path(folder))
        inputs = catalog.sample_inputs(arguments.model, 1, seed=1)
        expected = catalog.reference(arguments.model, inputs)
        np.savez(Path(folder, "question.npz"), **inputs)  # type: ignore[arg-type]  # the stub knows no arrays by name
        for turn in range(arguments.repeats + 1):
            for form in forms if turn % 2 else reversed(forms):
                run = measure(form, arguments.model, Path(folder), expected)
                if turn:  # the first finds no file in memory yet
                    form.runs.append(run)
            print(f"round {turn} of {arguments.repeats}", flush=True)
    page = report(arguments.model, forms, arguments.repeats, steal_ticks() - steal)
    (REPORTS / "load_forms.md").write_text(page)
    print(page)


def build(model: str, folder: Path) -> list[Form]:
    """Make all forms of the model with the forge, from its code and a checkpoint; each step is verified by itself."""
    checkpoint = folder / f"{model}.weights.h5"
    run_apart("bench.load_forms:save_checkpoint", {"model": model, "path": str(checkpoint)})
    code = {"code": f"{CODE}:{model}", "checkpoint": str(checkpoint)}
    step = step_named("checkpoint-to-saved_model")
    saved = perform(
        step, Artifact("checkpoint", Path(CODE)), folder / "saved_model", options=code, report=print
    ).artifact
    frozen = perform(step_named("freeze"), saved, folder / "frozen", report=print).artifact
    folded = perform(step_named("fold-graph_def"), frozen, folder / "folded", report=print).artifact
    onnx = perform(step_named("saved_model-to-onnx"), saved, folder / "onnx", report=print).artifact
    perform(step_named("onnx-to-openvino"), onnx, folder / "openvino", report=print)
    perform(step_named("saved_model-to-tflite"), saved, folder / "tflite", report=print)
    assert folded.path.exists()
    return [
        Form("Keras code + checkpoint", "code", checkpoint),
        Form("SavedModel", "tensorflow", folder / "saved_model" / "1"),
        Form("frozen graph", "tensorflow", folder / "frozen" / "1"),
        Form("frozen and folded graph", "tensorflow", folder / "folded" / "1"),
        Form("ONNX", "onnxruntime", folder / "onnx" / "1"),
        Form("OpenVINO", "openvino", folder / "openvino" / "1"),
        Form("TFLite", "litert", folder / "tflite" / "1"),
    ]


def save_checkpoint(model: str, path: str, report: object) -> None:
    """Write the checkpoint; called in a worker."""
    from servable.zoo import keras_builders

    keras_builders.build(model, w.weights_of(model, catalog.DEFAULT_SEED)).save_weights(path)


def measure(form: Form, model: str, folder: Path, expected: dict[str, np.ndarray]) -> tuple[float, ...]:
    """Run one child to its end."""
    answer = folder / "answer.npz"
    command = [sys.executable, "-m", "bench.load_form", form.engine, model, str(form.path)]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, str(folder / "question.npz"), str(answer)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{form.name} ended with {process.returncode} ({Code.INTERNAL.name})")
    told = json.loads(said)
    with np.load(answer) as found:
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=form.name)
    return wall, used.ru_utime, used.ru_stime, told["import_s"], told["load_s"], told["first_s"]


def report(model: str, forms: Sequence[Form], repeats: int, steal: int) -> str:
    """Return the page."""
    dynamic = forms[0]
    lines = [
        f"# From exec to the first answer: {model}",
        "",
        (__doc__ or "").partition("\n\n")[2].strip().replace("``", "`"),
        "",
        "| form | engine | user ms | system ms | CPU ms | wall ms | import ms | load ms | CPU x | wall x | load x |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for form in forms:
        times = (form.median(1), form.median(2), form.cpu, form.wall, form.median(3), form.load)
        faster = ((dynamic.cpu, form.cpu), (dynamic.wall, form.wall), (dynamic.load, form.load))
        cells = [form.name, "Keras" if form.engine == "code" else form.engine]
        cells += [f"{1000 * value:,.0f}" for value in times] + [f"{before / now:.1f}" for before, now in faster]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", verdict(forms), ""]
    command = f"python -m bench.load_forms --model {model} --repeats {repeats}"
    busy = os.getloadavg()[0]
    noise = f"CPU time stolen during the run: {steal} ticks. Load average: {busy:.1f}."
    if busy > 2 * (os.cpu_count() or 1):
        noise += " Other work ran beside it, which lengthens every wall time: CPU time and the ratios tell more."
    return "\n".join([*lines, f"Command: `{command}`. Medians. {conditions()} {noise}", ""])


def verdict(forms: Sequence[Form]) -> str:
    """Return which forms load as much faster as they must than the first, and what holds the others up."""
    dynamic, *frozen = forms
    times = {form.name: (dynamic.wall / form.wall, dynamic.cpu / form.cpu) for form in frozen}
    said = {name: f"{name} ({wall:.1f} x in wall, {cpu:.1f} x in CPU time)" for name, (wall, cpu) in times.items()}
    fast = [text for name, text in said.items() if min(times[name]) >= ENOUGH]
    slow = [form for form in frozen if min(times[form.name]) < ENOUGH]
    told = (
        "x: how many times less than code with a checkpoint, which needs TensorFlow and Keras. A frozen form loads "
        f"{ENOUGH:g} times as fast, the framework's import included, as {', '.join(fast) or 'none of these'}."
    )
    if slow:
        shares = [form.median(3) / form.wall for form in slow]
        loads = [dynamic.load / form.load for form in slow]
        told += (
            f" It does not as {', '.join(said[form.name] for form in slow)}: importing the framework is "
            f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of their wall time, and what comes after it is "
            f"{min(loads):.1f} to {max(loads):.1f} times as fast. To start fast is to leave that framework behind."
        )
    return told


if __name__ == "__main__":
    main()
