"""``servable bench URL`` against a live server, as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.certificates import Authority, needs_openssl
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable.cli import main
from servable.lab.result import Result, read

QUICK = ("--warmup", "0", "--quiet")


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Result, str]]:
    def run(*words: object) -> tuple[int, Result, str]:
        out = tmp_path / "result.json"
        load = () if {"--rate", "--concurrency", "--slo", "--scenario"} & set(words) else ("--concurrency", "1")
        code = main(["bench", *map(str, words), *load, *QUICK, "--out", str(out)])
        return code, read(out), capsys.readouterr().out

    return run


@pytest.mark.parametrize("over", ["grpc", "http"])
def test_made_up_requests_are_verified_against_a_reference_server(server: ServerProcess, bench: Any, over: str) -> None:
    url = f"{over}://{server.address}/half_plus_two"
    other = f"{'http' if over == 'grpc' else 'grpc'}://{server.address}/half_plus_two"
    code, result, shown = bench(url, "--count", 50, "--concurrency", "1,4", "--expect", other, "--batch", 3)
    assert code == 0
    assert (result.ok, result.errors, result.wrong) == (100, 0, 0)
    assert [step.concurrency for step in result.steps] == [1, 4]
    assert [step.verified for step in result.steps] == [50, 50]
    assert result.steps[0].batch == 3
    assert result.steps[0].server is not None, "who listens on this machine is found"
    assert result.steps[0].server.rss_bytes > 10_000_000
    assert result.target.wire == ("tfserving-grpc" if over == "grpc" else "tfserving-rest")
    assert result.command[0] == "servable"
    assert result.machine.cores >= 1
    assert "4 in flight" in shown


def test_answers_from_a_file_find_a_model_that_answers_wrongly(
    server: ServerProcess, bench: Any, tmp_path: Path
) -> None:
    x = np.arange(6, dtype=np.float32).reshape(6, 1)
    right = x / 2 + 2
    right[3] += 1
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "y.npz", y=right)
    data = ("--data", tmp_path / "x.npz", "--expect", tmp_path / "y.npz")
    code, result, _ = bench(f"grpc://{server.address}/half_plus_two", "--count", 60, *data)
    assert (result.ok, result.wrong) == (50, 10)
    assert code == 0
    right[:] = 0
    np.savez(tmp_path / "y.npz", y=right)
    code, result, _ = bench(f"http://{server.address}/half_plus_two", "--count", 12, *data)
    assert (code, result.ok, result.wrong) == (1, 0, 12)


def test_errors_are_reported_with_the_servers_words(server: ServerProcess, bench: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x=np.zeros((2, 3), np.float64))
    code, result, shown = bench(f"grpc://{server.address}/half_plus_two", "--count", 6, "--data", tmp_path / "bad.npz")
    assert (code, result.ok, result.errors) == (1, 0, 6)
    assert result.steps[0].error_kinds[0].code == "INVALID_ARGUMENT"
    assert "INVALID_ARGUMENT" in shown


def test_an_open_loop_keeps_its_rate_and_an_objective_its_exit_code(server: ServerProcess, bench: Any) -> None:
    url = f"grpc://{server.address}/half_plus_two"
    code, result, _ = bench(url, "--rate", 100, "--duration", 0.5, "--slo", "p50=20s")
    (step,) = result.steps
    assert code == 0
    assert step.slo_held is True
    assert 20 <= step.ok + step.unfinished <= 85, "50 a second, as chance has it"
    code, result, _ = bench(url, "--rate", 50, "--duration", 0.5, "--arrivals", "constant", "--slo", "p50=1us")
    assert code == 3
    assert result.steps[0].slo_held is False


def test_the_highest_rate_is_searched_and_missed_with_exit_code_3(server: ServerProcess, bench: Any) -> None:
    code, result, _ = bench(f"grpc://{server.address}/half_plus_two", "--slo", "p50=1us", "--duration", 0.25)
    assert code == 3
    assert result.search is not None
    assert result.search.rate_per_s is None
    assert result.search.trials >= 2
    assert result.scenario.name == "slo"


def test_by_default_the_most_is_measured_and_then_latencies_at_half_of_it(
    server: ServerProcess, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    url = f"grpc://{server.address}/half_plus_two"
    assert main(["bench", url, "--duration", "0.25", *QUICK, "--out", str(out)]) == 0
    most, half = read(out).steps
    assert most.concurrency == 32
    assert half.offered_rate_per_s == pytest.approx(most.throughput_per_s / 2, rel=0.01)
    assert half.ok > 0


@pytest.mark.parametrize(
    ("scenario", "concurrency"), [("single-stream", 1), ("multi-stream", 3), ("offline", 30)], ids=str
)
def test_scenarios_have_their_loads(server: ServerProcess, bench: Any, scenario: str, concurrency: int) -> None:
    url = f"grpc://{server.address}/half_plus_two"
    code, result, shown = bench(url, "--scenario", scenario, "--count", 30, "--samples-per-query", 3)
    assert (code, result.ok) == (0, 30)
    assert result.steps[0].concurrency == concurrency
    assert result.scenario.name == scenario
    assert f"{scenario}: " in shown


def test_plain_http_with_a_template(server: ServerProcess, bench: Any) -> None:
    url = f"http://{server.address}/v1/models/half_plus_two:predict"
    body = '{"instances": [[{{index}}], [{{randint:1:6}}]]}'
    code, result, _ = bench(url, "--wire", "http", "--body", body, "--header", "X-Test: {{uuid}}", "--count", 20)
    assert (code, result.ok) == (0, 20)
    assert result.steps[0].request_bytes > 20
    code, result, _ = bench(f"http://{server.address}/nothing/here", "--wire", "http", "--count", 3)
    assert (code, result.errors) == (1, 3)
    assert result.steps[0].error_kinds[0].code == "HTTP 404"


def test_sweeps_over_batch_and_payload(server: ServerProcess, bench: Any) -> None:
    words = ("--batch", "1,2", "--count", 5, "--concurrency", "1..2")
    code, result, _ = bench(f"grpc://{server.address}/text_cnn_small", *words)
    assert code == 0
    assert [(step.label, step.batch, step.ok) for step in result.steps] == [
        ("1 in flight, batch 1", 1, 5),
        ("2 in flight, batch 1", 1, 5),
        ("1 in flight, batch 2", 2, 5),
        ("2 in flight, batch 2", 2, 5),
    ]
    assert result.steps[2].request_bytes > result.steps[0].request_bytes
    assert result.steps[0].rows_per_s == pytest.approx(result.steps[0].throughput_per_s)


@needs_openssl
def test_over_tls_and_over_a_unix_socket(
    models: LiveModels, serve: Callable[..., ServerProcess], bench: Any, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "pki")
    pair = authority.server()
    socket = tmp_path / "s.sock"
    files = ("--tls_certificate", pair.certificate, "--tls_key", pair.key)
    listening = ("--listen", "127.0.0.1:0", "--listen", f"unix:{socket}")
    secure = serve(models.onnx("half_plus_two"), *listening, *files).ready()
    code, result, _ = bench(f"grpc://unix:{socket}/half_plus_two", "--count", 10, "--expect", "first")
    assert (code, result.ok) == (0, 10)
    for scheme in ("grpcs", "https"):
        url = f"{scheme}://localhost:{secure.port}/half_plus_two"
        code, result, _ = bench(url, "--ca", authority.certificate, "--count", 10)
        assert (code, result.ok) == (0, 10)
    assert main(["bench", url, "--count", "1", "--quiet"]) == 1, "an authority that nobody named is not trusted"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["grpc://127.0.0.1:1/m"], "cannot connect to 127.0.0.1:1"),
        (["grpc://{address}/nobody"], "nobody"),
        (["grpc://{address}/half_plus_two", "--signature", "no"], "has no signature 'no'"),
        (["grpc://{address}/half_plus_two", "--rate", "x"], "--rate 'x': 'x' is no number"),
        (["grpc://{address}/half_plus_two", "--rate", "1", "--concurrency", "1"], "two loads: give one"),
        (["grpc://{address}/half_plus_two", "--concurrency", "0"], "is too small"),
        (["grpc://{address}/half_plus_two", "--slo", "fast"], "is no objective"),
        (["grpc://{address}/half_plus_two", "--scenario", "server"], "needs --slo"),
        (["grpc://{address}/half_plus_two", "--body", "x"], "go with --wire http"),
        (["grpc://{address}/half_plus_two", "--shape", "x=1,2"], "does not fit"),
        (["grpc://{address}/half_plus_two", "--data", "no.npz"], "cannot read no.npz"),
        (["grpc://{address}/half_plus_two", "--expect", "no.npz"], "cannot read no.npz"),
        (["grpc://{address}/half_plus_two", "--out", "/no/where.json"], "cannot be written"),
        (["half_plus_two"], "is no server"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(
    server: ServerProcess, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert main(["bench", *(word.format(address=server.address) for word in words), "--quiet"]) == 1
    assert problem in capsys.readouterr().err


def answered(server: ServerProcess) -> int:
    with urllib.request.urlopen(f"{server.rest_url}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("servable_requests_total{"))


def test_ctrl_c_prints_what_was_measured_and_leaves_no_process(server: ServerProcess, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", "servable", "bench", f"grpc://{server.address}/half_plus_two"]
    words = ["--duration", "600", "--warmup", "0", "--concurrency", "2,4", "--processes", "2", "--out", str(out)]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True) as process:
        seen = psutil.Process(process.pid)
        wait_until(lambda: len(seen.children()) == 2, "both client processes run")
        clients = seen.children()
        begun = answered(server)
        wait_until(lambda: answered(server) > begun + 100, "the load has begun")
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=15)
    assert process.returncode == 130
    assert not [client for client in clients if client.is_running() and client.status() != psutil.STATUS_ZOMBIE]
    result = read(out)
    assert result.interrupted
    assert result.ok > 0
    assert len(result.steps) == 1
    assert "2 in flight" in shown


def test_client_processes_end_when_their_parent_is_killed(server: ServerProcess) -> None:
    url = f"grpc://{server.address}/half_plus_two"
    command = [sys.executable, "-m", "servable", "bench", url, "--duration", "600", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        seen = psutil.Process(process.pid)
        wait_until(lambda: len(seen.children()) == 1, "the client process runs")
        (client,) = seen.children()
        process.kill()
    wait_until(lambda: not client.is_running() or client.status() == psutil.STATUS_ZOMBIE, "the client has ended")


def test_json_goes_to_stdout_by_itself(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["bench", f"http://{server.address}/half_plus_two", "--count", "3", "--concurrency", "1", "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "servable.bench/1"
    assert (document["ok"], document["errors"], document["wrong"]) == (3, 0, 0)
