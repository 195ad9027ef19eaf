"""ONNX files and OpenVINO's IR folded by their own frameworks: functions of steps, run in a worker."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from pathlib import Path
from typing import Any, Final

from servable.core.errors import Code, ServingError, failed_precondition
from servable.engines.base import Artifact
from servable.forge.conversion import to_onnx as onnx_files
from servable.forge.conversion import to_openvino as openvino_files
from servable.forge.conversion.fold_graph import removed
from servable.forge.conversion.tensorflow_graphs import one_line
from servable.forge.steps import Facts, Task

_PRIVATE: Final = ("com.microsoft", "com.ms", "com.amd")


def fold_onnx(source: Artifact, target: Path, task: Task) -> Facts:
    """Fold with ONNX Runtime's BASIC level, the highest whose file other runtimes read too, and then with onnxslim."""
    onnx: Any = importlib.import_module("onnx")
    try:
        model = onnx.load(str(source.path))
    except Exception as error:
        raise ServingError(Code.DATA_LOSS, f"{source.path} is damaged or no ONNX: {one_line(error)}") from error
    before = onnx_files.node_types(model)
    task.report("ONNX Runtime: BASIC")
    folded = _optimized(onnx, source.path, target)
    with_slim = importlib.util.find_spec("onnxslim") is not None
    if with_slim:
        task.report("onnxslim")
        folded = _fewer_nodes(folded, _slim(folded))
    restore_interface(folded, model)
    _drop_private(folded)
    onnx.checker.check_model(folded)
    (target / "model.onnx").write_bytes(folded.SerializeToString(deterministic=True))
    after = onnx_files.node_types(folded)
    facts = removed(before, after)
    facts["batch_norms_folded"] = before["BatchNormalization"] - after["BatchNormalization"]
    facts["by"] = "ONNX Runtime BASIC" + (", onnxslim" if with_slim else "")
    return facts


def fold_openvino(source: Artifact, target: Path, task: Task) -> Facts:
    """Apply the transformations that OpenVINO's converter applies, with constants folded."""
    openvino: Any = importlib.import_module("openvino")
    passes: Any = importlib.import_module("openvino.passes")
    offline: Any = importlib.import_module("openvino._offline_transformations")
    try:
        model = openvino.Core().read_model(str(source.path))
    except Exception as error:
        raise ServingError(Code.DATA_LOSS, f"{source.path} is damaged or no IR: {one_line(error)}") from error
    before = openvino_files.node_types(model)
    task.report("OpenVINO: MOC transformations")
    offline.apply_moc_transformations(model, cf=True)
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    openvino_files.save(openvino, model, target)
    after = openvino_files.node_types(model)
    facts = removed(before, after)
    facts["batch_norms_folded"] = before["BatchNormInference"] - after["BatchNormInference"]
    return facts


def _optimized(onnx: Any, path: Path, target: Path) -> Any:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    written = target / ".basic.onnx"
    options.optimized_model_filepath = str(written)
    try:
        runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(str(written))
    except Exception as error:
        raise failed_precondition(f"{path}: ONNX Runtime cannot optimize it: {one_line(error)}") from error
    finally:
        written.unlink(missing_ok=True)


def _slim(model: Any) -> Any:
    onnxslim: Any = importlib.import_module("onnxslim")
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return onnxslim.slim(model)
        except Exception:  # noqa: BLE001  # an extra: what ONNX Runtime made is whole
            return None


def _fewer_nodes(one: Any, other: Any) -> Any:
    return other if other is not None and onnx_files.node_count(other) < onnx_files.node_count(one) else one


def restore_interface(folded: Any, source: Any) -> None:
    """Give inputs and outputs the types and symbols that they had: optimizers rename and resize free dimensions."""
    for values, originals in ((folded.graph.input, source.graph.input), (folded.graph.output, source.graph.output)):
        by_name = {value.name: value for value in originals}
        for value in values:
            if value.name in by_name:
                value.CopyFrom(by_name[value.name])
    del folded.graph.value_info[:]


def _drop_private(model: Any) -> None:
    """Take out the domains that ONNX Runtime declares and the model does not use, and refuse one that it does."""
    used = {node.domain for node in onnx_files.all_nodes(model)}
    private = sorted(used.intersection(_PRIVATE))
    if private:
        raise failed_precondition(
            f"ONNX Runtime's optimizer used operations of {', '.join(private)}, which others lack"
        )
    kept = [one for one in model.opset_import if one.domain in used or one.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(kept)
