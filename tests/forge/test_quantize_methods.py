"""Every way to quantize, once on a tiny convolution or LSTM: smaller, as close as its step says, and servable."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.forge import quantize_models as models

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.engines import onnx_model
from servable.engines.base import Artifact
from servable.forge import arrays
from servable.forge.artifacts import bytes_of, find_source
from servable.forge.quantization import graphs as quantize_graphs
from servable.forge.quantization.quantize import Quantized, Wish, quantize
from servable.forge.samples import Samples
from servable.forge.steps import step_named
from servable.forge.verify import answers, compare, questions
from servable.forge.worker import run_apart
from servable.forge.workshop import NotVerifiedError, open_model

HAS_NNCF = importlib.util.find_spec("nncf") is not None
needs_nncf = pytest.mark.skipif(not HAS_NNCF, reason="NNCF is not installed")
ROWS = 64

# name of the made version -> step, source, options, largest share of the source's size
JOBS: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "conv-fp16": ("fp16-onnx", "conv", {"keep_float": ["Gemm"]}, 0.75),
    "lstm-fp16": ("fp16-onnx", "lstm", {}, 0.75),
    "conv-fp16-ir": ("fp16-openvino", "conv", {}, 0.75),
    "conv-bf16-ir": ("bf16-openvino", "conv", {}, 0.75),
    "lstm-bf16-ir": ("bf16-openvino", "lstm", {}, 0.75),
    "conv-weights": ("int8-weights-onnx", "conv", {}, 0.55),
    "lstm-weights": ("int8-weights-onnx", "lstm", {}, 0.55),
    "conv-qdq": ("int8-onnx", "conv", {}, 0.6),
    "lstm-qdq": ("int8-onnx", "lstm", {}, 0.6),
}
NNCF_JOBS: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "conv-weights-ir": ("int8-weights-openvino", "conv", {}, 0.4),
    "lstm-weights-ir": ("int8-weights-openvino", "lstm", {}, 0.4),
    "lstm-int4-ir": ("int4-weights-openvino", "lstm", {}, 0.4),
    "conv-nncf": ("int8-onnx-nncf", "conv", {}, 0.6),
    "conv-int8-ir": ("int8-openvino", "conv", {}, 0.4),
    "conv-drop-ir": ("int8-openvino", "conv", {"max_drop": 0.2, "keep_float": ["MatMul"]}, 0.4),
}
ALL_JOBS = JOBS | (NNCF_JOBS if HAS_NNCF else {})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        "conv": find_source(models.conv_net(folder / "conv" / "1" / "model.onnx").parent.parent),
        "lstm": find_source(models.lstm_net(folder / "lstm" / "1" / "model.onnx").parent.parent),
    }


@pytest.fixture(scope="module")
def made(
    sources: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Artifact, dict[str, Any]]]:
    """Make all of them in one worker: NNCF is imported once."""
    folder = tmp_path_factory.mktemp("made")
    samples = {"conv": folder / "conv.npz", "lstm": folder / "lstm.npz"}
    for name, path in samples.items():
        arrays.save(path, rows_of(name).batches(1))
    jobs = [
        {
            "step": step,
            "source": [sources[source].kind, str(sources[source].path)],
            "target": str(folder / name),
            "samples": str(samples[source]) if step_named(step).calibrated else "",
            "options": options,
        }
        for name, (step, source, options, _) in ALL_JOBS.items()
    ]
    facts = run_apart("tests.forge.quantize_models:make", {"jobs": jobs})
    return {name: (find_source(folder / name), found) for name, found in zip(ALL_JOBS, facts, strict=True)}


def rows_of(name: str, rows: int = ROWS) -> Samples:
    return Samples(models.pictures(rows) if name == "conv" else models.sentences(rows), "the test")


@pytest.mark.parametrize("name", ALL_JOBS)
def test_it_is_smaller_and_answers_as_its_source(
    name: str, made: dict[str, tuple[Artifact, dict[str, Any]]], sources: dict[str, Artifact]
) -> None:
    artifact, _ = made[name]
    step, source, _, share = ALL_JOBS[name]
    reference, candidate = open_model(sources[source]), open_model(artifact)
    try:
        (signature,) = reference.signatures.values()
        assert set(candidate.signatures) == {"serving_default"}
        assert str(candidate.signatures["serving_default"]) == str(signature)
        asked = questions(signature, rows_of(source), (1, 3, 8, 8), probe=False)
        verdict = compare(asked, answers(reference, asked), answers(candidate, asked), step_named(step).tolerance)
    finally:
        reference.close()
        candidate.close()
    assert verdict.ok, verdict.faults
    assert verdict.max_abs > 0, "nothing was rounded"
    assert weights_bytes(artifact) < share * weights_bytes(sources[source])


def weights_bytes(artifact: Artifact) -> int:
    """Return the size of what holds the weights; an ``.xml`` tells far more than a tiny network has to tell."""
    return artifact.path.with_suffix(".bin").stat().st_size if artifact.kind == "openvino" else bytes_of(artifact)


def operations(artifact: Artifact) -> list[str]:
    return [node.op_type for node in onnx_model.read(artifact.path).graph.node]


def test_layers_are_left_in_float_by_type(made: dict[str, tuple[Artifact, dict[str, Any]]]) -> None:
    _, facts = made["conv-fp16"]
    assert facts["kept_float"] == ["logits/Gemm"]
    assert facts["constants_after"]["float"] == 4 * (128 * 5 + 5)
    assert facts["casts_added"] > 0


def test_weights_are_stored_or_computed_as_it_pays(made: dict[str, tuple[Artifact, dict[str, Any]]]) -> None:
    conv, facts = made["conv-weights"]
    assert "kernel2" in facts["stored_as_int8"]
    assert "ConvInteger" not in operations(conv), "ten times slower than float"
    assert "DequantizeLinear" not in operations(conv), "computed with every request"
    lstm, facts = made["lstm-weights"]
    assert "state/LSTM" in facts["computed_in_int8"]
    assert "DynamicQuantizeLSTM" in operations(lstm)
    assert "table" in facts["stored_as_int8"]
    assert any("com.microsoft" in note for note in facts["notes"])


def test_the_last_scores_stay_in_float(made: dict[str, tuple[Artifact, dict[str, Any]]]) -> None:
    artifact, facts = made["conv-qdq"]
    graph = onnx_model.read(artifact.path).graph
    makers = {output: node for node in graph.node for output in node.output}
    softmax = makers["probs"]
    assert softmax.op_type == "Softmax"
    assert makers[softmax.input[0]].op_type == "Gemm"
    assert "BatchNormalization" not in operations(artifact), "it is folded before scales come between"
    assert "probs/Softmax" in facts["kept_float"]
    assert facts["calibrated_with_rows"] == ROWS


def test_every_channel_has_a_scale_of_its_own(made: dict[str, tuple[Artifact, dict[str, Any]]]) -> None:
    import onnx

    graph = onnx.load(str(made["conv-qdq"][0].path)).graph
    scales = [one for one in graph.initializer if "kernel2" in one.name and one.name.endswith("_scale")]
    assert [list(one.dims) for one in scales] == [[32]]


def test_an_lstm_is_computed_in_int8_beside_calibrated_layers(made: dict[str, tuple[Artifact, dict[str, Any]]]) -> None:
    artifact, facts = made["lstm-qdq"]
    assert {"DynamicQuantizeLSTM", "QuantizeLinear"} <= set(operations(artifact))
    assert facts["layers"] == 2


@needs_nncf
def test_openvino_models_hold_small_numbers(made: dict[str, tuple[Artifact, dict[str, Any]]]) -> None:
    _, facts = made["conv-int8-ir"]
    assert facts["layers"] == 3
    assert facts["kept_float"] == []
    assert facts["constants_after"]["i8"] >= 128 * 5 + 32 * 16 * 9
    _, facts = made["lstm-int4-ir"]
    assert facts["constants_after"].keys() & {"i4", "u4", "i8", "u8"}
    _, facts = made["conv-drop-ir"]
    assert facts["judged_by"] == "agreement with the source"
    assert facts["score"] >= 0.8
    assert facts["constants_after"]["f32"] >= 4 * 128 * 5, "the dense layer stays as it is"


def test_bf16_is_stored_and_the_note_says_what_it_is_not(made: dict[str, tuple[Artifact, dict[str, Any]]]) -> None:
    _, facts = made["conv-bf16-ir"]
    assert facts["stored_as_bf16"] == 3
    assert facts["constants_after"]["bf16"] == 2 * (16 * 27 + 32 * 16 * 9 + 128 * 5)
    assert any("arithmetic is float32" in note for note in facts["notes"])


def spoiling(folder: Path) -> tuple[Artifact, Samples]:
    """Return a convolution with one channel far larger than the others, which 8 bits for all of them do not hold."""
    import onnx
    from onnx import numpy_helper

    path = models.conv_net(folder / "outlier" / "1" / "model.onnx")
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.name == "gamma":
            wild = numpy_helper.to_array(tensor).copy()
            wild[0] *= 3000.0
            tensor.CopyFrom(numpy_helper.from_array(wild, "gamma"))
        if tensor.name == "kernel2":
            kernel = numpy_helper.to_array(tensor).copy()
            kernel[:, 0] /= 3000.0
            tensor.CopyFrom(numpy_helper.from_array(kernel, "kernel2"))
    onnx.save(model, str(path))
    return find_source(path.parent.parent), Samples(models.pictures(128, seed=2), "the test")


def test_layers_that_hurt_most_are_kept_in_float(tmp_path: Path) -> None:
    source, data = spoiling(tmp_path)
    lines: list[str] = []
    wish = Wish("int8", toolchain="onnxruntime", max_drop=0.03, min_agreement=0.9)
    done = quantize(source, tmp_path / "out", wish, data=data, report=lines.append)
    facts = done.outcome.facts
    assert facts["score"] >= 0.97
    assert facts["judged_by"] == "agreement with the source"
    assert "conv2/Conv" in facts["kept_float"]
    assert "logits/Gemm" not in facts["kept_float"]
    assert next(iter(facts["sensitive"])) == "conv2/Conv"
    assert facts["sensitive"]["conv2/Conv"] > 10 * facts["sensitive"]["logits/Gemm"]
    assert any("the source scores 1.0000 on 128 rows" in line for line in lines)


def test_what_does_not_agree_enough_is_thrown_away(tmp_path: Path) -> None:
    source, data = spoiling(tmp_path)
    with pytest.raises(NotVerifiedError, match=r"top class|cosine"):
        quantize(source, tmp_path / "out", Wish("int8", toolchain="onnxruntime"), data=data)
    assert not (tmp_path / "out" / "1").exists()


def test_labels_tell_the_accuracy(sources: dict[str, Artifact], tmp_path: Path) -> None:
    rows = rows_of("conv")
    probs = outputs(sources["conv"], rows)
    labels = np.where(np.arange(ROWS) % 4 == 0, (probs.argmax(1) + 1) % 5, probs.argmax(1))
    data = Samples(rows.rows, "the test", labels=labels)
    done: Quantized = quantize(sources["conv"], tmp_path / "fp16.onnx", Wish("fp16"), data=data)
    assert done.accuracy is not None
    assert done.accuracy[0] == 0.75
    assert done.accuracy[1] == pytest.approx(0.75, abs=0.05)
    assert done.as_json()["accuracy"]["before"] == 0.75
    assert (tmp_path / "fp16.onnx").exists()


def outputs(artifact: Artifact, rows: Samples) -> Array:
    model = open_model(artifact)
    try:
        return model.run("serving_default", rows.rows, ["probs"])["probs"]
    finally:
        model.close()


@pytest.mark.parametrize("name", ["conv-fp16", "conv-weights", "lstm-weights", "conv-qdq"])
def test_a_quantized_file_is_not_quantized_again(name: str, made: dict[str, tuple[Artifact, dict[str, Any]]]) -> None:
    artifact, _ = made[name]
    with pytest.raises(
        ServingError, match=r"is quantized already \((operation|constant) .*start from the model in float"
    ):
        quantize_graphs.read(artifact.path)


def test_a_quantized_model_is_refused_by_every_step(
    made: dict[str, tuple[Artifact, dict[str, Any]]], tmp_path: Path
) -> None:
    for name, wish in (("conv-qdq", Wish("fp16")), ("conv-bf16-ir", Wish("fp16"))):
        with pytest.raises(ServingError, match="is quantized already"):
            quantize(made[name][0], tmp_path / "again", wish)


def test_bad_data_and_bad_wishes_are_refused_before_anything_is_made(
    sources: dict[str, Artifact], tmp_path: Path
) -> None:
    few = rows_of("conv", 3)
    qdq = Wish("int8", "onnxruntime", "onnxruntime")
    for wish, data, message in (
        (qdq, few, "3 rows: too few to calibrate with; give at least 8"),
        (Wish("fp16", max_drop=0.1), None, "--max-drop goes with --int8"),
        (Wish("fp16", keep_float=("Convolution",)), None, r"--keep-float Convolution: .* did you mean"),
        (replace(qdq, output="prob", max_drop=0.1), rows_of("conv"), "no output 'prob'"),
    ):
        with pytest.raises(ServingError, match=message) as caught:
            quantize(sources["conv"], tmp_path / "out", wish, data=data)
        assert caught.value.code is Code.INVALID_ARGUMENT
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_model_without_weights_says_so(tmp_path: Path) -> None:
    from servable.zoo import catalog

    source = find_source(catalog.build("half_plus_two", tmp_path / "zoo"))
    with pytest.raises(ServingError, match="has no weights to quantize"):
        quantize(source, tmp_path / "out", Wish("int8-weights"))
    with pytest.raises(ServingError, match="has no layer that is quantized"):
        quantize(source, tmp_path / "out", Wish("int8", toolchain="onnxruntime"))


def test_made_up_data_is_said_loudly(sources: dict[str, Artifact], tmp_path: Path) -> None:
    lines: list[str] = []
    wish = Wish("int8", toolchain="onnxruntime", min_agreement=0.0)
    done = quantize(sources["conv"], tmp_path / "out", wish, report=lines.append)
    assert any("NO DATA WAS GIVEN" in line for line in lines)
    assert done.outcome.calibration == "made up from the signature"
    assert any("MADE UP" in note for note in done.outcome.facts["notes"])
