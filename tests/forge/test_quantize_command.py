"""``servable quantize`` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.forge import quantize_models as models

from servable.cli import main
from servable.engines.base import Artifact
from servable.forge.artifacts import find_source

ROWS = 100


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return find_source(models.conv_net(tmp_path_factory.mktemp("command") / "conv" / "1" / "model.onnx").parent.parent)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", **models.pictures(ROWS), labels=np.arange(ROWS) % 5)  # type: ignore[arg-type]
    return tmp_path / "data.npz"


def quantize(source: Artifact, out: Path, *words: str) -> int:
    return main(["quantize", str(source.path.parent.parent), str(out), *words])


def test_it_prints_what_it_made(
    source: Artifact, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--int8", "--toolchain", "onnxruntime", "--data", str(data), "--min-agreement", "0.5")
    assert quantize(source, tmp_path / "out", *words) == 0
    said = capsys.readouterr()
    assert f"int8-onnx: {tmp_path}/out/1/model.onnx" in said.out
    assert f"calibrated with: {data}" in said.out
    assert "the same top class as the source:" in said.out
    assert "accuracy: " in said.out
    assert "verified: yes (cosine >= 0.98, the same top class for >= 50 % of rows)" in said.out
    assert "comparing with the source" in said.err
    assert (tmp_path / "out" / "1" / "model.onnx").exists()


def test_json_has_all_of_it(source: Artifact, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantize(source, tmp_path / "small.onnx", "--fp16", "--data", str(data), "--json", "--quiet") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert said.err == ""
    assert document["step"] == "fp16-onnx"
    assert document["bytes_after"] < 0.75 * document["bytes_before"]
    verdict = document["verdict"]
    assert verdict["ok"]
    assert "the same top class for >= 99 % of rows" in verdict["tolerance"], "which 100 rows can tell"
    assert sum(one["asked"] for one in verdict["differences"]) >= ROWS, "all rows are compared"


def test_what_is_not_good_enough_is_a_failure(
    source: Artifact, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (ROWS - 1, ROWS + 1):
        (tmp_path / "labels.txt").write_text("\n".join(["1"] * count))
        words = ("--int8", "--toolchain", "onnxruntime", "--data", str(data))
        assert quantize(source, tmp_path / "out", *words, "--labels", str(tmp_path / "labels.txt")) == 1
        assert f"there are {count} labels for {ROWS} rows of {data}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say one of --fp16, --bf16, --int8-weights, --int4-weights, --int8"),
        (("--fp16", "--int8"), "only"),
        (("--int8", "--max-drop", "1.5"), "--max-drop is a share from 0 to 1, not 1.5"),
        (("--int8", "--min-agreement", "99"), "--min-agreement is a share from 0 to 1"),
        (("--int8", "--samples", "0"), "--samples is 1 or more"),
        (("--int8", "--labels", "x.txt"), "--labels belong to the rows of --data"),
    ],
)
def test_wrong_usage_is_said(
    words: tuple[str, ...], message: str, source: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(source, tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"picture": np.zeros((9, 12, 12, 3), np.float32)}, "has 'picture', which is no input: there are 'image'"),
        (
            {"image": np.zeros((9, 3, 12, 12), np.float32)},
            r"have the shape [3, 12, 12]; the model takes float32[?,12,12,3]",
        ),
        ({"image": np.zeros((3, 12, 12, 3), np.float32)}, "3 rows: too few to calibrate with"),
        ({"image": np.zeros((9, 12, 12, 3), np.uint8)}, "'image' is uint8; the model takes float32"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    arrays: dict[str, np.ndarray],
    message: str,
    source: Artifact,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    words = ("--int8", "--toolchain", "onnxruntime", "--data", str(tmp_path / "data.npz"))
    assert quantize(source, tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_said_before_data_is_read(
    source: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(source, tmp_path / "out", "--bf16", "--data", "nowhere.npz") == 1
    said = capsys.readouterr().err
    assert "no kernels for convolutions and matrix products in bfloat16" in said
    assert "--engine openvino" in said
