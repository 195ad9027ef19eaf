"""SavedModels to other formats: functions of steps, run in a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from servable.core.errors import failed_precondition
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.engines import savedmodel
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.base import Artifact
from servable.engines.signature_settings import write_signature_settings
from servable.forge.conversion import tensorflow_graphs as graphs
from servable.forge.conversion import to_onnx as onnx_files
from servable.forge.conversion import to_openvino as openvino_files
from servable.forge.conversion import to_tflite as tflite_files
from servable.forge.conversion.files import store_graph
from servable.forge.conversion.fold_graph import removed
from servable.forge.conversion.settled_sizes import settle_sizes
from servable.forge.conversion.stated_names import state_names
from servable.forge.steps import Facts, Task


def to_onnx(source: Artifact, target: Path, task: Task) -> Facts:
    """Convert one signature: freeze it, tf2onnx, the names and sizes of the signature, a session to prove it."""
    frozen, names, others = _one(source, task, "ONNX")
    task.report(f"converting signature {frozen.signature.name} by tf2onnx, opset {onnx_files.OPSET}")
    facts = onnx_files.from_frozen(frozen, source.path, target)
    state_names(frozen.signature, target, names)
    return facts | onnx_files.renamed(names, others, "ONNX")


def to_openvino(source: Artifact, target: Path, task: Task) -> Facts:
    """Convert one signature: directly, or through ONNX if it repeats, where OpenVINO would keep slow loops."""
    frozen, names, others = _one(source, task, "OpenVINO")
    facts = openvino_files.from_frozen(frozen, source.path, target, task)
    state_names(frozen.signature, target, names)
    return facts | onnx_files.renamed(names, others, "OpenVINO")


def to_tflite(
    source: Artifact,
    target: Path,
    task: Task,
    configure: tflite_files.Configure = tflite_files.as_it_is,
    least_share: float = tflite_files.LEAST_SHARE,
) -> Facts:
    """Convert all signatures, or the one asked for. One that repeats gets a batch of one unless another is fixed.

    ``configure`` and ``least_share`` are for forms with smaller numbers.
    """
    wanted, rows = task.options.get("signature"), _rows(task)
    found = graphs.callable_signatures(source.path)
    chosen = [graphs.chosen_signature(source.path, wanted)] if wanted else list(found.values())
    if not chosen:
        raise failed_precondition(f"{source.path} has no signature to convert")
    for signature in chosen:
        graphs.refuse_tensorflow_only(source.path, signature.name, "TFLite")
    loaded = graphs.load(source.path)
    parts, notes = [], []
    served: dict[str, Signature] = {}
    for signature in chosen:
        part = _settled(graphs.freeze(loaded, signature, rows), rows)
        if rows is None and graphs.has_loops(part.graph):
            part = _settled(graphs.freeze(loaded, signature, 1), 1)
            notes.append(f"{signature.name} repeats, which TFLite does with a fixed batch alone: one of 1 (--batch N)")
        if _is_free(signature) and not _is_free(part.signature):
            notes.append(f"{signature.name} takes any number of rows, in blocks of the fixed one ({SETTINGS_FILE})")
            served[signature.name] = signature
        parts.append(part)
    task.report(f"converting {', '.join(part.signature.name for part in parts)} by TensorFlow's converter")
    facts = tflite_files.from_frozen(parts, source.path, target, _all_served(parts, served), configure, least_share)
    facts["signatures"] = {part.signature.name: part.signature.name for part in parts}
    left = sorted(set(found) - {signature.name for signature in chosen})
    notes += [f"left out: {', '.join(left)}"] if left else []
    return facts | ({"notes": notes} if notes else {})


def _settled(frozen: graphs.Frozen, rows: int | None) -> graphs.Frozen:
    shapes = [spec.shape for spec in frozen.signature.inputs.values()]
    known = all(shape is not None and None not in shape for shape in shapes)
    return settle_sizes(frozen, rows) if rows is not None and known and graphs.has_loops(frozen.graph) else frozen


def _is_free(signature: Signature) -> bool:
    """Return whether rows are free in all inputs and outputs."""
    specs = [*signature.inputs.values(), *signature.outputs.values()]
    return all(spec.shape and spec.shape[0] is None for spec in specs)


def _all_served(parts: list[graphs.Frozen], served: dict[str, Signature]) -> dict[str, Signature]:
    """Return what to state beside the file: nothing, or all of its signatures, for those not stated are not served."""
    return {part.signature.name: served.get(part.signature.name, part.signature) for part in parts} if served else {}


def to_graph_def(source: Artifact, target: Path, task: Task) -> Facts:
    """Freeze one signature: variables to constants; names go into ``servable.toml``, for a graph holds none."""
    frozen, names, others = _one(source, task, "a frozen graph", refuse=False)
    store_graph(frozen.graph, target, task)
    state_signature(frozen.signature, target, names)
    after = graphs.operations(frozen.graph)
    whole = savedmodel.read(source.path)
    fetched = [spec.node for spec in whole.signatures[names[0]].outputs.values()]
    before = Counter(node.op for node in whole.graph.all_reached(fetched))
    never = sum(graphs.operations(whole.meta_graph.graph_def).values()) - sum(before.values())
    facts: Facts = {
        "frozen": f"{frozen.variables} variables -> constants, {sum(after.values())} ops",
        "variables": frozen.variables,
        "nodes_not_run": never,
        **removed(before, after),
        "operations": dict(after.most_common()),
    }
    facts["signatures"] = {name: name for name in names}
    return facts | onnx_files.left_out(others, "a frozen graph")


def state_signature(signature: Signature, target: Path, names: Sequence[str]) -> None:
    """Write a frozen graph's signature into ``servable.toml``, under these names and as the default one."""
    write_signature_settings(
        target / SETTINGS_FILE,
        {
            name: Signature(name, signature.inputs, signature.outputs, signature.method_name)
            for name in dict.fromkeys((*names, DEFAULT_SIGNATURE))
        },
    )


def _one(
    source: Artifact, task: Task, target: str, *, refuse: bool = True
) -> tuple[graphs.Frozen, list[str], list[str]]:
    """Return the frozen signature that is asked for, all of its names, and those of the others."""
    signature = graphs.chosen_signature(source.path, task.options.get("signature"))
    if refuse:
        graphs.refuse_tensorflow_only(source.path, signature.name, target)
    task.report(f"freezing {source.path}")
    frozen = graphs.freeze(graphs.load(source.path), signature, _rows(task))
    same = graphs.same_as(source.path, signature.name)
    return (
        frozen,
        [signature.name, *same],
        sorted(set(graphs.callable_signatures(source.path)) - {signature.name, *same}),
    )


def _rows(task: Task) -> int | None:
    rows = task.options.get("batch")
    return None if rows is None else int(rows)
