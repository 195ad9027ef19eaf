"""Both sizes are really made, by every library, and height and width are not mixed up."""

from __future__ import annotations

import importlib.util
import json
from types import MappingProxyType

import numpy as np
import pytest

from servable.cli import main
from servable.core.errors import ServingError
from servable.core.tensors import Array
from servable.preprocess import resize_benchmark as benchmark

IN_PROCESS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(importlib.util.find_spec(module.partition(".")[0]) is None, reason="not installed"),
    )
    for name, (module, _) in benchmark.NATIVE.items()
    if name not in {"tensorflow", "keras"}
]


def test_the_image_is_wide_and_always_the_same() -> None:
    image = benchmark.random_image(*benchmark.IMAGE)
    assert image.shape == (768, 1024, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, benchmark.random_image(768, 1024, seed=42))


@pytest.mark.parametrize("library", IN_PROCESS)
def test_both_sizes_are_made(library: str) -> None:
    found = benchmark.measure(library, (48, 64), (20, 30), runs=3)
    manners = {benchmark.ONE_MEANING} if library == "numpy" else {benchmark.OWN, benchmark.ONE_MEANING}
    assert {(one.manner, one.size, one.width, one.height) for one in found} == {
        (manner, size, width, height)
        for manner in manners
        for size, width, height in (("var size", 30, 20), ("same size", 64, 48))
    }
    assert all(len(one.seconds) == 3 for one in found)
    assert all(one.difference < 1 for one in found if one.manner == benchmark.ONE_MEANING), "rounding alone"


def test_sizes_that_are_mixed_up_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(_library: object, image: Array, height: int, width: int) -> Array:
        return np.zeros((width, height, 3), image.dtype)

    monkeypatch.setattr(benchmark, "NATIVE", MappingProxyType({"turned": ("numpy", turned)}))
    with pytest.raises(ServingError, match=r"turned made \[30, 20, 3\] of what was to be \[20, 30, 3\]"):
        benchmark.measure("turned", (48, 64), (20, 30), runs=1)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "resize", "--library", "numpy", "--image", "64x48", "--size", "30x20", "--runs", "2", "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["image"] == [48, 64]
    assert [(one["size"], one["width"], one["height"]) for one in document["timings"]] == [
        ("var size", 30, 20), ("same size", 64, 48),
    ]  # fmt: skip
    assert main(["bench", "resize", "--size", "360"]) == 1
    assert "--size '360' is no size: expected WIDTHxHEIGHT" in capsys.readouterr().err
