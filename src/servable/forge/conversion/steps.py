"""Conversions between formats: the steps there are, which one makes what of what, and why some pairs have none."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from servable.core.errors import failed_precondition, invalid_argument, unimplemented
from servable.forge.steps import Step

KINDS: Final = ("saved_model", "onnx", "openvino", "tflite", "graph_def", "torch_export", "torchscript")
"""What can be made."""
LIVE: Final = frozenset({"keras", "checkpoint"})
"""Sources that no engine loads."""

_SAVED_MODEL: Final = "servable.forge.conversion.saved_models"
_LIVE: Final = "servable.forge.conversion.live_sources"
_FILES: Final = "servable.forge.conversion.files"
_TENSORFLOW: Final = MappingProxyType({"tensorflow": "servable[tensorflow]"})
_NEEDS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "saved_model": _TENSORFLOW,
        "graph_def": _TENSORFLOW,
        "onnx": MappingProxyType({**_TENSORFLOW, "tf2onnx": "servable[forge]", "onnx": "servable[forge]"}),
        "openvino": MappingProxyType({**_TENSORFLOW, "tf2onnx": "servable[forge]", "onnx": "servable[forge]"}),
        "tflite": _TENSORFLOW,
    }
)
"""What a model of TensorFlow's needs to become that."""


def _step(source: str, target: str, module: str, summary: str, needs: Mapping[str, str], reference: str = "") -> Step:
    return Step(
        f"{source}-to-{target}",
        summary,
        frozenset({source}),
        target,
        f"{module}:to_{target}",
        needs=needs,
        reference=reference,
    )


STEPS: tuple[Step, ...] = (
    _step("saved_model", "onnx", _SAVED_MODEL, "one signature as ONNX, by tf2onnx", _NEEDS["onnx"]),
    _step("saved_model", "openvino", _SAVED_MODEL, "one signature as OpenVINO's IR", _NEEDS["openvino"]),
    _step("saved_model", "tflite", _SAVED_MODEL, "all signatures as TFLite", _NEEDS["tflite"]),
    _step("graph_def", "onnx", _FILES, "a frozen graph as ONNX, by tf2onnx", _NEEDS["onnx"]),
    Step(
        "graph_def-to-openvino",
        "a frozen graph as OpenVINO's IR",
        frozenset({"graph_def"}),
        "openvino",
        f"{_FILES}:graph_def_to_openvino",
        needs=_NEEDS["openvino"],
    ),
    _step("graph_def", "tflite", _FILES, "a frozen graph as TFLite", _NEEDS["tflite"]),
    _step("onnx", "openvino", _FILES, "ONNX as OpenVINO's IR", MappingProxyType({"openvino": "servable"})),
    Step(
        "onnx-to-tflite",
        "ONNX as TFLite, by way of torch",
        frozenset({"onnx"}),
        "tflite",
        "servable.forge.conversion.onnx_to_tflite:to_tflite",
        needs=MappingProxyType({"onnx": "servable[forge]", "torch": "servable[torch]"}),
    ),
    *(
        _step("keras", target, _LIVE, f"a Keras model as {target}", _NEEDS[target], f"{_LIVE}:answers")
        for target in ("saved_model", "onnx", "openvino", "tflite", "graph_def")
    ),
    # Whether code builds a model of TensorFlow's or of torch's is known when it was run: what is missing is said then.
    *(
        _step("checkpoint", target, _LIVE, f"what code builds as {target}", MappingProxyType({}), f"{_LIVE}:answers")
        for target in KINDS
    ),
)

_TO_TORCH: Final = "nothing makes torch of other formats; start from the module's code: FILE.py:FUNCTION"
_TO_SAVED_MODEL: Final = "nothing that is kept makes a SavedModel of it; start from the Keras file, or from code"
_FROM_TORCH_FILE: Final = (
    "what was traced cannot be translated with its names; start from the code: servable convert FILE.py:FUNCTION"
)
_END: Final = "nothing reads it but its own runtime; start from what it was made of"


def step_between(source: str, target: str) -> Step:
    """Return the step from a kind of artifact to another; UNIMPLEMENTED says why there is none, and a way on."""
    if target not in KINDS:
        raise invalid_argument(f"nothing is converted to {target!r}; there are {', '.join(KINDS)}")
    if source == target:
        raise failed_precondition(f"it is {target} already; copy it, or work on it: servable optimize")
    if (source, target) == ("saved_model", "graph_def"):
        from servable.forge.conversion.freeze_steps import FREEZE

        return FREEZE
    for step in STEPS:
        if source in step.reads and step.writes == target:
            return step
    raise unimplemented(f"{source} to {target}: {_reason(source, target)}")


def _reason(source: str, target: str) -> str:
    if source == "python":
        return "a Python model is code that calls what it likes; export the model within it"
    if source in ("torch_export", "torchscript"):
        return _FROM_TORCH_FILE
    if target in ("torch_export", "torchscript"):
        return _TO_TORCH
    if source in ("tflite", "openvino"):
        return _END
    return _TO_SAVED_MODEL
