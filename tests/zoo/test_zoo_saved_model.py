"""The example models as SavedModels, asked by TensorFlow itself in one child process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from servable.core.tensors import Array
from servable.zoo import catalog

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]
ROWS = (1, 3, 16)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved_models")
    program = Path(__file__).with_name("saved_model_answers.py")
    done = subprocess.run(
        [sys.executable, str(program), str(root), *map(str, ROWS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return root


def answers(root: Path, name: str, rows: int, version: int = 1) -> dict[str, Array]:
    with np.load(root / f"{name}-{version}-{rows}.npz") as stored:
        return dict(stored)


@pytest.mark.parametrize("name", catalog.names(quick=True))
def test_tensorflow_answers_as_the_reference_at_every_batch_size(answered: Path, name: str) -> None:
    for rows in ROWS:
        expected = catalog.reference(name, catalog.sample_inputs(name, rows, seed=rows))
        got = answers(answered, name, rows)
        assert set(got) == set(expected)
        for key, want in expected.items():
            assert got[key].dtype == want.dtype
            assert got[key].shape == want.shape
            np.testing.assert_allclose(got[key], want, rtol=1e-4, atol=1e-5, err_msg=f"{name}.{key}, {rows} rows")


@pytest.mark.parametrize("name", catalog.names(quick=True))
def test_saved_signatures_are_those_of_the_catalog(answered: Path, name: str) -> None:
    found = json.loads((answered / "signatures.json").read_text())[name]
    signature = catalog.describe(name).signature
    assert found["main"]
    assert found["signatures"] == ["serving_default"]
    for kind, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        assert found[kind] == {key: [spec.dtype.name, list(spec.shape or ())] for key, spec in specs.items()}


def test_another_seed_gives_another_saved_model(answered: Path) -> None:
    inputs = catalog.sample_inputs("text_cnn_small", 3, seed=3)
    other = answers(answered, "text_cnn_small", 3, version=2)["probs"]
    np.testing.assert_allclose(
        other, catalog.reference("text_cnn_small", inputs, seed=2)["probs"], rtol=1e-4, atol=1e-5
    )
    assert float(np.abs(other - answers(answered, "text_cnn_small", 3)["probs"]).max()) > 1e-2
