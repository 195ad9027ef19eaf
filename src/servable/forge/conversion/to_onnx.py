"""TensorFlow graphs to ONNX by tf2onnx, and what every ONNX file that is made here must be: named, sized, loadable."""

from __future__ import annotations

import importlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from servable.core.errors import failed_precondition
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.engines.artifact import SETTINGS_FILE
from servable.forge.conversion.tensorflow_graphs import Frozen, one_line, unsupported
from servable.forge.steps import Facts

OPSET: Final = 18
"""tf2onnx stops there."""
BATCH: Final = "batch"
_UNSUPPORTED: Final = re.compile(r"Tensorflow op \[.*: (\w+)\] is not supported")
_NO_KERNEL: Final = re.compile(r"(?:No Op registered for|Could not find an implementation for) (\w+)")


class _Complaints(logging.Handler):
    """What tf2onnx logs about operations that it does not know; it goes on and writes a file that nothing loads."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.operations: list[str] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        self.lines.append(line)
        self.operations += _UNSUPPORTED.findall(line)


def from_frozen(frozen: Frozen, source: Path, target: Path) -> Facts:
    """Write ``model.onnx``; UNIMPLEMENTED names the operations that stand in the way."""
    tf2onnx: Any = importlib.import_module("tf2onnx.convert")
    complaints = _Complaints()
    logger = logging.getLogger("tf2onnx")
    logger.addHandler(complaints)
    names = {
        spec.node: name for specs in (frozen.signature.inputs, frozen.signature.outputs) for name, spec in specs.items()
    }
    try:
        model, _ = tf2onnx.from_graph_def(
            frozen.graph,
            name=source.name,
            input_names=frozen.inputs,
            output_names=frozen.outputs,
            opset=OPSET,
            tensors_to_rename=names,
        )
    except Exception as error:
        raise _refusal(frozen, source, complaints, error) from error
    finally:
        logger.removeHandler(complaints)
    if complaints.operations:
        raise _refusal(frozen, source, complaints, None)
    try:
        return finish(model, frozen.signature, target)
    except ValueError as error:
        raise _refusal(frozen, source, complaints, error) from error


def finish(model: Any, signature: Signature, target: Path) -> Facts:
    """Give an ONNX model the names and sizes of a signature, prove that it loads, and write ``model.onnx``.

    The first free axis of all tensors is ``batch``. ``ValueError`` if ONNX Runtime does not take it.
    """
    onnx: Any = importlib.import_module("onnx")
    graph = model.graph
    free = all(not spec.shape or spec.shape[0] is None for spec in signature.inputs.values())
    for values, specs in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
        for value in values:
            if value.name in specs:
                _size(value, specs[value.name], free)
    # What converters noted about tensors within has symbols of their own, which contradict these.
    del graph.value_info[:]
    lost = (set(signature.inputs) | set(signature.outputs)) - {value.name for value in (*graph.input, *graph.output)}
    if lost:
        raise failed_precondition(
            f"the converter lost {', '.join(sorted(lost))}: an input that nothing uses cannot stay"
        )
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise ValueError(one_line(error)) from error
    blob = model.SerializeToString(deterministic=True)
    _load(blob)
    (target / "model.onnx").write_bytes(blob)
    return {
        "nodes": node_count(model),
        "opset": max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")),
    }


def node_count(model: Any) -> int:
    """Return the number of nodes, those within loops too."""
    return sum(node_types(model).values())


def node_types(model: Any) -> Counter[str]:
    """Return how often each operation is in an ONNX model."""
    return Counter(node.op_type for node in all_nodes(model))


def all_nodes(model: Any) -> Iterator[Any]:
    """Yield the nodes of an ONNX model, those of its functions and within loops and branches too."""
    graphs = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            yield node
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs


def renamed(names: Sequence[str], others: Sequence[str], target: str) -> Facts:
    """Return what to tell of a format with one nameless signature: ``names`` are all those that it had."""
    facts: Facts = {"signatures": dict.fromkeys(names, DEFAULT_SIGNATURE)}
    told = []
    if DEFAULT_SIGNATURE not in names:
        told = [f"{target} has no names of signatures: {names[0]} is the default one; {SETTINGS_FILE} keeps its name"]
    return facts | _notes(told + left_out(others, target).get("notes", []))


def left_out(others: Sequence[str], target: str) -> Facts:
    """Return what to tell of signatures that are not converted."""
    return _notes([f"left out, since {target} holds one: {', '.join(others)} (--signature NAME)"] if others else [])


def _notes(lines: list[str]) -> Facts:
    return {"notes": lines} if lines else {}


def _size(value: Any, spec: TensorSpec, free_batch: bool) -> None:
    if spec.shape is None:
        return
    shape = value.type.tensor_type.shape
    known = [one.dim_value if one.HasField("dim_value") else None for one in shape.dim]
    del shape.dim[:]
    for axis, size in enumerate(spec.shape):
        added = shape.dim.add()
        if size is None and len(known) == len(spec.shape) and axis and known[axis]:
            size = known[axis]  # noqa: PLW2901  # what was free has turned out to be fixed
        if size is not None:
            added.dim_value = size
        else:
            added.dim_param = BATCH if axis == 0 and free_batch else f"{spec.name}_{axis}"


def _load(blob: bytes) -> None:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        runtime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"ONNX Runtime does not load it: {one_line(error)}") from error


def _refusal(frozen: Frozen, source: Path, complaints: _Complaints, error: Exception | None) -> Exception:
    operations = complaints.operations or (_NO_KERNEL.findall(str(error)) if error else [])
    if operations:
        return unsupported(source, frozen.signature.name, operations, "ONNX")
    said = one_line(error) if error else "; ".join(complaints.lines)
    return failed_precondition(f"{source}: tf2onnx cannot convert signature {frozen.signature.name}: {said}")
