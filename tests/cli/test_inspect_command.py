"""``servable inspect`` as people call it: what it prints, as text and as JSON, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from servable.cli import DONE, FAILED, main

MODELS = Path(__file__).parent.parent / "forge" / "inspect_models"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["inspect", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (DONE, "")
    return json.loads(out)


def test_reading_alone_tells_signatures_parameters_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, MODELS / "pictures.pb", "--no-engines")
    assert code == DONE
    for text in (
        "kind: graph_def",
        "note: image is taken as [1, 16, 16, 3] (a batch of one); declared is float32[?,16,16,3]",
        "float32",
        "498",
        "serving_default: operations",
        "DepthwiseConv2dNative",
    ):
        assert text in out


def test_what_initializes_a_model_is_no_signature_to_call(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, MODELS / "tokens", "--no-engines")
    assert code == DONE
    assert "classify" in out
    assert "__saved_model_init_op" not in out


def test_every_operation_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, MODELS / "pictures.pt2", "--no-engines", "--ops")
    (line,) = [line for line in out.splitlines() if "first/conv2d " in line]
    assert line.split()[:3] == ["first/conv2d", "conv2d", "x,"]
    assert "float32 [1, 8, 16, 16]" in line
    assert "113 k" in line


def test_json_has_the_same_figures_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, MODELS / "pictures.pt2", "--no-engines", "--ops", "--shape", "x=2,3,16,16")
    graph = found["graphs"]["serving_default"]
    assert found["parameters"]["by_dtype"]["float32"]["tensors"] == 10
    assert graph["uncounted"] == 0
    assert (
        graph["flops"] == sum(node["flops"] for node in graph["nodes"]) == sum(row["flops"] for row in graph["types"])
    )
    first = next(node for node in graph["nodes"] if node["name"] == "first/conv2d")
    assert first["multiply_adds"] == 2 * 16 * 16 * 8 * 27
    assert first["outputs"] == [{"name": "conv2d", "dtype": "float32", "shape": [2, 8, 16, 16]}]
    assert first["attributes"]["padding"] == [1, 1]


def test_signatures_that_compute_the_same_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, MODELS / "tokens", "--no-engines")
    assert "serving_default computes what classify does" in out
    assert out.count("MatMul") == 1
    assert "runs its body 20 times" in out


def test_a_version_of_a_model_is_found_in_its_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(MODELS / "tokens", tmp_path / "model" / "3")
    found = as_json(capsys, tmp_path / "model", "--no-engines")
    assert (found["kind"], found["artifact"]) == ("saved_model", str(tmp_path / "model" / "3"))


def test_a_source_that_no_engine_reads_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("h5py")
    found = as_json(capsys, MODELS / "pictures.keras")
    assert (found["engine"], found["reason"]) == (None, "servable export makes an artifact of it that engines load")


def test_pictures_are_written_where_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("--no-engines", "--tensorboard", tmp_path / "logs", "--html", tmp_path / "graph.html")
    found = as_json(capsys, MODELS / "pictures.pb", *words)
    assert (found["tensorboard"], found["html"]) == (str(tmp_path / "logs"), str(tmp_path / "graph.html"))
    assert list((tmp_path / "logs" / "graph").glob("events.out.tfevents.*"))
    assert (tmp_path / "graph.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["pictures.pb", "--shape", "image"], "--shape image: expected NAME=SIZE,SIZE, like tokens=1,50"),
        (["pictures.pb", "--shape", "x=1"], "there is no input 'x'; there are image"),
        (["pictures.pb", "--html", "/no/such/folder/graph.html"], "cannot be written"),
        (["nothing.keras"], "nothing.keras"),
        (["../inspect_models/pictures.unknown"], "pictures.unknown"),
    ],
)
def test_refusals_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], text: str) -> None:
    code, out, err = run(capsys, MODELS / words[0], *words[1:], "--no-engines")
    assert (code, out) == (FAILED, "")
    assert err.startswith("servable inspect: ")
    assert text in err
    assert err.count("\n") == 1


def test_a_server_has_no_graph(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "grpc://127.0.0.1:1/model", "--ops")
    assert (code, err) == (
        FAILED,
        "servable inspect: --ops needs the artifact: a server tells its signatures only\n",
    )
