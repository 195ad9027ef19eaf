"""Quantization: the steps there are, and which one makes what a person asks for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from servable.core.errors import failed_precondition, unimplemented
from servable.forge.steps import Step
from servable.forge.verify import INT8, Tolerance

METHODS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "fp16": "16-bit floats, five bits of them exponent: half the size",
        "bf16": "16-bit floats with float32's range: half the size",
        "int8-weights": "weights of 8 bits, arithmetic in float: a quarter of the size, no data needed",
        "int4-weights": "weights of matrix products of 4 bits, others of 8",
        "int8": "weights and arithmetic of 8 bits, calibrated with data: a quarter of the size, and faster",
    }
)
ENGINES: Final[Mapping[str, str]] = MappingProxyType(
    {"onnxruntime": "onnx", "openvino": "openvino", "litert": "tflite"}
)
"""Engine -> the kind of artifact that is made for it."""
TOOLCHAINS: Final = ("onnxruntime", "nncf")
"""What quantizes an ONNX file fully. The first needs no torch, and holds models that NNCF cannot."""

HALF: Final = Tolerance(rtol=None, atol=None, relative=2e-2, cosine=0.9999)
BRAIN: Final = Tolerance(rtol=None, atol=None, relative=1e-1, cosine=0.999)
"""Eight bits of every weight are left: scores near the middle between two classes move by some hundredths."""
WEIGHTS: Final = Tolerance(rtol=None, atol=None, cosine=0.99)
INTEGERS: Final = INT8

_FORGE: Final = "servable[forge]"
_ONNX: Final = MappingProxyType({"onnx": _FORGE, "onnxruntime": "servable"})
_NNCF: Final = MappingProxyType({"nncf": _FORGE, "openvino": "servable"})
_LITE: Final = MappingProxyType({"tensorflow": "servable[tensorflow]", "ai_edge_litert": "servable[litert]"})
_TO_ONNX: Final = frozenset({"onnx"})
_TO_OPENVINO: Final = frozenset({"onnx", "openvino", "saved_model"})
_TO_TFLITE: Final = frozenset({"saved_model"})

STEPS: tuple[Step, ...] = (
    Step(
        "fp16-onnx", "constants and arithmetic of 16 bits, inputs and outputs as before", _TO_ONNX, "onnx",
        "servable.forge.quantization.onnx_files:fp16", HALF, _ONNX,
    ),
    Step(
        "fp16-openvino", "constants of 16 bits", _TO_OPENVINO, "openvino",
        "servable.forge.quantization.openvino_models:fp16", HALF, MappingProxyType({"openvino": "servable"}),
    ),
    Step(
        "fp16-tflite", "constants of 16 bits", _TO_TFLITE, "tflite",
        "servable.forge.quantization.tflite_files:fp16", HALF, _LITE,
    ),
    Step(
        "bf16-openvino", "constants of bfloat16", _TO_OPENVINO, "openvino",
        "servable.forge.quantization.openvino_models:bf16", BRAIN, MappingProxyType({"openvino": "servable"}),
    ),
    Step(
        "int8-weights-onnx", "weights of 8 bits; LSTMs and matrix products compute with them", _TO_ONNX, "onnx",
        "servable.forge.quantization.onnx_files:int8_weights", WEIGHTS, _ONNX,
    ),
    Step(
        "int8-weights-openvino", "weights of 8 bits", _TO_OPENVINO, "openvino",
        "servable.forge.quantization.openvino_models:int8_weights", WEIGHTS, _NNCF,
    ),
    Step(
        "int4-weights-openvino", "weights of matrix products of 4 bits, others of 8", _TO_OPENVINO, "openvino",
        "servable.forge.quantization.openvino_models:int4_weights", WEIGHTS, _NNCF,
    ),
    Step(
        "int8-weights-tflite", "weights of 8 bits, activations quantized as they come", _TO_TFLITE, "tflite",
        "servable.forge.quantization.tflite_files:int8_weights", WEIGHTS, _LITE,
    ),
    Step(
        "int8-onnx", "8 bits by ONNX Runtime's toolchain", _TO_ONNX, "onnx",
        "servable.forge.quantization.qdq:int8", INTEGERS, _ONNX, calibrated=True,
    ),
    Step(
        "int8-onnx-nncf", "8 bits by NNCF", _TO_ONNX, "onnx",
        "servable.forge.quantization.qdq:int8_nncf", INTEGERS, MappingProxyType({**_ONNX, "nncf": _FORGE}),
        calibrated=True,
    ),
    Step(
        "int8-openvino", "8 bits by NNCF", _TO_OPENVINO, "openvino",
        "servable.forge.quantization.openvino_models:int8", INTEGERS, _NNCF, calibrated=True,
    ),
    Step(
        "int8-tflite", "8 bits by TensorFlow's converter; inputs and outputs stay floats", _TO_TFLITE, "tflite",
        "servable.forge.quantization.tflite_files:int8", INTEGERS, _LITE, calibrated=True,
    ),
)  # fmt: skip

_OWN_ENGINE: Final[Mapping[str, str]] = MappingProxyType(
    {"onnx": "onnxruntime", "openvino": "openvino", "saved_model": "openvino"}
)
_FIRST: Final[Mapping[str, str]] = MappingProxyType(
    {
        "keras": "export it first: servable export MODEL.keras FOLDER",
        "checkpoint": "export it first: servable export",
        "graph_def": "convert it first: servable convert GRAPH FOLDER --to onnx",
        "torch_export": "convert it first: servable convert MODEL FOLDER --to onnx",
        "torchscript": "convert the model that it was traced from: servable convert MODEL FOLDER --to onnx",
        "tflite": "quantize the SavedModel that it was made of: servable quantize SAVED_MODEL FOLDER --engine litert",
        "python": "a Python model has no weights that the forge knows",
    }
)


def step_for(method: str, kind: str, engine: str | None = None, toolchain: str = TOOLCHAINS[0]) -> Step:
    """Return the step that quantizes such an artifact for an engine; by default the one that the source is served by.

    A SavedModel goes to OpenVINO unless LiteRT is asked for. UNIMPLEMENTED or FAILED_PRECONDITION says what cannot be
    done, why, and what can.
    """
    if kind in _FIRST:
        raise failed_precondition(f"{kind} artifacts cannot be quantized as they are; {_FIRST[kind]}")
    if method not in METHODS:
        raise failed_precondition(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    chosen = engine or _OWN_ENGINE.get(kind, "")
    if chosen not in ENGINES:
        raise failed_precondition(f"nothing is quantized for {chosen or kind}; --engine is one of {', '.join(ENGINES)}")
    _refuse(method, kind, chosen)
    name = f"{method}-{ENGINES[chosen]}"
    if name == "int8-onnx" and toolchain == "nncf":
        name = "int8-onnx-nncf"
    return next(step for step in STEPS if step.name == name)


def _refuse(method: str, kind: str, engine: str) -> None:
    if method == "bf16" and engine != "openvino":
        raise unimplemented(f"{_NO_BF16[engine]}; OpenVINO has bfloat16: --engine openvino")
    if method == "int4-weights" and engine != "openvino":
        raise unimplemented(f"weights of 4 bits are made for OpenVINO only, not for {engine}: --engine openvino")
    if engine == "litert" and kind != "saved_model":
        raise unimplemented(f"TensorFlow's converter makes TFLite of a SavedModel, not of {kind}: start from that")
    if engine == "onnxruntime" and kind == "saved_model":
        raise failed_precondition("a SavedModel becomes ONNX first: servable convert SAVED_MODEL FOLDER --to onnx")
    if engine == "onnxruntime" and kind == "openvino":
        raise unimplemented("nothing makes ONNX of an OpenVINO model: quantize the ONNX file that it was made of")


_NO_BF16: Final[Mapping[str, str]] = MappingProxyType(
    {
        "onnxruntime": "ONNX Runtime has no kernels for convolutions and matrix products in bfloat16 on the CPU",
        "litert": "TensorFlow's converter makes no TFLite in bfloat16",
    }
)
