"""``servable bench compare`` and ``servable bench peers`` as a person types them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servable.cli import main
from servable.lab.contestants import PeerContestant
from servable.lab.peers import PEERS, Environment

RIVAL = Path(__file__).parent.parent / "lab" / "rival.py"
QUICK = ("--seconds", "0.2", "--warmup", "0.05", "--rounds", "1", "--concurrency", "2", "--quiet")


@contextlib.contextmanager
def rival() -> Iterator[str]:
    """A server that runs already."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(RIVAL), str(port), "none"])
    try:
        yield f"http://127.0.0.1:{port}/half_plus_two"
    finally:
        process.kill()
        process.wait()


def test_ours_is_compared_with_a_server_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, kept = tmp_path / "page.html", tmp_path / "kept.json"
    with rival() as url:
        words = ["bench", "compare", "servable --enable_batching=false", url, "--model", "half_plus_two", *QUICK]
        assert main([*words, "--out", str(page), "--out", str(kept)]) == 0
    printed = capsys.readouterr().out
    assert "half_plus_two: servable --enable_batching=false against http://127.0.0.1" in printed
    assert page.read_text().startswith("<!DOCTYPE html>")
    rows = json.loads(kept.read_text())["rows"]
    assert [(row["contestant"].split()[0][:8], row["protocol"]) for row in rows] == [
        ("servable", "gRPC"), ("servable", "REST"), ("http://1", "REST"),
    ]  # fmt: skip
    assert all(row["throughput_per_s"]["value"] > 0 for row in rows)
    assert rows[0]["cpu_us_per_request"]["value"] > 0
    assert rows[2]["cpu_us_per_request"] is None, "nothing is known of a server that was there before"
    assert main(["bench", "table", str(kept), "--format", "csv"]) == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["servable"], "--model says what to serve"),
        (["nginx", "--model", "noop"], "'nginx' is no contestant"),
        (["servable", "servable", "--model", "noop"], "takes part once"),
        (["servable", "--model", "noop", "--rounds", "0"], "--rounds must be above 0"),
        (["servable", "--model", "noop", "--concurrency", "0"], "--concurrency '0'"),
        (["servable", "--model", "noop", "--server-cores", "4096", "--client-cores", "0"], "core"),
        (["servable", "--model", "noop", "--data", "x.npz"], "brings its own data"),
        (["servable", "--model", "/nowhere/model"], "/nowhere/model"),
    ],
)
def test_what_cannot_be_compared_is_said(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "compare", *words]) == 1
    assert problem in capsys.readouterr().err


def test_peers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in PEERS)
    assert main(["bench", "peers", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in listed} == set(PEERS)
    assert all(one["versions"] for one in listed if one["environment"])


def test_a_peer_that_does_not_exist_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", "install", "nginx"]) == 1
    assert "'nginx' is no peer: there are flask" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["flask", "grpcio"])
def test_an_installed_peer_answers_rightly(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Environment(PEERS[name]).installed():
        pytest.skip(f"{name} is not installed: servable bench peers install {name}")
    assert PeerContestant(PEERS[name]).versions()["onnxruntime"]
    kept = tmp_path / "kept.json"
    assert main(["bench", "compare", name, "--model", "half_plus_two", *QUICK, "--out", str(kept)]) == 0
    (row,) = json.loads(kept.read_text())["rows"]
    assert row["reason"] == ""
    assert row["blocks"][0]["verified"] >= row["blocks"][0]["ok"] > 0
    capsys.readouterr()
