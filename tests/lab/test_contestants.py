"""Who can take part, the environments of peers, and the dialects of those that have one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.environments import find_python, pinned
from servable.core.errors import ServingError
from servable.core.messages import ModelRef
from servable.core.signatures import TensorSpec
from servable.core.tensors import FLOAT32
from servable.lab.contestants import PeerContestant, Revision, parse_contestant
from servable.lab.exchange import Sample
from servable.lab.peers import PEERS, Environment, Peer, Placement
from servable.lab.peers.http_servers import BareRows
from servable.lab.peers.protocol_servers import TfServerRest
from servable.transport.reply import Reply

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def placement(folder: Path, **changes: Any) -> Placement:
    return Placement("m", folder / "model.onnx", folder, (7001, 7002, 7003), threads=2, **changes)


@pytest.mark.parametrize("text", ["", "nginx", "flask --fast", "git:", "'", "ftp://here/m"])
def test_who_is_no_contestant_is_told_who_is(text: str) -> None:
    with pytest.raises(ServingError) as refused:
        parse_contestant(text)
    assert refused.value.message


def test_options_of_ours_are_kept(tmp_path: Path) -> None:
    contestant = parse_contestant("servable --max_batch_rows 8 --note 'a b'")
    assert contestant.label == "servable --max_batch_rows 8 --note 'a b'"
    command = contestant.command(placement(tmp_path))
    assert command is not None
    assert list(command.words[-4:]) == ["--max_batch_rows", "8", "--note", "a b"]
    assert "--tensorflow_intra_op_parallelism=2" in command.words


def test_a_url_runs_already(tmp_path: Path) -> None:
    contestant = parse_contestant("http://127.0.0.1:1/v2/models/m/infer")
    assert contestant.command(placement(tmp_path)) is None
    assert [door.wire for door in contestant.doors(placement(tmp_path))] == ["kserve-rest"]


def test_a_revision_is_exported_and_the_repository_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    repository = tmp_path / "repository"

    def git(*words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        done = subprocess.run(["git", *identity, *words], cwd=repository, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    source = repository / "src" / "package.py"
    source.parent.mkdir(parents=True)
    source.write_text("old")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "old")
    git("tag", "before")
    source.write_text("new")
    revision = Revision("before", ["--workers", "2"], repository)
    revision.prepare(lambda _: None)
    revision.prepare(lambda _: None)
    command = revision.command(placement(tmp_path))
    exported = Path(command.environment["PYTHONPATH"])
    assert (exported / "package.py").read_text() == "old"
    assert source.read_text() == "new"
    assert revision.label == "git:before --workers 2"
    assert revision.versions()["servable"] == "git " + git("rev-parse", "before")[:12]
    with pytest.raises(ServingError, match="there is no revision 'nowhere'"):
        Revision("nowhere", (), repository).prepare(lambda _: None)


class Small(Peer):
    name = "small"
    summary = "nothing at all"
    packages = ()
    python = sys.version_info[:2]

    def __init__(self, requirements: Path) -> None:
        self._requirements = requirements

    @property
    def requirements(self) -> Path:
        return self._requirements


def test_an_environment_is_made_once_and_one_that_fails_is_not_kept(tmp_path: Path) -> None:
    root, wanted = tmp_path / "root", tmp_path / "small.txt"
    wanted.write_text("/nowhere/package.whl\n")
    failing = PeerContestant(Small(wanted))
    failing._environment = Environment(Small(wanted), root)
    with pytest.raises(ServingError, match=r"pip failed: .*(?s:.*)/nowhere/package.whl"):
        failing.prepare(lambda _: None)
    assert not failing._environment.path.exists()
    assert not failing._environment.installed()
    wanted.write_text("# nothing\n")
    said: list[str] = []
    environment = Environment(Small(wanted), root)
    assert environment.path != failing._environment.path
    for _ in range(2):
        environment.install(said.append)
    assert len(said) == 1
    done = subprocess.run([environment.python, "-c", "print(6 * 7)"], check=True, capture_output=True, text=True)
    assert done.stdout == "42\n"


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    class Future(Small):
        python = (3, 99)

    wanted = tmp_path / "small.txt"
    wanted.write_text("")
    with pytest.raises(ServingError, match=r"small needs a Python 3\.99 on PATH or in ~/\.pyenv, and there is none"):
        Environment(Future(wanted), tmp_path).install()
    assert find_python(sys.version_info[:2]) is not None


@pytest.mark.parametrize("name", PEERS)
def test_every_package_of_a_peer_is_pinned(name: str) -> None:
    peer = PEERS[name]
    if peer.requirements is None:
        return
    lines = [line for line in peer.requirements.read_text().splitlines() if line]
    assert len(pinned(peer.requirements)) == len(lines)
    assert set(peer.packages) <= set(pinned(peer.requirements))
    heavy = [line for line in lines if line.startswith(("torch==", "nvidia-cu"))]
    assert not heavy, "no peer needs CUDA or torch to serve an ONNX file"


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_says_how_it_is_started_and_asked(name: str, tmp_path: Path) -> None:
    where = placement(tmp_path, batch_rows=16)
    command = PEERS[name].command(Path("/python"), where)
    assert command.environment["BATCH_ROWS"] == "16"
    assert command.environment["THREADS"] == "2"
    assert command.environment["HOME"] == str(tmp_path), "what it leaves must go with the comparison"
    scripts = [word for word in command.words if word.endswith(".py")]
    assert all(Path(script).is_file() for script in scripts)
    doors = PEERS[name].doors(where)
    assert doors
    assert all(str(door.url).startswith(("http://127.0.0.1:700", "grpc://127.0.0.1:700")) for door in doors)


def test_an_installed_script_of_ours_is_no_tensorflow_model_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tensorflow_model_server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    peer = PEERS["tensorflow_model_server"]
    assert "there is no tensorflow_model_server" in peer.lacking()
    program.write_bytes(b"\x7fELF and so on")
    assert peer.lacking() == ""
    assert peer.command(Path(), placement(tmp_path)).words[0] == str(program)


SPECS = {"y": TensorSpec("y", FLOAT32, (None, 1))}


def test_bare_rows_are_the_only_output() -> None:
    wire = BareRows(ModelRef("m"), b"h", specs=SPECS)
    outputs = wire.outputs(Reply(200, (), b"[[2.5], [3.5]]", ()))
    assert {name: array.tolist() for name, array in outputs.items()} == {"y": [[2.5], [3.5]]}


def test_tfserver_is_asked_by_name_and_answers_in_result() -> None:
    wire = TfServerRest(ModelRef("m"), b"h", specs=SPECS)
    asked = wire.prepare(Sample({"x": np.array([[1.0]], np.float32)}))
    assert asked.head.target == b"/models/m/predict"
    assert json.loads(asked.body) == {"x": [[1.0]]}
    body = b'{"result": {"y": [[2.5]], "y_classes": [["0"]], "y_scores": [[2.5]]}}'
    outputs = wire.outputs(Reply(200, (), body, ()))
    assert {name: array.tolist() for name, array in outputs.items()} == {"y": [[2.5]]}
    with pytest.raises(ServingError, match="no answer of tfserver"):
        wire.outputs(Reply(200, (), b'{"error": 1}', ()))
