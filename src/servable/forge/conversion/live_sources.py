"""Keras files, and code with a checkpoint, to formats that are served: functions of steps, run in a worker.

No engine loads these sources, so what they answer is computed here too, by the framework itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from servable.engines.base import Artifact
from servable.forge.arrays import Tensors
from servable.forge.conversion.model_code import restore
from servable.forge.steps import Facts, Task


def to_saved_model(source: Artifact, target: Path, task: Task) -> Facts:
    """Write a SavedModel with the named signature, also as the default one."""
    return _write("saved_model", source, target, task)


def to_onnx(source: Artifact, target: Path, task: Task) -> Facts:
    """Write ONNX: from Keras and TensorFlow by way of a SavedModel, from torch by its own exporter."""
    return _write("onnx", source, target, task)


def to_openvino(source: Artifact, target: Path, task: Task) -> Facts:
    """Write OpenVINO's IR, by way of a SavedModel or of torch's ONNX."""
    return _write("openvino", source, target, task)


def to_tflite(source: Artifact, target: Path, task: Task) -> Facts:
    """Write TFLite: from Keras and TensorFlow by way of a SavedModel, from torch by litert-torch."""
    return _write("tflite", source, target, task)


def to_graph_def(source: Artifact, target: Path, task: Task) -> Facts:
    """Write a frozen graph by way of a SavedModel."""
    return _write("graph_def", source, target, task)


def to_torch_export(source: Artifact, target: Path, task: Task) -> Facts:
    """Write what torch.export traces of a torch module."""
    return _write("torch_export", source, target, task)


def to_torchscript(source: Artifact, target: Path, task: Task) -> Facts:
    """Write a TorchScript trace of a torch module."""
    return _write("torchscript", source, target, task)


def answers(source: Artifact, batches: Sequence[Tensors], options: Mapping[str, Any]) -> list[Tensors]:
    """Return what the source answers to each batch; called in a worker of its own."""
    live = restore(source, options)
    return [live.answer({name: batch[name] for name in live.signature.inputs}) for batch in batches]


def _write(kind: str, source: Artifact, target: Path, task: Task) -> Facts:
    task.report(f"loading {task.options.get('code') or source.path}")
    live = restore(source, task.options)
    task.report(f"{live.signature}")
    # What comes after a SavedModel is made of the signature just written.
    kept = {name: task.options.get(name) for name in ("batch", "text")}
    onward = Task(task.samples, {"signature": live.signature.name, **kept}, task.report)
    facts = live.write(kind, target, onward)
    facts["model"] = f"{live.framework}: {live.signature}"
    return facts
