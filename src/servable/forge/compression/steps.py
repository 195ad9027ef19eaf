"""Compression: the steps there are. What they make differs by design, and is judged by accuracy or agreement."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from servable.forge.steps import Step
from servable.forge.verify import Tolerance

ANYTHING: Final = Tolerance(rtol=None, atol=None)
"""Shapes and NaN are compared; how far answers may move is for accuracy to say (``compression``)."""
TRAINING: Final[Mapping[str, str]] = MappingProxyType({"onnx": "servable[forge]", "torch": "servable[torch]"})
"""What training needs."""
_ONNX: Final[Mapping[str, str]] = MappingProxyType({"onnx": "servable[forge]"})
_SIGNS: Final[Mapping[str, str]] = MappingProxyType({**TRAINING, "openvino": "servable"})
_READS: Final = frozenset({"onnx"})
_HERE: Final = "servable.forge.compression.actions"

STEPS: tuple[Step, ...] = (
    Step("prune", "the smallest weights become zero", _READS, "onnx", f"{_HERE}:prune", ANYTHING, _ONNX),
    Step("prune-channels", "the weakest channels go", _READS, "onnx", f"{_HERE}:prune_channels", ANYTHING, _ONNX),
    Step("cluster", "each layer's weights share a few values", _READS, "onnx", f"{_HERE}:cluster", ANYTHING, _ONNX),
    Step("lowrank", "wide layers become two thin ones", _READS, "onnx", f"{_HERE}:lowrank", ANYTHING, _ONNX),
    Step("distill", "a smaller network learns from a larger", _READS, "onnx", f"{_HERE}:distill", ANYTHING, TRAINING),
    Step("xnor", "inner weights and inputs are one bit", _READS, "openvino", f"{_HERE}:xnor", ANYTHING, _SIGNS),
    Step("xnor-packed", "inner weights and inputs are one bit, in numpy", _READS, "python", f"{_HERE}:xnor_packed",
         ANYTHING, TRAINING),
    Step("xnor-signs", "inner weights and inputs are signs", _READS, "onnx", f"{_HERE}:xnor_signs", ANYTHING, TRAINING),
)  # fmt: skip
