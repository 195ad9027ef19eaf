"""Frozen graphs and ONNX files to other formats: functions of steps, run in a worker."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError, failed_precondition, invalid_argument, not_found
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.base import Artifact
from servable.engines.signature_settings import read_signature_settings, write_signature_settings
from servable.forge.conversion import tensorflow_graphs as graphs
from servable.forge.conversion import to_onnx as onnx_files
from servable.forge.conversion import to_openvino as openvino_files
from servable.forge.conversion import to_tflite as tflite_files
from servable.forge.conversion.stated_names import state_names
from servable.forge.steps import Facts, Task


def to_onnx(source: Artifact, target: Path, task: Task) -> Facts:
    """Convert a frozen graph by tf2onnx, with the names of its ``servable.toml``."""
    frozen, names, others = open_graph(source, task)
    facts = onnx_files.from_frozen(frozen, source.path, target)
    state_names(frozen.signature, target, names)
    return facts | onnx_files.renamed(names, others, "ONNX")


def graph_def_to_openvino(source: Artifact, target: Path, task: Task) -> Facts:
    """Convert a frozen graph: directly, or through ONNX if it repeats."""
    frozen, names, others = open_graph(source, task)
    facts = openvino_files.from_frozen(frozen, source.path, target, task)
    state_names(frozen.signature, target, names)
    return facts | onnx_files.renamed(names, others, "OpenVINO")


def to_tflite(source: Artifact, target: Path, task: Task) -> Facts:
    """Convert a frozen graph by TensorFlow's converter; one that repeats must have been frozen with a fixed batch."""
    frozen, names, others = open_graph(source, task)
    parts = [replace(frozen, signature=replace(frozen.signature, name=name)) for name in names]
    facts = tflite_files.from_frozen(parts, source.path, target)
    forget_signatures(target)
    facts["signatures"] = {name: name for name in names}
    return facts | onnx_files.left_out(others, "TFLite")


def to_openvino(source: Artifact, target: Path, task: Task) -> Facts:
    """Convert an ONNX file."""
    return openvino_files.from_onnx(source, target, task)


def open_graph(source: Artifact, task: Task) -> tuple[graphs.Frozen, list[str], list[str]]:
    """Return one signature of a frozen graph as TensorFlow sees it, all of its names, and the names of the others."""
    settings = source.path.parent / SETTINGS_FILE
    found = read_signature_settings(settings) if settings.is_file() else {}
    if not found:
        raise failed_precondition(f"{source.path} does not name its tensors: {settings} must, as [signatures]")
    wanted = task.options.get("signature")
    name = wanted or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in found else next(iter(found)))
    if name not in found:
        raise not_found(f"{settings} has no signature {name!r}; there are {', '.join(found)}")
    graph = read_graph(source.path)
    signature = _with_ports(found[name])
    known = {node.name for node in graph.node}
    for spec in (*signature.inputs.values(), *signature.outputs.values()):
        if spec.node.partition(":")[0] not in known:
            raise invalid_argument(f"{settings}: {source.path} has no tensor {spec.node!r} ({spec.name} of {name})")
    inputs, outputs = ([spec.node for spec in specs.values()] for specs in (signature.inputs, signature.outputs))
    function = graphs.as_function(graph, inputs, outputs)
    same = [key for key, one in found.items() if (one.inputs, one.outputs) == (found[name].inputs, found[name].outputs)]
    names = [name, *(key for key in same if key != name)]
    return graphs.Frozen(graph, signature, function, 0), names, sorted(set(found) - set(same))


def read_graph(path: Path) -> Any:
    """Return the GraphDef in a binary or text file; DATA_LOSS if it is none."""
    tf: Any = importlib.import_module("tensorflow")
    graph = tf.compat.v1.GraphDef()
    try:
        if path.suffix == ".pbtxt":
            importlib.import_module("google.protobuf.text_format").Parse(path.read_text(), graph)
        else:
            graph.ParseFromString(path.read_bytes())
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or no GraphDef: {graphs.one_line(error)}") from error
    return graph


def store_graph(graph: Any, target: Path, task: Task) -> None:
    """Write ``graph.pb``, or with the option ``text`` what people can read: ``graph.pbtxt``."""
    if task.options.get("text"):
        text = importlib.import_module("google.protobuf.text_format").MessageToString(graph)
        (target / "graph.pbtxt").write_text(text, "utf-8")
    else:
        (target / "graph.pb").write_bytes(graph.SerializeToString(deterministic=True))


def rewrite(source: Artifact, target: Path, task: Task) -> Facts:
    """Write the same frozen graph as text, or as bytes."""
    graph = read_graph(source.path)
    store_graph(graph, target, task)
    return {"nodes": sum(graphs.operations(graph).values())}


def forget_signatures(target: Path) -> None:
    """Take a source's signatures out of the ``servable.toml`` that came along, beside a format that holds its own."""
    settings = target / SETTINGS_FILE
    if settings.is_file():
        write_signature_settings(settings, {})  # which leaves no empty file


def _with_ports(signature: Signature) -> Signature:
    """Return the signature with tensors named as TensorFlow does: ``x`` is ``x:0``."""

    def ported(specs: Any) -> Any:
        return {
            name: replace(spec, node=spec.node if ":" in (spec.node or name) else f"{spec.node or name}:0")
            for name, spec in specs.items()
        }

    return replace(signature, inputs=ported(signature.inputs), outputs=ported(signature.outputs))
