"""The commands that a person types, against artifacts on disk and against a live server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable.cli import DONE, FAILED, WRONG_USAGE, main
from servable.zoo import catalog

Run = Callable[..., tuple[int, str, str]]
NAME = "text_cnn"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: its exit code and what it printed."""

    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture(params=["artifact", "grpc", "rest"])
def target(request: pytest.FixtureRequest, server: ServerProcess, models: LiveModels) -> str:
    """The same model in three places."""
    places = {
        "artifact": str(models.onnx(NAME)),
        "grpc": f"{server.grpc_url}/{NAME}",
        "rest": f"{server.rest_url}/{NAME}",
    }
    return places[request.param]


# -- inspect -----------------------------------------------------------------------------------------------------------


def test_inspect(run: Run, target: str) -> None:
    code, out, _ = run("inspect", target)
    assert code == DONE
    for text in ("serving_default", "input_ids", "int64", "[?, 500]", "probs", "float32", "[?, 3]"):
        assert text in out


def test_inspect_as_json(run: Run, target: str) -> None:
    code, out, _ = run("inspect", target, "--json")
    assert code == DONE
    found = json.loads(out)["signatures"]["serving_default"]
    assert found["inputs"]["input_ids"] == {"dtype": "int64", "shape": [None, 500], "node": "input_ids"}
    assert found["outputs"].keys() == {"labels", "probs"}


def test_inspect_says_which_engine_and_why(run: Run, models: LiveModels) -> None:
    code, out, _ = run("inspect", models.onnx("half_plus_two"), "--json")
    found = json.loads(out)
    assert code == DONE
    assert (found["kind"], found["engine"], found["precision"]) == ("onnx", "onnxruntime", "f32")
    assert found["reason"] == "the reference runtime for ONNX"
    assert found["also"]["openvino"] == "holds it"
    assert "does not read onnx artifacts" in found["also"]["tensorflow"]


def test_inspect_what_is_not_there(run: Run, server: ServerProcess, tmp_path: Path) -> None:
    for target, text in (
        (tmp_path / "none", "does not exist"),
        (f"{server.grpc_url}/nonesuch", "Servable not found for request: Latest(nonesuch)"),
        (server.grpc_url, "names no model"),
        ("ftp://host/model", "ftp"),
        (f"grpc://unix:{tmp_path}/none/model", str(tmp_path)),
    ):
        code, out, err = run("inspect", target)
        assert (code, out) == (FAILED, "")
        assert err.startswith("servable inspect: ")
        assert text in err
        assert err.count("\n") == 1


# -- predict -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def inputs() -> dict[str, Any]:
    return catalog.sample_inputs(NAME, 2, seed=4)


def assert_right(outputs: dict[str, Any], inputs: dict[str, Any]) -> None:
    right = catalog.reference(NAME, inputs)
    assert outputs.keys() == right.keys()
    assert np.asarray(outputs["labels"]).tolist() == right["labels"].tolist()
    np.testing.assert_allclose(outputs["probs"], right["probs"], rtol=1e-4, atol=1e-5)


def test_predict_with_an_npz_file(run: Run, target: str, inputs: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **inputs)
    code, out, _ = run("predict", target, "--data", tmp_path / "in.npz", "--json", "--out", tmp_path / "out.npz")
    assert code == DONE
    assert_right(json.loads(out)["outputs"], inputs)
    with np.load(tmp_path / "out.npz") as written:
        assert written["labels"].dtype == np.int64
        assert_right(dict(written), inputs)


def test_predict_with_a_file_for_each_input(run: Run, target: str, inputs: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", inputs["input_ids"])
    for name in ("e1_mas", "e2_mas"):
        (tmp_path / f"{name}.json").write_text(json.dumps(inputs[name].tolist()))
    words = [f"{name}=@{tmp_path}/{name}.json" for name in ("e1_mas", "e2_mas")]
    code, out, _ = run("predict", target, f"input_ids=@{tmp_path}/ids.npy", *words, "--json")
    assert code == DONE
    assert_right(json.loads(out)["outputs"], inputs)


def test_predict_with_json_and_some_outputs(run: Run, target: str, inputs: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({name: array.tolist() for name, array in inputs.items()}))
    code, out, _ = run("predict", target, "--data", tmp_path / "in.json", "--outputs", "labels", "--json")
    assert code == DONE
    assert json.loads(out) == {"outputs": {"labels": catalog.reference(NAME, inputs)["labels"].tolist()}}


def test_predict_as_a_table(run: Run, server: ServerProcess) -> None:
    code, out, _ = run("predict", f"{server.grpc_url}/half_plus_two", "x=[[1.0], [2.0]]")
    assert code == DONE
    for text in ("y", "float32", "[2, 1]", "[[2.5]", "[3. ]]"):
        assert text in out


def test_predict_one_input_from_npy(run: Run, server: ServerProcess, models: LiveModels, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[4.0]], np.float32))
    for target in (f"{server.rest_url}/half_plus_two", models.onnx("half_plus_two")):
        code, out, _ = run("predict", target, f"x=@{tmp_path}/x.npy", "--json")
        assert (code, json.loads(out)) == (DONE, {"outputs": {"y": [[4.0]]}})


def test_predict_that_cannot_be(run: Run, server: ServerProcess, models: LiveModels, tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    (tmp_path / "bad.json").write_text("{")
    served, local = f"{server.grpc_url}/half_plus_two", models.onnx("half_plus_two")
    for words, text in (
        ([served], "there are no inputs: give NAME=VALUE or --data FILE"),
        ([served, "x"], "'x' is no input: expected NAME=VALUE"),
        ([served, "x=["], "input x is no JSON"),
        ([served, "x=[[1.0], [1.0, 2.0]]"], "input 'x' is no tensor"),
        ([served, 'x=["a"]'], "input 'x' is no tensor"),
        ([served, "x=@none.npy"], "cannot read none.npy"),
        ([served, f"x=@{tmp_path}/bad.npy"], "bad.npy is no array file"),
        ([served, f"x=@{tmp_path}/bad.json"], "bad.json is no JSON"),
        ([served, "--data", tmp_path / "none.npz"], "none.npz"),
        ([served, "z=[[1.0]]"], "Signature input alias: x"),
        ([local, "z=[[1.0]]"], "Signature input alias: x"),
        ([served, "x=[[1.0]]", "--version", "9"], "Specific(half_plus_two, 9)"),
        ([local, "x=[[1.0]]", "--version", "9"], "has no version 9; there are 1"),
        ([local, "x=[[1.0]]", "--signature", "nonesuch"], 'Serving signature key "nonesuch" not found.'),
        ([local, "x=[[1.0]]", "--engine", "nonesuch"], "no engine is called 'nonesuch'"),
        ([served, "x=[[1.0]]", "--outputs", "z"], "output tensor alias not found in signature: z"),
    ):
        code, out, err = run("predict", *words)
        assert (code, out) == (FAILED, ""), words
        assert text in err, words
        assert err.startswith("servable predict: ")
        assert "Traceback" not in err


def test_predict_over_a_socket(
    run: Run, serve: Callable[..., ServerProcess], models: LiveModels, tmp_path: Path
) -> None:
    serve(models.onnx("half_plus_two"), "--listen", f"unix:{tmp_path}/socket").ready()
    for scheme in ("grpc", "http"):
        code, out, _ = run("predict", f"{scheme}://unix:{tmp_path}/socket/half_plus_two", "x=[[1.0]]", "--json")
        assert (code, json.loads(out)) == (DONE, {"outputs": {"y": [[2.5]]}})
        assert run("status", f"{scheme}://unix:{tmp_path}/socket")[0] == DONE


# -- status ------------------------------------------------------------------------------------------------------------


def test_status(run: Run, server: ServerProcess) -> None:
    for url in (server.rest_url, server.grpc_url):
        code, out, _ = run("status", url)
        assert code == DONE
        lines = [line.split() for line in out.splitlines()]
        assert ["half_plus_two", "1", "AVAILABLE", "onnxruntime", "f32"] in [words[:5] for words in lines]
        assert ["echo", "1", "AVAILABLE"] in [words[:3] for words in lines]


def test_status_as_json(run: Run, server: ServerProcess) -> None:
    code, out, _ = run("status", server.rest_url, "half_plus_two", "--json")
    assert code == DONE
    assert "half_plus_two" in out
    assert "echo" not in out
    assert "AVAILABLE" in json.dumps(json.loads(out))


def test_status_of_what_is_not_there(run: Run, server: ServerProcess, tmp_path: Path) -> None:
    code, out, err = run("status", server.rest_url, "nonesuch")
    assert (code, out) == (FAILED, "")
    assert "no model is called 'nonesuch'; there are " in err
    code, out, err = run("status", f"http://unix:{tmp_path}/none")
    assert (code, out) == (FAILED, "")
    assert str(tmp_path) in err


def test_status_fails_when_a_model_is_not_available(
    run: Run, serve: Callable[..., ServerProcess], models: LiveModels, tmp_path: Path
) -> None:
    """For scripts: exit code 1, and the reason in the table."""
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"\x08")
    server = serve(models.onnx("half_plus_two"), tmp_path / "bad", "--file_system_poll_wait_seconds=0").ready()
    code, out, _ = run("status", server.rest_url)
    assert code == FAILED
    assert re.search(r"bad +1 +END .*DATA_LOSS", out)
    assert run("status", server.rest_url, "half_plus_two")[0] == DONE


# -- example, and the command itself -----------------------------------------------------------------------------------


def test_example(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("example", "list", "--json")
    assert code == DONE
    assert set(json.loads(out)) == set(catalog.names())
    code, out, _ = run("example", "build", "half_plus_two", "--out", tmp_path, "--name", "half", "--version", "3")
    assert code == DONE
    assert Path(out.strip()) == tmp_path / "half" / "3"
    code, out, _ = run("predict", tmp_path / "half", "x=[[1.0]]", "--json")
    assert json.loads(out) == {"outputs": {"y": [[2.5]]}}
    code, _, err = run("example", "build", "half_plus_two", "--out", tmp_path, "--name", "half", "--version", "3")
    assert code == FAILED
    assert "is there already" in err
    code, _, err = run("example", "build", "nonesuch", "--out", tmp_path)
    assert code == FAILED
    assert "half_plus_two" in err, "those that exist are named"


def test_wrong_usage(run: Run) -> None:
    for words in (["nonesuch"], ["predict"], ["inspect", "x", "--nonesuch"], ["example"], []):
        code, out, err = run(*words)
        assert (code, out) == (WRONG_USAGE, "")
        assert "usage: servable" in err


def test_the_program_itself(server: ServerProcess) -> None:
    def program(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "servable", *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)

    done = program("predict", f"{server.grpc_url}/half_plus_two", "x=[[1.0]]", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (DONE, '{"outputs":{"y":[[2.5]]}}\n', "")
    failed = program("predict", f"{server.grpc_url}/nonesuch", "x=[[1.0]]")
    assert failed.returncode == FAILED
    assert failed.stderr == "servable predict: Servable not found for request: Latest(nonesuch)\n"
    version = program("--version")
    assert re.fullmatch(r"servable \d+\.\d+\.\d+\S*\n", version.stdout)
    helped = program("--help")
    assert helped.returncode == DONE
    for command in ("serve", "inspect", "predict", "status", "example"):
        assert re.search(rf"^    {command} ", helped.stdout, re.MULTILINE)
