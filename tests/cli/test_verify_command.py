"""``servable verify``: two artifacts asked the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from servable.cli import DONE, FAILED, main
from servable.zoo import catalog


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    catalog.build("text_cnn_small", root, model_name="one")
    catalog.build("text_cnn_small", root, model_name="same")
    catalog.build("text_cnn_small", root, model_name="other", seed=2)
    catalog.build("half_plus_two", root, model_name="half")
    return root


def test_the_same_model_in_another_engine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder / "one"), str(folder / "same"), "--engine", "openvino"]) == DONE
    shown = capsys.readouterr().out
    assert "verified: yes (|d| <= 1e-05 + 0.0001 |reference|)" in shown
    assert "probs" in shown


def test_another_model_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder / "one"), str(folder / "other"), "--json", "--batch", "1,32"]) == FAILED
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert found["max_abs"] > 1e-3
    assert [one["rows"] for one in found["differences"]] == [1, 32]


def test_tolerances_and_data(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "tokens.npz"
    np.savez(data, **catalog.sample_inputs("text_cnn_small", 40, seed=3))  # type: ignore[arg-type]
    words = ["verify", str(folder / "one"), str(folder / "other"), "--data", str(data)]
    assert main([*words, "--rtol", "100", "--atol", "1"]) == DONE
    assert main([*words, "--precision", "half"]) == FAILED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "half"], "nowhere"),
        (["half", "one"], "the new model has no|Inputs expected|takes|input"),
        (["one", "same", "--batch", "0"], "--batch takes sizes from 1 up"),
        (["one", "same", "--signature", "none"], "has no signature 'none'; there are serving_default"),
        (["one", "same", "--data", "nothing.npz"], "nothing.npz"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(["verify", *words]) == FAILED
    error = capsys.readouterr().err
    assert error.startswith("servable verify: ")
    assert len(error.splitlines()) == 1
    assert any(part in error for part in said.split("|"))
