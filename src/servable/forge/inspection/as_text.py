"""A graph as text that people read and compare: a GraphDef in protobuf's text format, which ``inspect`` reads again."""

from __future__ import annotations

from pathlib import Path

from servable.core.errors import failed_precondition
from servable.forge.inspection.graph import Inspection
from servable.forge.inspection.tensorboard import LONG_BYTES, graph_defs, native
from servable.protos.text_format import to_text


def write_text(inspection: Inspection, path: Path) -> Path:
    """Write the text and return its path; FAILED_PRECONDITION if it cannot be written."""
    try:
        path.write_text(as_text(inspection), "utf-8")
    except OSError as error:
        raise failed_precondition(f"{path} cannot be written: {error.strerror}") from error
    return path


def as_text(inspection: Inspection) -> str:
    """Return the text. A SavedModel and a frozen graph are as they are; others are translated, as for TensorBoard."""
    if inspection.kind in ("saved_model", "graph_def"):
        graph = native(inspection)
    else:
        alone = len(inspection.graphs) == 1
        graph = graph_defs({"" if alone else name: one for name, one in inspection.graphs.items()})
        graph.versions.producer = 1
    lines = [
        f"# {inspection.kind} {inspection.path.name}, {len(graph.node)} nodes",
        f"# For people and servable inspect: values of constants above {LONG_BYTES} bytes are left out.",
    ]
    lines += [f"# {signature}" for signature in inspection.signatures.values() if signature.inputs]
    return "\n".join([*(line.replace("\n", " ") for line in lines), to_text(graph)])
