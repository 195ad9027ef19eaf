"""Integers that stand for numbers: what is asked of them, what rows show of it, and there and back."""

from __future__ import annotations

import os

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.signatures import Scale, Signature, TensorSpec, main_signature
from servable.core.tensors import FLOAT32, INT8, INT32, UINT8
from servable.engines.child_memory import Arena
from servable.engines.child_signatures import describe, restore
from servable.forge.quantization.integers import integers_asked, same, showing_ends

SIGNATURE = Signature(
    "serving_default",
    {"image": TensorSpec("image", FLOAT32, (None, 2)), "ids": TensorSpec("ids", INT32, (None,))},
    {"y": TensorSpec("y", FLOAT32, (None, 3))},
)
AROUND = Scale(1 / 128, 128)


def rows(*images: list[float]) -> list[dict[str, np.ndarray]]:
    return [{"image": np.array([image], np.float32), "ids": np.array([7], np.int32)} for image in images]


def test_numbers_become_the_nearest_integers_and_come_back() -> None:
    numbers = np.array([-1.0, 0.0, 0.004, 0.9921875, 5.0, -5.0, np.nan, np.inf], np.float32)
    integers = AROUND.integers(numbers, UINT8)
    assert integers.dtype == np.uint8
    assert integers.tolist() == [0, 128, 129, 255, 255, 0, 128, 255]
    assert AROUND.numbers(integers[:4]).tolist() == [-1.0, 0.0, 1 / 128, 0.9921875]
    assert Scale(0.5, -128).integers(np.array([-1.0, 0.0, 127.5]), INT8).tolist() == [-128, -128, 127]


def test_people_read_mean_and_standard_deviation() -> None:
    spec = TensorSpec("image", UINT8, (None, 2), scale=AROUND)
    assert str(spec) == "uint8[?,2] of (q - 128) / 128"
    assert str(Scale(1 / 255, 0)) == "q / 255"
    assert str(Scale(1 / 256, -128)) == "(q + 128) / 256"


def test_a_tensor_takes_numbers_and_means_numbers() -> None:
    spec = TensorSpec("image", UINT8, (None, 2), scale=AROUND)
    assert spec.taken(np.array([0.5], np.float32)).tolist() == [192]
    assert spec.taken(np.array([3], np.int64)).tolist() == [3], "integers are those of the tensor already"
    assert spec.meant(np.array([192], np.uint8)).tolist() == [0.5]
    plain = TensorSpec("x", FLOAT32, (None,))
    assert plain.taken(np.array([0.5])).dtype == np.float32
    assert plain.meant(np.array([0.5])).tolist() == [0.5]


def test_a_scale_goes_from_child_to_parent() -> None:
    scaled = Signature("s", {"x": TensorSpec("x", UINT8, (None,), scale=AROUND)}, dict(SIGNATURE.outputs))
    fd = os.memfd_create("arena")
    os.truncate(fd, 4096)
    arena = Arena(fd)
    found = restore(describe({"s": scaled}, arena), arena, arena.size)
    assert found["s"].inputs["x"].scale == AROUND
    assert found["s"].outputs["y"].scale is None


@pytest.mark.parametrize(
    ("io", "stats", "message"),
    [
        ("uint16", None, "--io is one of float32, uint8, int8, not uint16"),
        ("float32", (128, 128), "--input-stats say what integers stand for: with --io uint8 or int8"),
        ("uint8", (128,), "--input-stats is MEAN,STD"),
        ("uint8", (128, 0), "--input-stats is MEAN,STD"),
        ("uint8", (128, -1), "--input-stats is MEAN,STD"),
        ("uint8", (1.5, 2), "--input-stats is MEAN,STD"),
        ("uint8", (float("nan"), 2), "--input-stats is MEAN,STD"),
        ("uint8", (128, float("inf")), "--input-stats is MEAN,STD"),
        ("int8", (128, 128), "a mean of int8 is from -128 to 127"),
        ("uint8", (-1, 128), "a mean of uint8 is from 0 to 255"),
    ],
)
def test_what_cannot_be_meant_is_refused(io: str, stats: tuple[float, ...] | None, message: str) -> None:
    with pytest.raises(ServingError, match=message) as caught:
        integers_asked(io, stats)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_mean_and_standard_deviation_are_a_scale() -> None:
    assert integers_asked("uint8", (128, 128)) == ("uint8", AROUND)
    assert integers_asked("int8", (-128, 255)) == ("int8", Scale(1 / 255, -128))
    assert integers_asked("uint8", None) == ("uint8", None)
    assert integers_asked("float32", None) == ("float32", None)
    assert same(Scale(float(np.float32(1 / 255)), 3), Scale(1 / 255, 3))
    assert not same(Scale(1 / 255, 4), Scale(1 / 255, 3))
    assert not same(Scale(1 / 254, 3), Scale(1 / 255, 3))


def test_the_showing_ends_the_range_are_shown() -> None:
    first, second, low, high = showing_ends(rows([0.25, 0.5], [-0.9, 1.0]), SIGNATURE, "uint8", AROUND)
    assert first["image"].tolist() == [[0.25, 0.5]]
    assert second["image"].tolist() == [[np.float32(-0.9), 0.9921875]], "1 is beyond, by less than a step"
    assert low["image"].tolist() == [[-1.0, 0.5]]
    assert high["image"].tolist() == [[0.9921875, 0.5]]
    assert low["ids"].tolist() == high["ids"].tolist() == [7]


def test_rows_beyond_the_range_are_refused() -> None:
    showing_ends(rows([0.0, 1.0]), SIGNATURE, "uint8", AROUND)  # by less than a step: rounding
    with pytest.raises(ServingError, match=r"uint8 then stands for -1 to 0\.9922, but image has 0 to 255") as caught:
        showing_ends(rows([0.0, 255.0]), SIGNATURE, "uint8", AROUND)
    assert caught.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(ServingError, match=r"but image has -1\.5 to 0"):
        showing_ends(rows([-1.5, 0.0]), SIGNATURE, "uint8", AROUND)


def test_the_main_signature_takes_something() -> None:
    beginnings = Signature("__saved_model_init_op", {}, {"y": SIGNATURE.outputs["y"]})
    scores = Signature("scores", dict(SIGNATURE.inputs), dict(SIGNATURE.outputs))
    both = {"__saved_model_init_op": beginnings, "scores": scores}
    assert main_signature(both).name == "scores"
    assert main_signature({**both, "serving_default": SIGNATURE}).name == "serving_default"
    assert main_signature({**both, "serving_default": SIGNATURE}, "scores").name == "scores"
    assert main_signature({"__saved_model_init_op": beginnings}).name == "__saved_model_init_op"
