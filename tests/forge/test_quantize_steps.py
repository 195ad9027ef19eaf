"""Which step makes what is asked for, what is refused and why, and data that does not fit: pure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, INT64
from servable.forge.quantization.quantize import check_rows, methods_asked, read_labels, with_labels
from servable.forge.quantization.steps import METHODS, STEPS, step_for
from servable.forge.samples import Samples
from servable.forge.steps import steps

SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec("x", FLOAT32, (None, 2)), "ids": TensorSpec("ids", INT64, (None,))},
    {"y": TensorSpec("y", FLOAT32, (None, 3))},
)


@pytest.mark.parametrize(
    ("method", "kind", "engine", "expected"),
    [
        ("fp16", "onnx", None, "fp16-onnx"),
        ("fp16", "onnx", "openvino", "fp16-openvino"),
        ("fp16", "saved_model", "litert", "fp16-tflite"),
        ("bf16", "openvino", None, "bf16-openvino"),
        ("bf16", "saved_model", None, "bf16-openvino"),
        ("int8-weights", "onnx", None, "int8-weights-onnx"),
        ("int8-weights", "openvino", None, "int8-weights-openvino"),
        ("int8-weights", "saved_model", "litert", "int8-weights-tflite"),
        ("int4-weights", "onnx", "openvino", "int4-weights-openvino"),
        ("int8", "onnx", None, "int8-onnx"),
        ("int8", "onnx", "openvino", "int8-openvino"),
        ("int8", "saved_model", "litert", "int8-tflite"),
    ],
)
def test_every_pair_has_its_step(method: str, kind: str, engine: str | None, expected: str) -> None:
    step = step_for(method, kind, engine)
    assert step.name == expected
    assert kind in step.reads
    assert steps()[expected] is step


def test_the_toolchain_is_chosen_by_name() -> None:
    assert step_for("int8", "onnx", None, "nncf").name == "int8-onnx-nncf"
    assert step_for("int8", "onnx", "openvino", "nncf").name == "int8-openvino"


@pytest.mark.parametrize(
    ("method", "kind", "engine", "message"),
    [
        ("bf16", "onnx", None, "no kernels for convolutions and matrix products in bfloat16 on the CPU; OpenVINO has"),
        ("bf16", "saved_model", "litert", "no TFLite in bfloat16"),
        ("int4-weights", "onnx", None, "4 bits are made for OpenVINO only"),
        ("int8", "onnx", "litert", "makes TFLite of a SavedModel, not of onnx"),
        ("int8", "saved_model", "onnxruntime", "becomes ONNX first: servable convert"),
        ("int8", "openvino", "onnxruntime", "quantize the ONNX file"),
        ("int8", "tflite", None, "quantize the SavedModel that it was made of"),
        ("int8", "python", None, "has no weights"),
        ("int8", "torch_export", None, "servable convert MODEL FOLDER --to onnx"),
        ("int8", "keras", None, "servable export"),
        ("int3", "onnx", None, "there is no method 'int3'; there are fp16, bf16"),
        ("int8", "onnx", "tensorflow", "--engine is one of onnxruntime, openvino, litert"),
    ],
)
def test_what_cannot_be_done_is_said_with_a_way_on(method: str, kind: str, engine: str | None, message: str) -> None:
    with pytest.raises(ServingError, match=message) as caught:
        step_for(method, kind, engine)
    assert caught.value.code in {Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION}


def test_every_step_can_be_asked_for() -> None:
    kinds = ("onnx", "openvino", "saved_model")
    found = set()
    for method in METHODS:
        for kind in kinds:
            for engine in ("onnxruntime", "openvino", "litert"):
                for toolchain in ("nncf", "onnxruntime"):
                    try:
                        found.add(step_for(method, kind, engine, toolchain).name)
                    except ServingError:
                        continue
    assert found == {step.name for step in STEPS}


def rows(x: object, ids: object) -> Samples:
    return Samples({"x": np.asarray(x), "ids": np.asarray(ids)}, "rows.npz")


def test_rows_must_be_what_the_model_takes() -> None:
    check_rows(rows(np.zeros((4, 2), np.float32), np.zeros(4, np.int32)), SIGNATURE)
    with pytest.raises(
        ServingError, match=r"rows.npz: rows of 'x' have the shape \[3\]; the model takes float32\[\?,2\]"
    ):
        check_rows(rows(np.zeros((4, 3), np.float32), np.zeros(4, np.int64)), SIGNATURE)
    with pytest.raises(ServingError, match=r"rows of 'ids' have the shape \[2\]"):
        check_rows(rows(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.int64)), SIGNATURE)
    with pytest.raises(ServingError, match=r"'x' is int64; the model takes float32"):
        check_rows(rows(np.zeros((4, 2), np.int64), np.zeros(4, np.int64)), SIGNATURE)
    with pytest.raises(ServingError, match="lacks the input 'ids'"):
        check_rows(Samples({"x": np.zeros((4, 2), np.float32)}, "rows.npz"), SIGNATURE)


def test_labels_are_read_from_each_form(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[2], [0]]))
    (tmp_path / "b.txt").write_text("2\n0\n")
    (tmp_path / "c.json").write_text("[2, 0]")
    for name in ("a.npy", "b.txt", "c.json"):
        assert read_labels(tmp_path / name).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.txt", "two\n", "holds no labels"), ("a.json", "[[1, 2]]", r"a class number a row, not int64 \[1, 2\]"),
     ("a.json", "[0.5]", "not float64"), ("a.txt", "", "a class number a row"), ("a.npy", "no", "holds no labels")],
)  # fmt: skip
def test_labels_that_are_none_are_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ServingError, match=message):
        read_labels(tmp_path / name)
    with pytest.raises(ServingError, match="cannot read"):
        read_labels(tmp_path / "nowhere.txt")


def test_there_is_one_label_a_row() -> None:
    data = rows(np.zeros((4, 2), np.float32), np.zeros(4, np.int64))
    assert with_labels(data, np.arange(4), whole=True).labels is not None
    labels = with_labels(data, np.arange(9), whole=False).labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3]
    for count, whole in ((9, True), (3, True), (3, False)):
        with pytest.raises(ServingError, match=f"there are {count} labels for 4 rows of rows.npz"):
            with_labels(data, np.arange(count), whole=whole)


def test_one_method_is_asked_for() -> None:
    assert methods_asked({"fp16": False, "int8": True}) == "int8"
    with pytest.raises(ServingError, match=r"say one of --fp16, --int8$"):
        methods_asked({"fp16": False, "int8": False})
    with pytest.raises(ServingError, match="say one of --fp16, --int8 only"):
        methods_asked({"fp16": True, "int8": True})
