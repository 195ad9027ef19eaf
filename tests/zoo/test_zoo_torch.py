"""The example models as torch modules answer as the reference does, which shares nothing with them but the weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import ServingError
from servable.forge.worker import run_apart
from servable.zoo import catalog, keras_builders, torch_builders

pytestmark = pytest.mark.timeout(180)
NAMES = ("half_plus_two", "lstm_tokens", "simple_cnn", "text_cnn_small")
ROWS = (2,)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    root = tmp_path_factory.mktemp("torch_answers")
    words = {"names": list(NAMES), "rows": list(ROWS), "root": str(root)}
    return root, run_apart("tests.zoo.torch_answers:record", words)


@pytest.mark.parametrize(("name", "seed"), [*((name, 1) for name in NAMES), ("text_cnn_small", 2)])
def test_torch_answers_as_the_reference(answered: tuple[Path, dict[str, Any]], name: str, seed: int) -> None:
    for rows in ROWS:
        expected = catalog.reference(name, catalog.sample_inputs(name, rows, seed=rows), seed=seed)
        with np.load(answered[0] / f"{name}-{seed}-{rows}.npz") as found:
            assert set(found) == set(expected)
            for key, value in expected.items():
                np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


def test_examples_are_of_the_catalogs_types(answered: tuple[Path, dict[str, Any]]) -> None:
    for name in NAMES:
        signature = catalog.describe(name).signature
        for key, (dtype, shape) in answered[1][name].items():
            spec = signature.inputs[key]
            assert dtype == f"torch.{spec.dtype}"
            assert shape[1:] == list(spec.shape or ())[1:]


def test_what_is_not_written_in_a_framework_is_named() -> None:
    for builders in (torch_builders, keras_builders):
        with pytest.raises(ServingError, match=r"no example model 'noop' is written in (torch|Keras); there are half"):
            builders.build("noop", {})
