"""Freezing and folding: the steps there are. Each format is folded by its own framework's optimizer."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from servable.core.errors import unimplemented
from servable.forge.steps import Step

FREEZE: Final = Step(
    "freeze",
    "variables to constants, one signature as a graph",
    frozenset({"saved_model"}),
    "graph_def",
    "servable.forge.conversion.saved_models:to_graph_def",
    needs=MappingProxyType({"tensorflow": "servable[tensorflow]"}),
)

REWRITE: Final = Step(
    "rewrite-graph_def",
    "the same graph as text, or as bytes",
    frozenset({"graph_def"}),
    "graph_def",
    "servable.forge.conversion.files:rewrite",
    needs=MappingProxyType({"tensorflow": "servable[tensorflow]"}),
)

STEPS: tuple[Step, ...] = (
    FREEZE,
    REWRITE,
    Step(
        "fold-graph_def",
        "constants and batch normalization folded, dead nodes removed, by Grappler",
        frozenset({"graph_def"}),
        "graph_def",
        "servable.forge.conversion.fold_graph:fold",
        needs=MappingProxyType({"tensorflow": "servable[tensorflow]"}),
    ),
    Step(
        "fold-onnx",
        "constants and batch normalization folded, dead nodes removed, by ONNX Runtime and onnxslim",
        frozenset({"onnx"}),
        "onnx",
        "servable.forge.conversion.fold_files:fold_onnx",
        needs=MappingProxyType({"onnx": "servable[forge]", "onnxruntime": "servable"}),
    ),
    Step(
        "fold-openvino",
        "OpenVINO's own transformations, constants folded",
        frozenset({"openvino"}),
        "openvino",
        "servable.forge.conversion.fold_files:fold_openvino",
        needs=MappingProxyType({"openvino": "servable"}),
    ),
)


def fold_step(kind: str) -> Step:
    """Return the step that folds a kind of artifact; UNIMPLEMENTED says what to do first."""
    for step in STEPS:
        if step.name == f"fold-{kind}":
            return step
    first = {"saved_model": "freeze or convert it first", "keras": "convert it first"}.get(
        kind, "its converter has folded it already"
    )
    raise unimplemented(f"{kind} artifacts are not folded as they are: {first}")
