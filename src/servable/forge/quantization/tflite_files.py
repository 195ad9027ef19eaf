"""TFLite files with smaller numbers, made of SavedModels by TensorFlow's converter. Steps: they run in the worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition, unimplemented
from servable.core.signatures import Scale, Signature
from servable.core.tensors import Array
from servable.engines import savedmodel, tflite_file
from servable.engines.base import Artifact
from servable.forge.conversion import tensorflow_graphs as graphs
from servable.forge.conversion.saved_models import to_tflite
from servable.forge.conversion.to_tflite import Configure
from servable.forge.quantization.integers import FLOATS, integers_asked, same, showing_ends
from servable.forge.quantization.rows import calibration_of, notes_of
from servable.forge.steps import Facts, Task
from servable.forge.verify import fixed_rows

_LEAST_HALF: Final = 0.3
_LEAST_BYTE: Final = 0.15
"""Shares of the constants' bytes that a file of 16- and of 8-bit numbers has at least, unless it lost some."""


def fp16(source: Artifact, target: Path, task: Task) -> Facts:
    """Store constants as float16; they are widened as the model loads."""

    def configure(tf: Any, converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    return _converted(source, target, task, configure, _LEAST_HALF)


def int8_weights(source: Artifact, target: Path, task: Task) -> Facts:
    """Store weights as int8; activations are quantized as they come (the converter's dynamic range)."""

    def configure(tf: Any, converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    return _converted(source, target, task, configure, _LEAST_BYTE)


def int8(source: Artifact, target: Path, task: Task) -> Facts:
    """Compute one signature in int8. What has no such kernel stays in float.

    Inputs and outputs stay floats unless the option ``io`` names integers for them: those stand for what calibration
    found, or of inputs for ``(q - mean) / std`` with the option ``input_stats``.
    """
    io, stats = integers_asked(task.options.get("io") or FLOATS, task.options.get("input_stats"))
    signature = graphs.chosen_signature(source.path, task.options.get("signature") or None)
    if not graphs.LOOPS.isdisjoint(savedmodel.read(source.path).operations(signature.name)):
        raise unimplemented(
            f"{source.path}: TensorFlow's converter crashes as it calibrates a recurrent model; take --int8-weights or "
            "another engine: --engine openvino"
        )
    rows = calibration_of(task, fixed_rows(signature), 1)
    shown = rows if stats is None else showing_ends(rows, signature, io, stats)

    def ranges() -> Iterator[tuple[str, dict[str, Array]]]:
        for batch in shown:
            yield signature.name, {name: batch[name] for name in signature.inputs}

    def configure(tf: Any, converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = ranges
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        if io != FLOATS:
            converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io)

    one = replace(task, options={**task.options, "signature": signature.name})
    facts = _converted(source, target, one, configure, _LEAST_BYTE)
    notes = notes_of(task) + facts.get("notes", [])
    if io != FLOATS:
        facts |= _stated(target / "model.tflite", signature, stats)
    return facts | {"calibrated_with_rows": sum(len(next(iter(batch.values()))) for batch in rows), "notes": notes}


def _stated(path: Path, signature: Signature, stats: Scale | None) -> Facts:
    """Return what the integers that go in and come out stand for. FAILED_PRECONDITION if it is not what was asked."""
    made = tflite_file.read(path).signatures[signature.name]
    for name, spec in made.inputs.items():
        if stats is not None and spec.scale is not None and not same(spec.scale, stats):
            raise failed_precondition(f"TensorFlow's converter made {spec} of the input {name}, not of {stats}")
    scaled = {name: str(spec) for name, spec in {**made.inputs, **made.outputs}.items() if spec.scale is not None}
    return {"integers": scaled}


def _converted(source: Artifact, target: Path, task: Task, configure: Configure, least_share: float) -> Facts:
    for option, flag in (("keep_float", "--keep-float"), ("max_drop", "--max-drop")):
        if task.options.get(option) not in (None, [], ()):
            raise unimplemented(
                f"TensorFlow's converter cannot leave layers in float ({flag}); other engines' can: --engine openvino"
            )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    facts = to_tflite(source, target, task, configure, least_share)
    return facts | {"tensors": _types(target / "model.tflite")}


def _types(path: Path) -> dict[str, int]:
    """Return how many tensors of the file there are of each type."""
    from ai_edge_litert.interpreter import Interpreter

    found: dict[str, int] = {}
    interpreter = Interpreter(model_path=str(path))
    for graph in range(interpreter.num_subgraphs()):
        for tensor in interpreter.get_tensor_details(graph):
            name = np.dtype(tensor["dtype"]).name
            found[name] = found.get(name, 0) + 1
    return found
