"""Engines for the tests of child processes: they run in real children, found by PYTHONPATH."""

# ruff: noqa: T201  # that a model prints is what is tested

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, STRING, Array, DType
from servable.engines.base import Artifact, Engine, EngineOptions, Model

ANY = Signature(
    "any",
    {"x": TensorSpec("x", FLOAT32, None, "x:0")},
    {"y": TensorSpec("y", FLOAT32, (None, 3), "y:0")},
    "some/method",
    {"x": np.array([1.5, 2.5], np.float32), "s": np.array([b"a", b""], dtype=object)},
)
RESOURCE = DType("resource", np.dtype("V"), 0)
OTHER = Signature(
    "other",
    {"s": TensorSpec("s", STRING, ())},
    {"r": TensorSpec("r", RESOURCE, ())},
    defaults={"x": np.array(7, np.int8)},
)


class EchoModel(Model):
    """Answers with its inputs; the signature's name can ask for other things."""

    engine = "echo"
    precision = "f64"

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.kept: Array | None = None
        self.signatures = {"any": ANY, "other": OTHER}

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        match signature:
            case "refuse":
                raise invalid_argument("no: \u00e9")
            case "raise":
                raise ZeroDivisionError("of the model")
            case "print":
                print(inputs["x"].item().decode())
                print("to stderr", file=sys.stderr)
            case "options":
                return {
                    "threads": np.array([self.options.intra_op_threads, self.options.inter_op_threads]),
                    "text": np.array(
                        [self.options.precision.encode(), *(tag.encode() for tag in self.options.saved_model_tags)],
                        dtype=object,
                    ),
                    "variable": np.array(os.environ.get("OMP_NUM_THREADS", "").encode(), dtype=object),
                }
            case "keep":
                before = self.kept
                self.kept = inputs["x"]
                return {"x": np.zeros(0) if before is None else before}
            case "die_on_seven":
                if 7 in inputs["x"]:
                    os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "fork":
                pid = os.fork()
                if pid == 0:
                    time.sleep(1000)
                return {"pid": np.array(pid)}
            case "state":
                return {"signals": np.array([signal.getsignal(n) == signal.SIG_IGN for n in (2, 15)])}
            case "eat":
                self.eaten = np.ones(int(inputs["x"][0]) << 20, np.uint8)
            case "hang":
                print("hanging")
                time.sleep(1000)
        return {name: inputs[name] for name in outputs or inputs}

    def close(self) -> None:
        print("closed")


class EchoEngine(Engine):
    """Loads anything; the end of the path can ask for trouble."""

    name = "echo"
    kinds = frozenset({"echo"})
    isolated = True

    @classmethod
    def installed(cls) -> bool:
        return True

    @classmethod
    def complete(cls, artifact: Artifact) -> str | None:
        return None

    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        options.report("half way")
        options.report("nearly there")
        match artifact.path.name:
            case "refused":
                raise invalid_argument("this artifact is bad")
            case "raises":
                raise KeyError("missing")
            case "killed":
                print("these are the last words")
                os.kill(os.getpid(), signal.SIGKILL)
            case "eats":
                print("hungry")
                time.sleep(1000 * np.ones(500 << 20, np.uint8)[-1])
            case "crashes":
                os.abort()
            case "once":
                if artifact.path.exists():
                    raise invalid_argument("not a second time")
                artifact.path.touch()
        return EchoModel(options)
