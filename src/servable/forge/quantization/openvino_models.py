"""OpenVINO models with 16-bit or smaller constants, or computed in 8 bits. Steps: they run in the worker."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import Code, ServingError, failed_precondition
from servable.core.tensors import BFLOAT16, Array
from servable.engines.base import Artifact
from servable.engines.openvino_messages import useful
from servable.forge.quantization.eight_bits import quantized
from servable.forge.quantization.keep import EVALUATIONS, Judge, chosen, held
from servable.forge.quantization.rows import calibration_of, notes_of, regrouped
from servable.forge.quantization.with_nncf import dataset, exact_ranges, ignored, load_nncf, preset
from servable.forge.steps import Facts, Task

MODEL_FILE: Final = "model.xml"
GROUP: Final = 64
"""Weights of 4 bits that share a scale."""
_SMALLEST: Final = 64
_WEIGHTED: Final = frozenset(
    {"Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "MatMul"}
)
_BETWEEN: Final = frozenset({"Convert", "FakeQuantize", "Multiply", "Reshape", "Subtract", "Transpose"})
"""What may lie between a constant and the layer whose weights it is."""
_RECURRENT: Final = ("LSTM", "GRU", "RNN")
_SMALLEST_RECURRENT: Final = 1024
_SMALL: Final = frozenset({"i8", "u8", "i4", "u4", "nf4"})


def fp16(source: Artifact, target: Path, task: Task) -> Facts:
    """Store constants as float16. They are computed with as float32, unless the plan says otherwise."""
    model, facts = opened(source, target, task)
    return facts | _written(model, target, task, halve=True)


def bf16(source: Artifact, target: Path, task: Task) -> Facts:
    """Store matrices and kernels as bfloat16; what is smaller stays."""
    from openvino import Tensor, Type
    from openvino import opset13 as ops

    model, facts = opened(source, target, task)
    held = []  # OpenVINO reads the arrays where they are
    for operation in model.get_ops():
        if operation.get_type_name() != "Constant" or operation.get_element_type() != Type.f32:
            continue
        shape = operation.get_output_shape(0)
        if len(shape) < 2 or np.prod(shape) < _SMALLEST:
            continue
        patterns = np.ascontiguousarray(operation.data.astype(BFLOAT16.numpy)).view(np.uint16)
        readers = operation.output(0).get_target_inputs()
        constant = ops.constant(Tensor(patterns, shape, Type.bf16))
        constant.set_friendly_name(f"{operation.get_friendly_name()}/bf16")
        wide = ops.convert(constant, "f32")
        for reader in readers:
            reader.replace_source_output(wide.output(0))
        held.append(patterns)
    if not held:
        raise failed_precondition(f"{source.path} has no float32 constants to make bfloat16 of")
    notes = [
        *facts.pop("notes", []),
        (
            "a file cannot say how it is computed with: its numbers are bfloat16, the arithmetic is float32 until "
            "whoever serves it asks for bf16; that is faster where the CPU has it, and the source itself will do for it"
        ),
    ]
    return facts | {"stored_as_bf16": len(held)} | _written(model, target, task) | {"notes": notes}


def int8_weights(source: Artifact, target: Path, task: Task) -> Facts:
    """Keep weights as 8-bit integers with a scale for each channel."""
    nncf = load_nncf(task.report)
    return _weights(source, target, task, nncf, {"mode": nncf.CompressWeightsMode.INT8_ASYM})


def int4_weights(source: Artifact, target: Path, task: Task) -> Facts:
    """Keep weights of matrix products as 4-bit integers with a scale for each group, others of 8 bits."""
    nncf = load_nncf(task.report)
    from nncf.quantization.advanced_parameters import GroupSizeFallbackMode

    adjusting = nncf.AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST)
    options = {"mode": nncf.CompressWeightsMode.INT4_SYM, "group_size": GROUP, "advanced_parameters": adjusting}
    return _weights(source, target, task, nncf, options)


def int8(source: Artifact, target: Path, task: Task) -> Facts:
    """Quantize weights and activations, all of them or as many as hold ``max_drop``."""
    nncf = load_nncf(task.report)
    model, facts = opened(source, target, task)
    keep = _kept(model, task)
    recurrent = [one.get_friendly_name() for one in model.get_ops() if one.get_type_name().startswith(_RECURRENT)]
    calibration = calibration_of(task, _fixed_rows(model), 1)
    options = {
        "subset_size": len(calibration),
        "target_device": nncf.TargetDevice.CPU,
        "ignored_scope": ignored(nncf, [*keep, *recurrent]),
        "preset": preset(nncf),
    }
    max_drop = task.options.get("max_drop")
    if max_drop is None:
        made = _told(
            lambda: nncf.quantize(model, dataset(nncf, calibration), advanced_parameters=exact_ranges(nncf), **options)
        )
    else:
        made, told = _holding(nncf, model, calibration, task, float(max_drop), options)
        facts |= told
    left = _float_layers(made)
    if not _count(made, "FakeQuantize") or len(left) == len(_layers(made)):
        raise failed_precondition(f"{source.path} has no layer that is quantized ({', '.join(sorted(_WEIGHTED))})")
    facts |= {
        "layers": len(_layers(made)),
        "calibrated_with_rows": sum(len(next(iter(batch.values()))) for batch in calibration),
        "kept_float": [*dict.fromkeys([*keep, *recurrent, *left])],
        "notes": notes_of(task) + facts.get("notes", []) + _told_recurrent(recurrent),
    }
    return facts | _written(made, target, task)


def opened(source: Artifact, target: Path, task: Task) -> tuple[Any, Facts]:
    """Return the source as an OpenVINO graph with the signature's names, and facts about what that left out."""
    import openvino
    from openvino._offline_transformations import apply_moc_transformations
    from openvino.passes import ConstantFolding, Manager

    facts: Facts = {}
    if source.kind == "saved_model":
        if importlib.util.find_spec("tensorflow") is None:
            raise failed_precondition(
                "a SavedModel needs tensorflow to be converted: pip install 'servable[tensorflow]'"
            )
        from servable.forge.conversion.saved_models import to_openvino

        converted = target.parent / "converted"
        converted.mkdir()
        wanted = task.options.get("signature") or None
        facts = to_openvino(source, converted, replace(task, options={"signature": wanted}))
        facts = {key: facts[key] for key in ("signatures", "notes", "way") if key in facts}
        source = Artifact("openvino", converted / MODEL_FILE)
    try:
        graph = openvino.Core().read_model(str(source.path))
    except Exception as error:
        raise failed_precondition(f"OpenVINO cannot read {source.path}: {useful(error)}") from error
    _refuse_quantized(graph, source.path)
    # Batch norms go into their convolutions, and gates into the order that OpenVINO wants, before scales come between.
    apply_moc_transformations(graph, cf=True)
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(graph)
    return graph, facts


def _weights(source: Artifact, target: Path, task: Task, nncf: Any, options: dict[str, Any]) -> Facts:
    model, facts = opened(source, target, task)
    keep = _kept(model, task)
    made = _told(lambda: nncf.compress_weights(model, ignored_scope=ignored(nncf, keep), **options))
    held = _recurrent_weights(made, keep)
    sizes = _constant_bytes(made)
    if not _SMALL & sizes.keys():
        raise failed_precondition(f"{source.path} has no weights to quantize")
    return facts | {"kept_float": keep, "recurrent_weights": len(held) // 2} | _written(made, target, task)


def _told_recurrent(layers: Sequence[str]) -> list[str]:
    if not layers:
        return []
    return [
        (
            f"{len(layers)} recurrent layers stay in float: OpenVINO is no faster with 8 bits in them, and less right; "
            "ONNX Runtime gains by them (--engine onnxruntime)"
        )
    ]


def _recurrent_weights(model: Any, keep: Sequence[str]) -> list[Array]:
    """Store weights of recurrent layers, which NNCF leaves alone, as int8 with a scale for each row.

    Returns the arrays, which OpenVINO reads where they are until the model is written.
    """
    from openvino import opset13 as ops

    held: list[Array] = []
    for layer in model.get_ops():
        if not layer.get_type_name().startswith(_RECURRENT) or layer.get_friendly_name() in keep:
            continue
        for place in range(layer.get_input_size()):
            constant = layer.input_value(place).get_node()
            if constant.get_type_name() != "Constant" or constant.get_element_type().get_type_name() != "f32":
                continue
            weights = constant.data
            if weights.ndim < 2 or weights.size < _SMALLEST_RECURRENT:
                continue
            small, scale = quantized(weights, (weights.ndim - 1,))
            held += [small, scale]
            wide = ops.multiply(ops.convert(ops.constant(small), "f32"), ops.constant(scale))
            layer.input(place).replace_source_output(wide.output(0))
    return held


def _holding(
    nncf: Any, model: Any, calibration: Sequence[Any], task: Task, max_drop: float, options: dict[str, Any]
) -> tuple[Any, Facts]:
    """Quantize, then take back the layers that hurt most until the drop is held."""
    rows = regrouped(task.samples, _fixed_rows(model) or 8, whole=_fixed_rows(model) is not None)
    names = [min(output.get_names()) for output in model.outputs]

    def answers(compiled: Any, batches: Iterable[Any]) -> list[dict[str, Array]]:
        return [
            {name: np.array(found[name]) for name in names} for found in (compiled(dict(batch)) for batch in batches)
        ]

    import openvino

    reference = answers(openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), rows)
    judge = Judge.of(reference, task.options.get("labels"), task.options.get("output", ""))
    baseline = judge.score(reference)
    task.report(f"the source scores {baseline:.4f} on {len(task.samples)} rows")
    size = len(next(iter(rows[0].values())))

    def validate(compiled: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        scores, weights = [], []
        for number, batch in items:
            right = judge.right[number * size : number * size + len(next(iter(batch.values())))]
            one = Judge(judge.output, right, judge.labelled)
            scores.append(one.score(answers(compiled, [batch])))
            weights.append(len(right))
        return float(np.average(scores, weights=weights)) if scores else 0.0, scores

    made = _told(
        lambda: nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=dataset(nncf, calibration),
            validation_dataset=nncf.Dataset(list(enumerate(rows)), lambda item: dict(item[1])),
            validation_fn=validate,
            max_drop=max_drop,
            advanced_quantization_parameters=exact_ranges(nncf),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=int(task.options.get("evaluations") or EVALUATIONS),
                ranking_subset_size=min(len(rows), 8),
                num_ranking_workers=1,
            ),
            **options,
        )
    )
    score = judge.score(answers(openvino.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), rows))
    if not held(baseline, score, max_drop):
        raise failed_precondition(
            f"no quantized form holds the drop of {max_drop:g}: the source scores {baseline:.4f}, the last form that "
            f"was tried {score:.4f}; allow more (--max-drop), calibrate with other data (--data), or take --fp16"
        )
    return made, {"judged_by": "labels" if judge.labelled else "agreement with the source", "score": score}


def _kept(model: Any, task: Task) -> list[str]:
    nodes = {
        one.get_friendly_name(): one.get_type_name() for one in model.get_ops() if one.get_type_name() != "Constant"
    }
    return chosen(task.options.get("keep_float", ()), nodes)


def _told(quantize: Callable[[], Any]) -> Any:
    """Run NNCF; what it raises is told in one line."""
    try:
        return quantize()
    except ServingError:
        raise
    except Exception as error:
        last = " ".join(str(error).split())[:400]
        raise ServingError(Code.FAILED_PRECONDITION, f"NNCF cannot quantize it: {last}") from error


def _written(model: Any, target: Path, task: Task, *, halve: bool = False) -> Facts:
    import openvino

    task.report("writing the model")
    openvino.save_model(model, str(target / MODEL_FILE), compress_to_fp16=halve)
    return {"constants_after": _constant_bytes(openvino.Core().read_model(str(target / MODEL_FILE)))}


def _layers(model: Any) -> list[Any]:
    """Return the operations with constant weights."""
    return [one for one in model.get_ops() if one.get_type_name() in _WEIGHTED and _weights_type(one)]


def _float_layers(model: Any) -> list[str]:
    return [one.get_friendly_name() for one in _layers(model) if _weights_type(one) not in _SMALL]


def _weights_type(layer: Any) -> str:
    """Return the type that a layer's weights are stored in, "" if they are not constant."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() in _BETWEEN:
        node = node.input_value(0).get_node()
    return str(node.get_element_type().get_type_name()) if node.get_type_name() == "Constant" else ""


def _constant_bytes(model: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for operation in model.get_ops():
        if operation.get_type_name() == "Constant":
            kind = operation.get_element_type()
            size = int(np.prod(operation.get_output_shape(0), dtype=np.int64)) * kind.bitwidth // 8
            found[kind.get_type_name()] = found.get(kind.get_type_name(), 0) + size
    return found


def _count(model: Any, kind: str) -> int:
    return sum(operation.get_type_name() == kind for operation in model.get_ops())


def _fixed_rows(model: Any) -> int | None:
    shape = model.inputs[0].partial_shape
    return shape[0].get_length() if not shape.rank.is_dynamic and len(shape) and not shape[0].is_dynamic else None


def _refuse_quantized(graph: Any, path: Path) -> None:
    for operation in graph.get_ops():
        kind = operation.get_type_name()
        small = kind == "Constant" and operation.get_element_type().get_type_name() in _SMALL | {"f16", "bf16"}
        if kind == "FakeQuantize" or (small and len(operation.get_output_shape(0)) > 1):
            raise failed_precondition(
                f"{path} is quantized already ({kind} {operation.get_friendly_name()}): start from the model in float"
            )
