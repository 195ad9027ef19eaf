"""The contract between the server and the frameworks that compute, and the table that finds them.

Guarantees of an engine:

1. Importing its module is cheap: the framework itself is imported by ``load``, on first use.
2. ``load`` either returns a model that answers every signature it lists, exactly, or raises ``ServingError`` that
   names what stands in the way (an operation, a dtype, a missing file) and what would help.
3. ``run`` takes inputs whose names and dtypes the caller has checked. It checks shapes as the artifact does, and
   raises ``ServingError`` (INVALID_ARGUMENT for what the client sent, INTERNAL for what failed in the framework).
4. ``run`` may be called from one thread at a time, or from several if the model says ``concurrent``. ``close`` frees
   memory and may be called twice.
5. No exception of a framework leaves this ring.

A call sequence: ``engine("onnxruntime").load(artifact, options)`` -> ``model.run(...)`` ... -> ``model.close()``.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, cast

from servable.core.errors import ServingError, failed_precondition
from servable.core.messages import InferRequest, InferResponse
from servable.core.progress import Progress, unheard
from servable.core.signatures import Signature
from servable.core.spans import Span
from servable.core.tensors import Array

ENGINES: dict[str, str] = {
    "litert": "servable.engines.litert:LiteRtEngine",
    "onnxruntime": "servable.engines.onnxruntime:OnnxRuntimeEngine",
    "openvino": "servable.engines.openvino:OpenVinoEngine",
    "python": "servable.engines.python:PythonEngine",
    "tensorflow": "servable.engines.tensorflow:TensorFlowEngine",
    "torch": "servable.engines.torch:TorchEngine",
}
"""Engine name -> "module:Class". A module is imported when its engine is first asked for."""

CHILD = "servable.engines.child:load_in_child"
"""``(engine name, artifact, options) -> Model``: what loads a model of an isolated engine, in a process of its own."""

LOADER_NICENESS = 19
"""Of loads where there is a way back, with the policy SCHED_IDLE: they run when nobody who serves wants to."""
LASTING_NICENESS = 11
"""Of loads where there is none, so that what a load leaves behind keeps it, and of those that come to nothing beside a
server that is never idle: near a tenth of a busy core. Not 10, which people use."""

AUTO_PLAN, NO_PLAN = "auto", "off"
"""What ``EngineOptions.plan`` says in place of a file."""
_CODE = frozenset({"python", "torch_export"})


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version of a model on disk: its kind (``saved_model``, or one of ``artifact.FILES``), its main file or
    folder, and the transform and the ``servable.toml`` beside it, if there are such.
    """

    kind: str
    path: Path
    transform: Path | None = None
    settings: Path | None = None

    @property
    def code(self) -> Path | None:
        """The file that may run Python when it is loaded, or ``None``.

        An archive of torch.export holds expressions, pickles and names of functions, which PyTorch follows as it loads.
        """
        return self.path if self.kind in _CODE else self.transform

    @property
    def code_is(self) -> str:
        """What the file of ``code`` is, for errors."""
        return "may make PyTorch run Python" if self.kind == "torch_export" else "is Python"


class Link(Protocol):
    """The way from a model in a child process to the other models of its server."""

    async def call(self, request: InferRequest) -> Mapping[str, Array]:
        """Call another model; raise what went wrong there. FAILED_PRECONDITION while the caller computes nothing."""


Told: TypeAlias = Callable[[int, "InferResponse | ServingError"], None]
"""Called in any thread with the number of a call and what came of it."""


class Caller(Protocol):
    """Calls models on behalf of the requests that a model computes now, within their deadline. For any thread."""

    def call(self, requests: Mapping[int, InferRequest], told: Told) -> None:
        """Start these calls, by numbers of the caller's choice; ``told`` is called once for each."""

    def give_up(self, numbers: Sequence[int] | None = None) -> None:
        """Cancel these calls (``None`` is all): ``told`` is no longer called for them."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is to be run. Threads: 0 lets the engine choose by the CPU quota. Precision: always f32 unless asked.

    ``streams`` above 1 computes a batch in so many parts side by side, which share the threads: for models whose rows
    are known to be independent. ``plan`` is ``off``, ``auto`` or a file of ``servable tune``.

    ``profile`` lets ``begin_profile`` tell what some frameworks count only if told so at the load; it slows them a
    little.

    ``report`` receives lines for a person who waits (progress of a slow load). ``allow_python`` lets a load run Python
    that lies with the model. ``child_timeout_s`` and ``child_memory_mb`` (MiB) bound a model that has a process of its
    own; 0 is no bound. ``link`` is what a model calls other models by, if it can.
    """

    intra_op_threads: int = 0
    inter_op_threads: int = 0
    streams: int = 0
    precision: str = "f32"
    plan: str = NO_PLAN
    saved_model_tags: tuple[str, ...] = ("serve",)
    allow_python: bool = False
    profile: bool = False
    child_timeout_s: float = 0.0
    child_memory_mb: int = 0
    report: Progress = field(default=unheard, compare=False)
    link: Link | None = field(default=None, compare=False)


class Model(ABC):
    """A loaded version that answers requests."""

    engine: str
    precision: str = "f32"
    concurrent: bool = False
    signatures: Mapping[str, Signature]
    uses: tuple[str, ...] = ()
    """Names of the models that it calls."""

    def calling(self, caller: Caller) -> Model:
        """Return this model as one that calls the models it ``uses`` through ``caller``."""
        return self

    def stream(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Generator[dict[str, Array], None, None]:
        """Compute in parts, each on demand, as ``run`` does otherwise. A signature that is not ``streamed`` has one.

        Whoever does not take all of them must close the iterator. Other calls may run between two parts.
        """
        yield self.run(signature, inputs, outputs)

    @abstractmethod
    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs of one signature. Blocks; releases the GIL while it computes."""

    def begin_profile(self) -> bool:
        """Begin to note what the framework does; False if it cannot tell, or is telling somebody already."""
        return False

    def end_profile(self) -> list[Span]:
        """Return what was noted, after ``begin_profile`` returned True."""
        return []

    def begin_serving(self) -> None:  # noqa: B027  # most have nothing to do
        """Hear that load and warm-up are over: what ran in the background until now runs for people."""

    @abstractmethod
    def close(self) -> None:
        """Free everything the model holds."""


class Engine(ABC):
    """Loads artifacts of some kinds."""

    name: str
    kinds: frozenset[str]
    isolated: bool = False
    """Whether its models must live in a child process (its framework stalls a process that serves)."""

    @classmethod
    @abstractmethod
    def installed(cls) -> bool:
        """Return whether the framework can be imported here, without importing it."""

    @classmethod
    @abstractmethod
    def complete(cls, artifact: Artifact) -> str | None:
        """Return ``None`` if the files prove by themselves that nothing is missing, else what is missing.

        Reads the format's own indexes and lengths; never loads the model.
        """

    @abstractmethod
    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        """Load one artifact. Slow; runs in a loader thread."""


def engine_class(name: str) -> type[Engine]:
    """Return the engine of that name; FAILED_PRECONDITION names those that exist."""
    target = ENGINES.get(name)
    if target is None:
        raise failed_precondition(f"no engine is called {name!r}; there are {', '.join(sorted(ENGINES))}")
    module_name, _, class_name = target.partition(":")
    found = getattr(importlib.import_module(module_name), class_name)
    return cast("type[Engine]", found)
