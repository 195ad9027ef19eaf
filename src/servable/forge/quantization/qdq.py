"""ONNX files computed in 8 bits, calibrated: by ONNX Runtime's toolchain or by NNCF. Steps: they run in the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from servable.core.errors import Code, ServingError, failed_precondition
from servable.core.tensors import Array
from servable.engines.base import Artifact
from servable.forge.arrays import Tensors
from servable.forge.quantization import graphs
from servable.forge.quantization.eight_bits import has_vnni
from servable.forge.quantization.keep import EVALUATIONS, Judge, Kept, Layers, chosen, distance, hold_drop
from servable.forge.quantization.onnx_files import dynamic
from servable.forge.quantization.rows import ROWS_AT_ONCE, calibration_of, notes_of, regrouped, rows_wanted
from servable.forge.quantization.with_nncf import dataset, exact_ranges, ignored, load_nncf, preset
from servable.forge.steps import Facts, Task

RANKED_ROWS: Final = 64
"""Rows that layers are ranked by."""
LAYERS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What is worth 8 bits; what lies between is done in 8 bits along with it."""
_BETWEEN: Final = frozenset(
    {
        "Add", "AveragePool", "Clip", "Concat", "Flatten", "Gather", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul",
        "Pad", "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_AFTER: Final = frozenset(
    {
        "Add", "ArgMax", "Cast", "Div", "Flatten", "Identity", "LogSoftmax", "Mul", "Reshape", "Sigmoid", "Softmax",
        "Squeeze", "Sub", "Tanh", "TopK", "Unsqueeze",
    }
)  # fmt: skip
"""What may follow the last layer: it stays in float, since scores of 8 bits tell few classes apart."""

Make = Callable[[Path, Path, Sequence[Tensors], Layers], None]
"""``(prepared file, file to write, calibration, nodes that stay in float)``."""


def int8(source: Artifact, target: Path, task: Task) -> Facts:
    """Quantize with ONNX Runtime: unsigned activations, signed weights with a scale for each channel."""
    return _int8(source, target, task, _by_onnxruntime)


def int8_nncf(source: Artifact, target: Path, task: Task) -> Facts:
    """Quantize with NNCF, which corrects biases for what rounding does to them."""
    return _int8(source, target, task, partial(_by_nncf, load_nncf(task.report)))


def _int8(source: Artifact, target: Path, task: Task, make: Make) -> Facts:
    before = graphs.bytes_by_type(graphs.read(source.path))
    prepared = graphs.prepare(source.path, target.parent)
    model = graphs.read(prepared)
    calibration = calibration_of(task, _fixed_rows(model))
    keep = (*chosen(task.options.get("keep_float", ()), graphs.nodes_of(model)), *_last(model))
    layers = [name for name in graphs.names_of_layers(model, LAYERS) if name not in keep]
    recurrent = [name for name in graphs.names_of_layers(model, frozenset({"LSTM"})) if name not in keep]
    if not layers and not recurrent:
        raise failed_precondition(
            f"{source.path} has no layer that is quantized ({', '.join(sorted(LAYERS))} or LSTM with constant weights)"
        )
    made = target.parent / "quantized.onnx"

    def write(kept: Layers) -> Path:
        return _written(make, prepared, made, calibration, (*keep, *kept), recurrent)

    kept: Kept | None = None
    judge: Judge | None = None
    max_drop = task.options.get("max_drop")
    if max_drop is None:
        write(())
    else:
        kept, judge = _search(task, prepared, float(max_drop), [*layers, *recurrent], write)
        write(kept.layers)
    final = _load(made)
    graphs.write(final, target)
    return {
        "layers": len(layers) + len(recurrent),
        "calibrated_with_rows": min(len(task.samples), rows_wanted(task)),
        "constants_before": before,
        "constants_after": graphs.bytes_by_type(final),
        "kept_float": [*keep, *(kept.layers if kept else ())],
        **(told_search(kept, judge) if kept and judge else {}),
        "notes": notes_of(task) + _notes(recurrent),
    }


def told_search(kept: Kept, judge: Judge) -> Facts:
    """Return what a search found, as facts."""
    worst = sorted(kept.errors.items(), key=lambda item: -item[1])[:10]
    return {
        "judged_by": "labels" if judge.labelled else "agreement with the source",
        "score": kept.score,
        "evaluations": kept.evaluations,
        "sensitive": {" + ".join(group): float(f"{error:.3g}") for group, error in worst},
    }


def _notes(recurrent: list[str]) -> list[str]:
    notes = []
    if recurrent:
        notes.append(
            f"{len(recurrent)} LSTM layers quantize their activations as they come, which ONNX Runtime alone can do"
        )
    if not has_vnni():
        notes.append("this CPU has no VNNI: weights have 7 bits, so that sums do not overflow")
    return notes


def _search(
    task: Task, prepared: Path, max_drop: float, layers: list[str], write: Callable[[Layers], Path]
) -> tuple[Kept, Judge]:
    """Look for the layers that must stay in float."""
    batches = regrouped(task.samples, ROWS_AT_ONCE)
    reference = graphs.run(prepared, batches)
    judge = Judge.of(reference, task.options.get("labels"), task.options.get("output", ""))
    baseline = judge.score(reference)
    task.report(f"the source scores {baseline:.4f} on {len(task.samples)} rows")
    few = -(-RANKED_ROWS // ROWS_AT_ONCE)

    def score(kept: Layers) -> float:
        found = judge.score(graphs.run(write(kept), batches))
        task.report(f"{len(layers) - len(kept)} layers in 8 bits, {len(kept)} in float: {found:.4f}")
        return found

    def error(group: Layers) -> float:
        others = tuple(name for name in layers if name not in group)
        found = distance(reference[:few], graphs.run(write(others), batches[:few]))
        task.report(f"{' + '.join(group)} alone in 8 bits: mean squared error {found:.2e}")
        return found

    return hold_drop(
        layers, baseline, max_drop, score, error, int(task.options.get("evaluations") or EVALUATIONS)
    ), judge


def _written(
    make: Make, prepared: Path, made: Path, calibration: Sequence[Tensors], keep: Layers, recurrent: list[str]
) -> Path:
    import onnx

    made.unlink(missing_ok=True)
    try:
        make(prepared, made, calibration, keep)
    except ServingError:
        raise
    except Exception as error:
        last = " ".join(str(error).split())[:400]
        raise ServingError(Code.FAILED_PRECONDITION, f"the toolchain cannot quantize it: {last}") from error
    if any(name not in keep for name in recurrent):
        model = dynamic(onnx.load(str(made)), made.parent, list(keep), ("LSTM",))
        onnx.save(model, str(made))
    return made


def _by_onnxruntime(prepared: Path, made: Path, calibration: Sequence[Tensors], keep: Layers) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Rows(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._left, None)

    quantize_static(
        str(prepared),
        str(made),
        Rows(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=not has_vnni(),
        activation_type=QuantType.QUInt8,  # signed ones are three times slower
        weight_type=QuantType.QInt8,
        op_types_to_quantize=sorted(LAYERS | _BETWEEN),
        nodes_to_exclude=list(keep),
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        calibration_cache_path=made.with_name("ranges.json"),
    )


def _by_nncf(nncf: Any, prepared: Path, made: Path, calibration: Sequence[Tensors], keep: Layers) -> None:

    import onnx

    model = onnx.load(str(prepared))
    quantized = nncf.quantize(
        model,
        dataset(nncf, calibration),
        subset_size=len(calibration),
        target_device=nncf.TargetDevice.CPU,
        ignored_scope=ignored(nncf, keep),
        preset=preset(nncf),
        advanced_parameters=exact_ranges(nncf),
    )
    onnx.save(quantized, str(made))


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))


def _fixed_rows(model: Any) -> int | None:
    """Return the batch size that the first input fixes."""
    constants = graphs.weights_of(model)
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        if value.name not in constants and shape.dim and shape.dim[0].WhichOneof("value") == "dim_value":
            return int(shape.dim[0].dim_value)
    return None


def _last(model: Any) -> list[str]:
    """Return the operations between the last layers and the outputs."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found: list[str] = []
    waiting = [output.name for output in model.graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.op_type not in _AFTER or node.name in found:
            continue
        found.append(node.name)
        waiting += node.input
    return found
