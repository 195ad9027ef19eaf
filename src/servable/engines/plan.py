"""Which engine runs an artifact, and why: pure decisions, and the one way to load."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from servable.core.errors import Code, ServingError, failed_precondition
from servable.engines.artifact import artifact_of_file, find_artifact
from servable.engines.base import AUTO_PLAN, CHILD, ENGINES, NO_PLAN, Artifact, EngineOptions, Model, engine_class
from servable.engines.machine import cpu_threads
from servable.engines.plan_cache import plan_files
from servable.engines.streams import in_streams

if TYPE_CHECKING:
    from servable.engines.tuned_plan import Plan

__all__ = ["Choice", "artifact_of_file", "choose", "complete", "cpu_threads", "find_artifact", "load", "models_used"]

EXTRAS = {
    "litert": "servable[litert]",
    "tensorflow": "servable[tensorflow]",
    "torch": "servable[torch]",
}
"""Engine -> what to install to have it. Those not named here come with the plain install."""


ONLY_ENGINES: Mapping[str, tuple[str, str]] = {
    "onnx": ("onnxruntime", "the reference runtime for ONNX"),
    "openvino": ("openvino", "an OpenVINO model runs in OpenVINO only"),
    "tflite": ("litert", "a TFLite model runs in LiteRT only"),
    "torch_export": ("torch", "a program of torch.export runs in PyTorch only"),
    "torchscript": ("torch", "TorchScript runs in PyTorch only"),
    "graph_def": ("tensorflow", "a frozen graph runs in TensorFlow only"),
    "python": ("python", "a Python model runs as it is written"),
}
"""Kind of artifact -> the engine that runs it unless another is asked for, and why. A SavedModel has a choice."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine for one artifact. ``reason`` is for people; ``isolated`` means in a child process.

    With a ``plan`` of ``servable tune``, ``engine`` and ``precision`` name all that it uses, joined by "+".
    """

    engine: str
    precision: str
    isolated: bool
    reason: str
    plan: Plan | None = None


def choose(
    artifact: Artifact, engine: str | None = None, precision: str = "f32", options: EngineOptions | None = None
) -> Choice:
    """Return the engine for an artifact: the one asked for, else that of a plan, else the most exact one installed.

    Plans count only with ``options`` that say so. FAILED_PRECONDITION if the engine asked for does not exist, is not
    installed, or does not read such an artifact, or if the plan asked for does not hold here.
    """
    choice = _choose_engine(artifact, engine, precision)
    if engine is None and options is not None and _may_have_plan(options.plan):
        from servable.engines.planned import follow

        choice = follow(choice, artifact, options)
    if artifact.transform is None:
        return choice
    reason = f"{choice.reason}; in a child process with {artifact.transform.name}"
    return dataclasses.replace(choice, isolated=True, reason=reason)


def _may_have_plan(plan: str) -> bool:
    return plan != NO_PLAN and (plan != AUTO_PLAN or bool(plan_files()))


def complete(choice: Choice, artifact: Artifact) -> str | None:
    """Return what the artifact's files lack by their format's own word, or ``None`` if nothing."""
    lacking = engine_class(choice.engine).complete(artifact)
    if lacking is None and artifact.transform is not None:
        from servable.engines.python_code import incomplete

        lacking = incomplete(artifact.transform)
    if lacking is None and artifact.settings is not None:
        from servable.engines.example_settings import read_example_settings
        from servable.engines.signature_settings import read_signature_settings

        try:
            read_example_settings(artifact.settings)
            read_signature_settings(artifact.settings)
        except ServingError as error:
            return error.message
    return lacking


def models_used(artifact: Artifact) -> tuple[str, ...]:
    """Return the names of the models that a model calls, as it says itself; nothing of it is run.

    FAILED_PRECONDITION if it says so in a way that cannot be read.
    """
    if artifact.kind != "python":
        return ()
    from servable.engines.python_code import declared_uses

    return declared_uses(artifact.path)


def _choose_engine(artifact: Artifact, engine: str | None, precision: str) -> Choice:
    if engine is not None:
        return _asked_for(artifact, engine, precision)
    if artifact.kind == "saved_model":
        if engine_class("tensorflow").installed():
            return _choice("tensorflow", precision, "tensorflow is installed: exact semantics")
        reason = "tensorflow is not installed: openvino, where it can hold every signature exactly"
        return _choice("openvino", precision, reason)
    if artifact.kind not in ONLY_ENGINES:
        raise failed_precondition(f"no engine reads {artifact.kind!r} ({artifact.path})")
    name, reason = ONLY_ENGINES[artifact.kind]
    if name in EXTRAS and not engine_class(name).installed():
        raise failed_precondition(f"{artifact.path} needs the engine {name}: pip install '{EXTRAS[name]}'")
    return _choice(name, precision, reason)


def load(choice: Choice, artifact: Artifact, options: EngineOptions) -> Model:
    """Load the artifact with the engine that was chosen, at the precision that was chosen. Slow.

    PERMISSION_DENIED if that may run Python that the options do not allow.
    """
    if artifact.code is not None and not options.allow_python:
        raise ServingError(
            Code.PERMISSION_DENIED,
            f"{artifact.code} {artifact.code_is}, which runs only where the command line names the model's own path; "
            f"name it there, or allow all models of this server to run Python: --allow_python",
        )
    options = dataclasses.replace(options, precision=choice.precision)
    if choice.plan is not None:
        from servable.engines.planned import load_planned

        model = load_planned(choice.plan, artifact, options)
    elif choice.isolated:
        module_name, _, function_name = CHILD.partition(":")
        load_in_child = getattr(importlib.import_module(module_name), function_name)
        model = cast("Model", load_in_child(choice.engine, artifact, options))
    else:
        model = in_streams(engine_class(choice.engine)().load(artifact, options), options.streams)
    if artifact.settings is None:
        return model
    from servable.engines import named
    from servable.engines.examples import with_examples

    if artifact.kind in named.KINDS:
        model = named.with_names(model, artifact.settings)
    return with_examples(model, artifact.settings)


def _asked_for(artifact: Artifact, engine: str, precision: str) -> Choice:
    found = engine_class(engine)
    if artifact.kind not in found.kinds:
        able = " or ".join(name for name in ENGINES if artifact.kind in engine_class(name).kinds)
        raise failed_precondition(f"{engine} does not read {artifact.kind} artifacts ({artifact.path}); try {able}")
    if not found.installed():
        raise failed_precondition(
            f"the engine {engine} is not installed here: pip install '{EXTRAS.get(engine, 'servable')}'"
        )
    return _choice(engine, precision, "asked for by name")


def _choice(engine: str, precision: str, reason: str) -> Choice:
    return Choice(engine, precision, engine_class(engine).isolated, reason)
