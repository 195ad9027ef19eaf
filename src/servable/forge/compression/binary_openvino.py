"""Networks of signs as OpenVINO models: its own binary layers, which keep weights and inputs as bits and count them.

A sign becomes a ``FakeQuantize`` of two levels, and a layer of signs a ``BinaryConvolution`` with weights of type u1.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.tensors import Array
from servable.forge.compression.binary import lower
from servable.forge.compression.graph import Graph, attribute
from servable.forge.steps import Facts

_CHANNELS: Final = 8
"""OpenVINO packs that many channels to a byte, and mixes them up if some are left over."""
_ELEMENTWISE: Final = frozenset({"Add", "Clamp", "Divide", "Multiply", "Relu", "Subtract"})
_SIGNS_OF: Final = "/signs/Where"
"""What ``lower`` calls the signs that a layer reads, after the layer."""


def check(graph: Graph, names: list[str]) -> None:
    """FAILED_PRECONDITION if no binary layer of a marked graph has channels that OpenVINO can pack."""
    counts = [_inputs_of(graph, name) for name in names]
    if all(count % _CHANNELS for count in counts):
        layers = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        raise failed_precondition(
            f"OpenVINO counts bits of layers with a multiple of {_CHANNELS} channels, and here they are {layers}; "
            "--to python counts any number"
        )


def _inputs_of(graph: Graph, name: str) -> int:
    kernel = graph.array(name)
    (marked,) = graph.readers(name)
    inward: list[int] = attribute(marked, "axes")
    return int(kernel.shape[inward[0]])


def write_ir(graph: Graph, target: Path) -> Facts:
    """Write a marked graph as ``model.xml`` and ``model.bin``; tell which layers count bits. The marks are lowered."""
    openvino: Any = importlib.import_module("openvino")
    lower(graph)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        model = openvino.convert_model(str(graph.save(Path(folder))), verbose=False)
    counted: list[str] = []
    multiplied: list[str] = []
    for layer in model.get_ordered_ops():
        if layer.get_type_name() in {"Convolution", "MatMul"} and _multiplies_signs(layer):
            reason = _unfit(layer)
            name = layer.input_value(0).get_node().get_friendly_name().removesuffix(_SIGNS_OF)
            (multiplied if reason else counted).append(f"{name}: {reason}" if reason else name)
            if not reason:
                layer.output(0).replace(_binary(openvino, layer).output(0))
    model.validate_nodes_and_infer_types()
    # Not save_model: what it simplifies before it writes is meant for floats.
    openvino.serialize(model, str(target / "model.xml"))
    return {"counts bits": counted} | ({"multiplies signs": multiplied} if multiplied else {})


def _multiplies_signs(layer: Any) -> bool:
    signs, kernel = (layer.input_value(place).get_node() for place in range(2))
    return bool(
        signs.get_type_name() == "Select"
        and signs.input_value(0).get_node().get_type_name() == "Greater"
        and kernel.get_type_name() == "Constant"
    )


def _unfit(layer: Any) -> str:
    """Return why OpenVINO cannot count a layer's bits, "" if it can."""
    rank = layer.get_input_partial_shape(0).rank
    if layer.get_type_name() == "MatMul" and not (rank.is_static and rank.get_length() == 2):
        return "its rows are no matrix"
    count = _kernel(layer).shape[1]
    return "" if count % _CHANNELS == 0 else f"{count} channels are no multiple of {_CHANNELS}"


def _kernel(layer: Any) -> Array:
    """Return signs, times a scale for each output: [out, in, tall, wide]."""
    kernel: Array = layer.input_value(1).get_node().data
    if layer.get_type_name() == "Convolution":
        return kernel
    rows: Array = kernel if layer.get_attributes()["transpose_b"] else kernel.T
    return rows[:, :, np.newaxis, np.newaxis]


def _binary(openvino: Any, layer: Any) -> Any:
    """Return nodes that do what a layer does, counting bits."""
    operations, old = openvino.opset13, openvino.opset1
    kernel, signs = _kernel(layer), layer.input_value(0)
    source = signs.get_node().input_value(0).get_node().input_value(0)
    if _is_sum(source.get_node()):
        source = signs
    product = layer.get_type_name() == "MatMul"
    if product:
        source = operations.reshape(source, np.array([0, kernel.shape[1], 1, 1]), special_zero=True)
    zero, one = (np.full((1, 1, 1, 1), value, np.float32) for value in (0, 1))
    bits = operations.fake_quantize(source, zero, zero, zero, one, 2)
    given = {} if product else layer.get_attributes()
    counted = old.binary_convolution(
        bits,
        _bits_of(openvino, kernel),
        list(given.get("strides", (1, 1))),
        list(given.get("pads_begin", (0, 0))),
        list(given.get("pads_end", (0, 0))),
        [1, 1],
        "xnor-popcount",
        0.0,
    )
    # OpenVINO has drawn the scale of a product into its kernel: signs do not hold it.
    scaled = operations.multiply(counted, np.abs(kernel).max(axis=(1, 2, 3)).reshape(1, -1, 1, 1))
    return operations.reshape(scaled, np.array([0, len(kernel)]), special_zero=True) if product else scaled


def _is_sum(node: Any) -> bool:
    """Return whether a tensor is the sum of two others, scaled or not.

    OpenVINO takes a sum into the layer before it, and a sign into that; then it makes bits of both summands. Signs that
    are computed as floats first are not taken along.
    """
    while node.get_type_name() in _ELEMENTWISE:
        given = [value.get_node() for value in node.input_values()]
        living = [one for one in given if one.get_type_name() != "Constant"]
        if len(living) != 1:
            return True
        (node,) = living
    return False


def _bits_of(openvino: Any, kernel: Array) -> Any:
    tensor = openvino.Tensor(openvino.Type.u1, openvino.Shape(kernel.shape))
    # OpenVINO counts the bits of a byte from the least on, whatever its own words about u1 say.
    packed = np.packbits(kernel.reshape(-1) > 0, bitorder="little")
    tensor.data.view(np.uint8).reshape(-1)[: packed.size] = packed
    return openvino.op.Constant(tensor)
