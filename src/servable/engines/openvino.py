"""OpenVINO on the CPU: its own models, ONNX files, and SavedModels whose signatures it can hold exactly.

Precision is f32 unless asked otherwise (OpenVINO's own choice on a CPU that has bfloat16 is bfloat16).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from servable.core.errors import ServingError, failed_precondition, invalid_argument, unavailable
from servable.core.spans import Span
from servable.core.tensors import Array
from servable.engines import onnx_model, savedmodel
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.openvino_graphs import Source, forget, runnable, source
from servable.engines.openvino_profile import Watch, WatchedCore
from servable.engines.openvino_program import SignaturePrograms
from servable.engines.plan import cpu_threads

_PRECISIONS = ("f32", "bf16")


class OpenVinoEngine(Engine):
    """Runs OpenVINO IR, ONNX, and what it can of SavedModels."""

    name = "openvino"
    kinds = frozenset({"openvino", "onnx", "saved_model"})

    @classmethod
    def installed(cls) -> bool:
        """Return whether OpenVINO is here."""
        return importlib.util.find_spec("openvino") is not None

    @classmethod
    def complete(cls, artifact: Artifact) -> str | None:
        """Prove a SavedModel by its index, an ONNX file by its lengths, an IR by what it says its weights need."""
        if artifact.kind == "saved_model":
            return savedmodel.missing(artifact.path)
        if artifact.kind == "onnx":
            return onnx_model.missing(artifact.path)
        return missing_part_of_ir(artifact.path)

    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        """Compile each signature by itself; those whose rank nobody declared when a request brings one."""
        if options.precision not in _PRECISIONS:
            raise failed_precondition(
                f"openvino runs at {' or '.join(_PRECISIONS)}, not at {options.precision}, on this machine"
            )
        core = _core()
        opened = source(core, artifact, options)
        programs = {}
        watch = Watch() if options.profile else None
        compiler = core if watch is None else WatchedCore(core, watch)
        for name, signature in opened.signatures.items():
            if runnable(signature):
                options.report(f"compiling signature {name}")
                programs[name] = SignaturePrograms(compiler, opened, signature, _config(options))
        forget(opened)
        return OpenVinoModel(opened, programs, options.precision, options.streams, watch)


class OpenVinoModel(Model):
    """The compiled signatures of one artifact."""

    engine = "openvino"

    def __init__(
        self,
        opened: Source,
        programs: dict[str, SignaturePrograms],
        precision: str,
        streams: int = 1,
        watch: Watch | None = None,
    ) -> None:
        self.signatures = MappingProxyType(dict(opened.signatures))
        self.precision = precision
        self.concurrent = streams > 1
        self._programs = programs
        self._watch = watch
        self._closed = False

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute a signature. All outputs are computed; those asked for are copied."""
        programs = self._programs.get(signature)
        if programs is None:
            raise self._not_there(signature)
        return programs.run(inputs, outputs)

    def begin_profile(self) -> bool:
        """Begin to note operations, if the graphs were compiled to count them."""
        return self._watch is not None and self._watch.begin()

    def end_profile(self) -> list[Span]:
        """Return the operations of all runs since."""
        return [] if self._watch is None else self._watch.end()

    def close(self) -> None:
        """Free the compiled graphs."""
        self._closed = True
        self._programs = {}

    def _not_there(self, signature: str) -> ServingError:
        if self._closed:
            return unavailable("the model has been unloaded")
        if signature in self.signatures:
            return invalid_argument(f"signature {signature!r} cannot be called: it gives no tensor")
        return invalid_argument(f"there is no signature {signature!r}; there are {', '.join(self.signatures)}")


def missing_part_of_ir(path: Path) -> str | None:
    """Return what an OpenVINO model lacks: the end of its ``.xml``, its ``.bin``, or bytes at the end of that."""
    import xml.etree.ElementTree as ET

    try:
        root = ET.fromstring(path.read_bytes())  # noqa: S314  # a model is the operator's own; expat limits expansion
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ET.ParseError as error:
        return f"{path} is damaged or not complete: {error}"
    if root.tag != "net" or root.find("layers") is None:
        return f"{path} is not an OpenVINO model: its root is <{root.tag}>"
    ends = [int(data.get("offset", 0)) + int(data.get("size", 0)) for data in root.iter("data") if data.get("size", "")]
    needed = max(ends, default=0)
    weights = path.with_suffix(".bin")
    try:
        length = weights.stat().st_size
    except OSError:
        return f"there is no {weights}" if needed else None
    return f"{weights} has {length} of at least {needed} bytes" if length < needed else None


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _config(options: EngineOptions) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": options.precision,
        "PERFORMANCE_HINT": "THROUGHPUT" if options.streams > 1 else "LATENCY",
        "NUM_STREAMS": max(1, options.streams),
        "INFERENCE_NUM_THREADS": options.intra_op_threads or cpu_threads(),
        "ENABLE_CPU_PINNING": False,  # models side by side would be pinned to the same cores
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
