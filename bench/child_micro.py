"""What it costs to run a model in a child process: round trips through it, against the same engine in this process.

    python bench/child_micro.py                              identity, no framework
    python bench/child_micro.py PATH --input x=int32:32,50   a SavedModel in TensorFlow too (zeros as input)

Pin it (``taskset -c 0``) to see the work alone: on an idle second core the wake-up of a halted CPU comes on top.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import DTYPES_BY_NAME, Array
from servable.engines import base
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.child import load_in_child


class IdentityModel(Model):
    """Answers with its inputs."""

    engine = "identity"
    signatures = {DEFAULT_SIGNATURE: Signature(DEFAULT_SIGNATURE, {}, {})}  # noqa: RUF012  # it does not change

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        return dict(inputs)

    def close(self) -> None:
        pass


class IdentityEngine(Engine):
    """Needs no artifact."""

    name = "identity"
    kinds = frozenset({"identity"})

    @classmethod
    def installed(cls) -> bool:
        return True

    @classmethod
    def complete(cls, artifact: Artifact) -> str | None:
        return None

    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        return IdentityModel()


def measure(title: str, model: Model, signature: str, inputs: Mapping[str, Array], seconds: float) -> None:
    outputs = tuple(model.signatures[signature].outputs)
    times: list[float] = []
    for _ in range(20):
        model.run(signature, inputs, outputs)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        model.run(signature, inputs, outputs)
        times.append(time.perf_counter() - began)
    p50, p99 = (1e6 * np.percentile(times, q) for q in (50, 99))
    shapes = ", ".join(f"{array.dtype}{list(array.shape)}" for array in inputs.values())
    print(f"{title:28} {shapes:20} p50 {p50:9.1f} us   p99 {p99:9.1f} us   {len(times)} calls")


def identity(seconds: float) -> None:
    base.ENGINES["identity"] = "child_micro:IdentityEngine"
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    here = IdentityModel()
    there = load_in_child("identity", Artifact("identity", Path("identity/1")), EngineOptions())
    for shape in ((1, 1), (1, 50), (32, 50), (1, 224, 224, 3), (8, 224, 224, 3)):
        inputs = {"x": np.ones(shape, np.float32)}
        measure("identity, in process", here, DEFAULT_SIGNATURE, inputs, seconds / 10)
        measure("identity, child", there, DEFAULT_SIGNATURE, inputs, seconds)
    there.close()


def saved_model(path: Path, inputs: Mapping[str, Array], options: EngineOptions, seconds: float) -> None:
    artifact = Artifact("saved_model", path)
    there = load_in_child("tensorflow", artifact, options)
    measure("tensorflow, child", there, DEFAULT_SIGNATURE, inputs, seconds)
    there.close()
    here = base.engine_class("tensorflow")().load(artifact, options)
    measure("tensorflow, in process", here, DEFAULT_SIGNATURE, inputs, seconds)
    here.close()


def parse_input(text: str) -> tuple[str, Array]:
    name, _, form = text.partition("=")
    dtype, _, shape = form.partition(":")
    return name, np.zeros([int(size) for size in shape.split(",") if size], DTYPES_BY_NAME[dtype].numpy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--input", action="append", default=[], type=parse_input, metavar="NAME=DTYPE:SHAPE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    if arguments.path is None:
        identity(arguments.seconds)
    else:
        options = EngineOptions(intra_op_threads=arguments.threads)
        saved_model(arguments.path, dict(arguments.input), options, arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
