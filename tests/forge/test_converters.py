"""Converters in environments of their own: asked for by a person, made whole or not at all, told what to do in JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.cli import main
from servable.core import environments
from servable.core.errors import Code, ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32
from servable.engines.base import Artifact
from servable.engines.plan import find_artifact
from servable.engines.signature_settings import write_signature_settings
from servable.forge.conversion import converters
from servable.forge.conversion.steps import step_between
from servable.forge.conversion.torch_to_tflite import rows_of, sizes
from servable.forge.steps import Task
from servable.forge.workshop import open_model, perform

NAME = "litert-torch"
CONVERT = "servable.forge.conversion.within_litert_torch:convert"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
REASON = converters.missing(NAME)
real = pytest.mark.skipif(
    bool(REASON) or importlib.util.find_spec("torch") is None, reason=REASON or "torch is missing"
)

STAND_IN_TORCH = """
import types
class Module:
    def __init__(self): self.training = True
    def __call__(self, *a, **k): return self.forward(*a, **k)
nn = types.SimpleNamespace(Module=Module)
class Program:
    example_inputs = (("first", "second"), {})
    def module(self): return lambda *given: {"given": list(given)}
export = types.SimpleNamespace(load=lambda path: Program())
"""
STAND_IN_CONVERTER = """
import json, pathlib
class Converter:
    def signature(self, name, module, arguments, named):
        self.told = {"name": name, "training": module.training, "arguments": arguments, "named": named}
        self.told["answer"] = module(**dict(reversed(named.items())))
        return self
    def convert(self, **options):
        if self.told["name"] == "broken":
            raise ValueError("no such operation\\n\\nand a long trace of a graph")
        self.told["options"] = options
        return self
    def export(self, path):
        pathlib.Path(path).write_text(json.dumps(self.told))
"""


NETWORK = """
import torch

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 6)
        self.body = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU())

    def forward(self, x, ids):
        return {"probs": torch.softmax(self.body(x + self.embedding(ids).mean(dim=1)), dim=1), "sums": ids.sum(dim=1)}

def network():
    return Network(), {"x": torch.zeros(1, 6), "ids": torch.zeros(1, 4, dtype=torch.int64)}
"""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a user with nothing installed, for whom the list of packages is empty."""
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / f"{NAME}.txt").write_text(f"# {NAME}==0.10.0\n")
    monkeypatch.setattr(converters, "_REQUIREMENTS", lists)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def line(folder: Path) -> Artifact:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")],
    )
    path = folder / "line.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return Artifact("onnx", path)


@needs_torch
def test_what_is_not_installed_is_one_line_with_the_command_and_its_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "made"

    assert main(["convert", str(line(tmp_path).path), str(made), "--to", "tflite", "--quiet"]) == 1

    said = capsys.readouterr().err
    assert "servable converters install litert-torch (downloads 240 MB, keeps 1060 MB)" in said
    assert said.count("\n") == 1
    assert not [*made.glob("*")]
    assert not list(tmp_path.glob("cache/servable/converters*")), "nothing is installed that nobody asked for"


def test_a_converter_is_installed_once_and_listed(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def listed() -> dict[str, Any]:
        assert main(["converters", "list", "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)[0]
        return found

    assert listed()["state"] == "not installed"
    assert main(["converters", "install", NAME]) == 0
    assert "downloading 240 MB" in capsys.readouterr().err
    found = listed()
    assert (found["state"], found["version"]) == ("installed", "0.10.0")
    assert Path(found["environment"]).is_relative_to(empty / "cache")
    assert main(["converters", "install", NAME]) == 0
    assert "downloading" not in capsys.readouterr().err
    assert converters.missing(NAME) == ""
    assert main(["converters", "install", "onnx2torch"]) == 1
    assert "is no converter: there are litert-torch" in capsys.readouterr().err


def test_what_was_interrupted_is_not_there(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = converters.converter_named(NAME).environment()
    ran: list[str] = []

    def interrupted(command: list[str], what: str, lock: int) -> None:
        ran.append(what)
        environment.path.mkdir(exist_ok=True)
        (environment.path / "half").touch()
        if what == "pip":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(environments, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            environment.install()
    assert ran == ["making the environment", "pip"]
    assert not environment.path.exists()

    # What was killed outright clears up nothing: its folder has no mark, and goes when the next one begins.
    environment.path.mkdir()
    (environment.path / "half").touch()
    assert not environment.installed()
    environment.install()
    assert environment.installed()
    assert not (environment.path / "half").exists()


def test_a_second_one_waits_for_what_is_left_of_a_first_that_was_killed(empty: Path) -> None:
    environment = converters.converter_named(NAME).environment()
    environment.path.parent.mkdir(parents=True)
    lock, written = environment.path.with_suffix(".lock"), empty / "pid"
    with environments._locked(lock) as held:
        environments._run(["sh", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {written}"], "a child", held)
    try:
        taken = subprocess.run(["flock", "-n", str(lock), "true"], check=False)
        assert taken.returncode == 1, "the child of who was killed still works in there"
    finally:
        os.kill(int(written.read_text()), signal.SIGKILL)
    environment.install()
    assert environment.installed()


def test_a_place_that_cannot_be_written_is_named(empty: Path) -> None:
    (empty / "cache").write_text("a file")
    with pytest.raises(ServingError, match=r"cannot install litert-torch into .*/cache/servable/converters") as refused:
        converters.converter_named(NAME).environment().install()
    assert refused.value.code == Code.FAILED_PRECONDITION


def test_the_process_in_the_environment_has_its_own_packages_and_is_told_names(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = converters.converter_named(NAME).environment()
    environment.install()
    packages = next(environment.path.glob("lib/python*/site-packages"))
    (packages / "torch.py").write_text(STAND_IN_TORCH)
    (packages / "litert_torch" / "_convert").mkdir(parents=True)
    (packages / "litert_torch" / "_convert" / "interface.py").write_text(STAND_IN_CONVERTER)
    shadow = empty / "shadow"
    shadow.mkdir()
    (shadow / "torch.py").write_text("raise RuntimeError('not the environment\\'s own')\n")
    monkeypatch.setenv("PYTHONPATH", str(shadow))
    monkeypatch.chdir(shadow)
    target, said = empty / "model.tflite", list[str]()
    order = {"program": "program.pt2", "target": str(target), "signature": "predict", "inputs": ["b", "a"]}

    converters.run_in(NAME, CONVERT, order, said.append)

    told = json.loads(target.read_text())
    assert said == ["converting by litert-torch"]
    assert told["named"] == {"b": "first", "a": "second"}
    assert told["answer"] == {"given": ["first", "second"]}, "in the order of the program, whatever that of the names"
    assert (told["name"], told["training"], told["arguments"]) == ("predict", False, [])
    assert told["options"] == {"strict_export": False, "enable_x64": True}
    with pytest.raises(
        ServingError, match=r"^FAILED_PRECONDITION: litert-torch cannot translate it: no such operation$"
    ):
        converters.run_in(NAME, CONVERT, {**order, "signature": "broken"}, said.append)


def test_sizes_are_fixed_by_the_rows_that_were_asked_for() -> None:
    assert rows_of(Task()) == 1
    assert rows_of(Task(options={"batch": 4})) == 4
    assert sizes("onnx", TensorSpec("x", FLOAT32, (None, 3)), 4) == (4, 3)
    assert sizes("onnx", TensorSpec("x", FLOAT32, (2, 3)), 4) == (2, 3)
    for shape in ((None, None), None):
        with pytest.raises(ServingError, match=r"onnx to tflite: input .* has free sizes beside its rows"):
            sizes("onnx", TensorSpec("x", FLOAT32, shape), 1)


@real
@pytest.mark.timeout(240)
def test_onnx_becomes_tflite_that_takes_any_number_of_rows(tmp_path: Path) -> None:
    version = tmp_path / "onnx" / "1"
    version.mkdir(parents=True)
    line(tmp_path).path.rename(version / "model.onnx")
    served = {"x": TensorSpec("x", FLOAT32, (None, 3))}, {"sums": TensorSpec("sums", FLOAT32, (None, 2), "y")}
    write_signature_settings(version / "servable.toml", {"predict": Signature("predict", *served)})
    outcome = perform(
        step_between("onnx", "tflite"), find_artifact(version), tmp_path / "line", options={"batch": 2}, batches=(1, 5)
    )

    assert outcome.verdict.ok
    assert outcome.facts["notes"] == ["takes any number of rows, in blocks of 2 (--batch N; servable.toml)"]
    model = open_model(outcome.artifact)
    assert str(model.signatures["serving_default"]) == "serving_default(x: float32[?,3]) -> y: float32[?,2]"
    assert str(model.signatures["predict"]) == "predict(x: float32[?,3]) -> sums: float32[?,2]"
    x = np.ones((5, 3), np.float32)
    assert model.run("predict", {"x": x}, ["sums"])["sums"].tolist() == [[6.0, 9.0]] * 5
    model.close()


@real
@pytest.mark.timeout(240)
def test_torch_becomes_tflite_with_its_names_and_64_bits(tmp_path: Path) -> None:
    code = tmp_path / "network.py"
    code.write_text(NETWORK)
    outcome = perform(
        step_between("checkpoint", "tflite"),
        Artifact("checkpoint", code),
        tmp_path / "network",
        options={"code": f"{code}:network", "signature": "predict"},
        batches=(1, 3),
    )

    assert outcome.verdict.ok
    model = open_model(outcome.artifact)
    assert set(model.signatures) == {"predict", "serving_default"}
    found = model.signatures["predict"]
    assert {key: str(spec) for key, spec in found.inputs.items()} == {"x": "float32[?,6]", "ids": "int64[?,4]"}
    assert {key: str(spec) for key, spec in found.outputs.items()} == {"probs": "float32[?,8]", "sums": "int64[?]"}
    model.close()
