"""ONNX to TFLite, by way of torch: the function of a step, run in a worker."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from servable.core.errors import Code, ServingError, failed_precondition, unimplemented
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import STRING
from servable.engines import onnx_model
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.base import Artifact
from servable.engines.fitting import match
from servable.engines.signature_settings import read_signature_settings
from servable.forge.conversion import torch_to_tflite as to_tflite_files
from servable.forge.steps import Facts, Task

OPSET: Final = 18
"""What older files are brought to first."""
_LEAST_OPSET: Final = 13


def to_tflite(source: Artifact, target: Path, task: Task) -> Facts:
    """Convert an ONNX file by way of torch and litert-torch."""
    to_tflite_files.check_ready("onnx")
    rows = to_tflite_files.rows_of(task)
    signature = onnx_model.signature(onnx_model.read(source.path))
    texts = [name for name, spec in {**signature.inputs, **signature.outputs}.items() if spec.dtype is STRING]
    if texts:
        raise unimplemented(f"onnx to tflite: {', '.join(texts)}: text is not translated; convert what comes after it")
    model = _read(source.path)
    # Only now: torch takes seconds.
    torch: Any = importlib.import_module("torch")
    modules: Any = importlib.import_module("servable.forge.conversion.onnx_module")
    shapes = {name: to_tflite_files.sizes("onnx", spec, rows) for name, spec in signature.inputs.items()}
    module = modules.OnnxModule(model, list(signature.inputs)).eval()
    example = tuple(
        torch.zeros(shapes[name], dtype=getattr(torch, spec.dtype.name)) for name, spec in signature.inputs.items()
    )
    task.report("reading the graph as a torch module")
    try:
        with torch.no_grad():
            found = module(*example)  # also makes all constants before the trace
            program = torch.export.export(module, example, strict=False)
    except ServingError as error:
        raise ServingError(error.code, f"{source.path}: {error.message}") from error
    except Exception as error:
        said = " ".join(str(error).split())[:400]
        raise failed_precondition(f"{source.path}: its graph cannot be traced in torch: {said}") from error
    served = _served(signature, found, shapes, rows)
    return to_tflite_files.write(program, list(shapes), served, rows, target, task, _further_names(target, served))


def _served(
    signature: Signature, found: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], rows: int
) -> Signature:
    """Return the signature to state: rows are free if they were, and every output has as many."""
    free = all(spec.shape and spec.shape[0] is None for spec in signature.inputs.values())
    free = free and all(value.ndim and value.shape[0] == rows for value in found.values())
    inputs = {name: replace(spec, shape=shapes[name], node="") for name, spec in signature.inputs.items()}
    outputs = {name: replace(spec, shape=tuple(found[name].shape), node="") for name, spec in signature.outputs.items()}
    return replace(signature, inputs=to_tflite_files.freed(inputs, free), outputs=to_tflite_files.freed(outputs, free))


def _further_names(target: Path, served: Signature) -> dict[str, Signature]:
    """Return the names that the source's ``servable.toml``, which came along, gives the signature and its tensors."""
    settings = target / SETTINGS_FILE
    stated = read_signature_settings(settings) if settings.is_file() else {}

    def named(said: Mapping[str, TensorSpec], own: Mapping[str, TensorSpec], where: str) -> dict[str, TensorSpec]:
        found = match(said, own, f"{settings}: signatures.{where}", where)
        return {name: replace(own[theirs], name=name, node=theirs) for name, theirs in found.items()}

    return {
        name: replace(
            served,
            name=name,
            inputs=named(one.inputs, served.inputs, "input"),
            outputs=named(one.outputs, served.outputs, "output"),
        )
        for name, one in stated.items()
        if name != served.name
    }


def _read(path: Path) -> Any:
    import onnx
    import onnx.version_converter

    try:
        model = onnx.load(path)
        opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
        return onnx.version_converter.convert_version(model, OPSET) if opset < _LEAST_OPSET else model
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise ServingError(Code.FAILED_PRECONDITION, f"{path}: its operations are too old: {said}") from error
