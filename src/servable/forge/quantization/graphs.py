"""ONNX files as the steps of quantization read, prepare, run and write them. Used in the worker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import Code, ServingError, failed_precondition
from servable.core.tensors import Array
from servable.forge.arrays import Tensors

MODEL_FILE: Final = "model.onnx"
_MOST_BYTES: Final = 1_900_000_000
"""Above it the constants go to a file of their own: a protobuf message ends at 2 GiB."""
_QUANTIZED: Final = frozenset(
    {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul",
        "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QuantizeLinear",
    }
)  # fmt: skip


def read(path: Path) -> Any:
    """Return an ONNX model with all its data, every node of the main graph with a name of its own.

    FAILED_PRECONDITION if it is quantized already, DATA_LOSS if it cannot be understood.
    """
    import onnx

    try:
        model = onnx.load(str(path))
    except OSError as error:
        raise ServingError(Code.DATA_LOSS, f"{path} cannot be read: {error}") from error
    except Exception as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from error
    _refuse_quantized(model, path)
    used: set[str] = set()
    for place, node in enumerate(model.graph.node):
        if not node.name or node.name in used:
            node.name = f"{node.name or node.op_type}_{place}"
        used.add(node.name)
    return model


def nodes_of(model: Any) -> dict[str, str]:
    """Return the nodes of the main graph: name -> type."""
    return {node.name: node.op_type for node in model.graph.node}


def weights_of(model: Any) -> dict[str, Any]:
    """Return the constants of the main graph by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def array_of(tensor: Any) -> Array:
    """Return a constant's value."""
    import onnx

    return np.asarray(onnx.numpy_helper.to_array(tensor))


def write(model: Any, folder: Path) -> Path:
    """Write ``model.onnx``, with its constants beside it where one file cannot hold them."""
    import onnx

    path = folder / MODEL_FILE
    if model.ByteSize() < _MOST_BYTES:
        onnx.save(model, str(path))
    else:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{MODEL_FILE}.data")
    return path


def prepare(path: Path, folder: Path) -> Path:
    """Write a form with constants folded and batch norms in their convolutions; only ONNX's own operations.

    A scale of its own would go between a convolution and its batch norm otherwise, and keep the two apart for good.
    """
    import onnx
    import onnxruntime

    written = folder / "prepared.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(written)
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise failed_precondition(f"onnxruntime cannot load {path}: {error}") from error
    model = onnx.load(str(written))
    _tidy(model)
    onnx.save(model, str(written))
    return written


def names_of_layers(model: Any, kinds: frozenset[str]) -> list[str]:
    """Return the nodes of these types that have constant weights, in order of the graph."""
    constants = weights_of(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in kinds and any(name in constants for name in node.input[1:])
    ]


def run(path: Path, batches: Sequence[Tensors]) -> list[dict[str, Array]]:
    """Return what a file answers in ONNX Runtime to each batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(batch)), strict=True)) for batch in batches]


def bytes_by_type(model: Any) -> dict[str, int]:
    """Return how many bytes of constants there are of each element type."""
    import onnx

    found: dict[str, int] = {}
    for tensor in model.graph.initializer:
        name = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        size = (
            int(np.prod(tensor.dims, dtype=np.int64)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )
        found[name] = found.get(name, 0) + size
    return found


def _tidy(model: Any) -> None:
    """Leave the sets of operators that are used, ONNX's own first: tools look at the first one."""
    used = {node.domain for node in model.graph.node}
    imports = sorted((one.domain, one.version) for one in model.opset_import if one.domain in used | {""})
    del model.opset_import[:]
    for domain, version in imports:
        model.opset_import.add(domain=domain, version=version)


def _refuse_quantized(model: Any, path: Path) -> None:
    import onnx

    for node in model.graph.node:
        if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear"):
            raise failed_precondition(
                f"{path} is quantized already (operation {node.op_type}, node {node.name or node.output[0]}): "
                "start from the model in float"
            )
    small = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    for tensor in model.graph.initializer:
        if tensor.data_type in small and len(tensor.dims) > 1:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            raise failed_precondition(
                f"{path} is quantized already (constant {tensor.name} is {kind}): start from the model in float"
            )
