"""What all contestants of a comparison are asked: one model, its artifacts, the same samples with the right answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.signatures import Signature
from servable.lab.asking import Asker
from servable.lab.exchange import Sample
from servable.lab.expectations import from_server
from servable.lab.sources import read_samples
from servable.lab.synthesis import Wanted, synthesise
from servable.lab.target import parse_endpoint
from servable.zoo import catalog

SAMPLES = 8
_FILES = {"onnx": "1/model.onnx", "saved_model": "1"}


@dataclass(frozen=True)
class Subject:
    """``artifacts`` are those that exist; ``ServingError`` says why one of another kind does not."""

    model: str
    signature: Signature
    samples: Sequence[Sample]
    artifacts: dict[str, Path] = field(default_factory=dict)
    example: Path | None = None
    """Where artifacts of an example model are built when they are first asked for."""

    def artifact(self, kind: str) -> Path:
        """Return the artifact of a kind."""
        if kind not in self.artifacts:
            if self.example is None:
                raise failed_precondition(
                    f"there is no {kind} of {self.model} to serve: it runs on its own server only"
                )
            self.artifacts[kind] = build_example(self.model, kind, self.example)
        return self.artifacts[kind]


def example_subject(model: str, folder: Path, *, rows: int = 1, count: int = SAMPLES) -> Subject:
    """Return an example model, with answers computed by numpy alone."""
    samples = []
    for seed in range(count):
        inputs = catalog.sample_inputs(model, rows=rows, seed=seed)
        expected = {name: np.asarray(array) for name, array in catalog.reference(model, inputs).items()}
        samples.append(Sample(inputs, expected))
    return Subject(model, catalog.describe(model).signature, samples, example=folder)


async def served_subject(url: str, data: Path | None, *, rows: int = 1, count: int = SAMPLES) -> Subject:
    """Return what a running server has: its signature, and its answers as those that are right."""
    endpoint = parse_endpoint(url)
    signature = await Asker(endpoint).signature("")
    if data is not None:
        samples = read_samples(data, signature, rows, count)
    else:
        samples = synthesise(signature, Wanted(batch=rows, samples=count))
    return Subject(endpoint.model.name, signature, await from_server(url, samples, "", None))


def build_example(model: str, kind: str, folder: Path) -> Path:
    """Build an artifact in a process of its own: TensorFlow would stay in this one."""
    root = folder / kind
    path = root / model / _FILES[kind]
    if not path.exists():
        command = [sys.executable, "-m", "servable", "example", "build", model, "--format", kind, "--out", str(root)]
        done = subprocess.run(  # noqa: S603  # this package itself
            command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise failed_precondition(f"cannot build {model} as {kind}: {done.stderr.strip()[-500:]}")
    return path
