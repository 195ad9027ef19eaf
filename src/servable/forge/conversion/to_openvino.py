"""ONNX files and TensorFlow graphs to OpenVINO's IR, at full precision and with the names that clients use."""

from __future__ import annotations

import importlib
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from servable.core.errors import failed_precondition
from servable.core.signatures import Signature
from servable.engines.base import Artifact
from servable.forge.conversion import to_onnx as onnx_files
from servable.forge.conversion.tensorflow_graphs import Frozen, has_loops, one_line, unsupported
from servable.forge.steps import Facts, Task

_NO_RULE: Final = re.compile(r"No conversion rule found for operations: ([\w, ]+)")
_NO_ONNX: Final = re.compile(r"OpenVINO does not support the following ONNX operations: ([\w., -]+)")
_TYPES: Final = {"boolean": "bool", "f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16"}


def from_onnx(source: Artifact, target: Path, task: Task) -> Facts:
    """Write ``model.xml`` and ``model.bin`` of an ONNX file; names and free dimensions stay."""
    openvino: Any = importlib.import_module("openvino")
    try:
        model = openvino.convert_model(str(source.path), verbose=False)
    except Exception as error:
        raise _refusal(source.path, "serving_default", error) from error
    rows = task.options.get("batch")
    if rows is not None:
        model.reshape({port: _rows(port.partial_shape, int(rows), openvino) for port in model.inputs})
    return save(openvino, model, target)


def from_frozen(frozen: Frozen, source: Path, target: Path, task: Task) -> Facts:
    """Write the IR of a frozen TensorFlow graph, with the signature's names and shapes.

    One that repeats goes through ONNX: OpenVINO would keep slow loops, where ONNX has an operation for that.
    """
    if not has_loops(frozen.graph):
        return _directly(frozen, source, target)
    task.report(f"signature {frozen.signature.name} repeats: through ONNX, which has an operation for that")
    with tempfile.TemporaryDirectory(dir=target.parent) as between:
        onnx_files.from_frozen(frozen, source, Path(between))
        facts = from_onnx(Artifact("onnx", Path(between, "model.onnx")), target, Task())
    return {**facts, "way": "through ONNX, since it repeats"}


def _directly(frozen: Frozen, source: Path, target: Path) -> Facts:
    openvino: Any = importlib.import_module("openvino")
    # From a file: OpenVINO's reader of graphs in memory has its troubles with functions without structure.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder, "graph.pb")
        written.write_bytes(frozen.graph.SerializeToString())
        try:
            model = openvino.convert_model(str(written), verbose=False)
        except Exception as error:
            raise _refusal(source, frozen.signature.name, error) from error
    _name(model, frozen.signature, source)
    return save(openvino, model, target)


def save(openvino: Any, model: Any, target: Path) -> Facts:
    """Write the IR with its weights in the types that they have."""
    openvino.save_model(model, str(target / "model.xml"), compress_to_fp16=False)
    return {"nodes": sum(node_types(model).values())}


def node_types(model: Any) -> Counter[str]:
    """Return how often each operation is in an OpenVINO model."""
    return Counter(node.get_type_name() for node in model.get_ops())


def _name(model: Any, signature: Signature, source: Path) -> None:
    """Give inputs and outputs the signature's names alone; refuse types that OpenVINO changed on the way."""
    for ports, specs in ((model.inputs, signature.inputs), (model.outputs, signature.outputs)):
        by_node = {spec.node: name for name, spec in specs.items()}
        for place, port in enumerate(ports):
            known = next((by_node[own] for own in port.get_names() if own in by_node), None)
            name = known or _by_operation(port, by_node) or (list(specs)[place] if len(ports) == len(specs) else None)
            if name is None:
                raise failed_precondition(f"{source}: OpenVINO lost the names of its tensors; go through onnx")
            port.get_tensor().set_names({name})
            found, expected = str(port.element_type.to_string()), specs[name].dtype.name
            if _TYPES.get(found, _long(found)) != expected:
                raise failed_precondition(
                    f"{source}: OpenVINO makes {found} of {name}, which is {expected}; go through onnx"
                )
    model.validate_nodes_and_infer_types()


def _by_operation(port: Any, by_node: dict[str, str]) -> str | None:
    own = port.get_node().get_friendly_name()
    return next((name for node, name in by_node.items() if node.partition(":")[0] == own), None)


def _long(name: str) -> str:
    """Return ``int32`` for ``i32``, ``uint8`` for ``u8``."""
    return re.sub(r"^([iu])(\d+)$", lambda match: {"i": "int", "u": "uint"}[match[1]] + match[2], name)


def _rows(shape: Any, rows: int, openvino: Any) -> Any:
    fixed = openvino.PartialShape(shape)
    if shape.rank.is_static and len(shape) and shape[0].is_dynamic:
        fixed[0] = rows
    return fixed


def _refusal(source: Path, signature: str, error: Exception) -> Exception:
    said = str(error)
    found = [
        name.strip() for group in (_NO_RULE, _NO_ONNX) for names in group.findall(said) for name in names.split(",")
    ]
    if found:
        return unsupported(source, signature, [name for name in found if name], "OpenVINO")
    return failed_precondition(f"{source}: OpenVINO cannot read it: {one_line(error)}")
