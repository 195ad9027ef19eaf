from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Authority, needs_openssl

from servable.cli import checks, main
from servable.cli.checks import Finding, State, examine
from servable.engines.base import ENGINES
from servable.engines.machine import Cpus, Memory
from servable.settings import ServeSettings
from servable.zoo import catalog

FREE = ("127.0.0.1:0",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    catalog.build("half_plus_two", root, kind="onnx")
    return root / "half_plus_two"


def found(subject: str, **settings: Any) -> Finding:
    settings.setdefault("listen", FREE)
    return next(item for item in examine(ServeSettings(**settings)) if item.subject == subject)


def judge(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_a_server_that_would_work(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = judge(str(model), "--listen=127.0.0.1:0", capsys=capsys)
    assert (code, document["works"]) == (0, True)
    by_subject = {item["subject"]: item for item in document["findings"]}
    assert by_subject["model half_plus_two"]["found"] == "version 1: onnxruntime, the reference runtime for ONNX"
    assert by_subject["127.0.0.1:0"]["found"] == "free"
    assert by_subject["uvloop"]["found"] == metadata.version("uvloop")
    assert by_subject["engine onnxruntime"]["found"] == f"onnxruntime {metadata.version('onnxruntime')}"
    assert {f"engine {name}" for name in ENGINES} <= by_subject.keys()
    assert {"python", "servable", "CPUs", "threads of each engine", "memory", "open files"} <= by_subject.keys()


def test_a_table_for_people(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(model), "--listen=127.0.0.1:0", "--max_batch_rows=5000"]) == 0
    assert "measure before going higher" in capsys.readouterr().out


def test_a_busy_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        code, document = judge(f"--listen={address}", "--listen=127.0.0.1:0", capsys=capsys)
    assert (code, document["works"]) == (1, False)
    (failed,) = [item for item in document["findings"] if item["state"] == "fails"]
    assert failed["subject"] == address
    assert "already in use" in failed["found"]


def test_a_free_unix_socket_is_left_as_it_was(tmp_path: Path) -> None:
    assert found(f"unix:{tmp_path}/s", listen=(f"unix:{tmp_path}/s",)).state is State.OK
    assert not list(tmp_path.iterdir())
    assert found(f"unix:{tmp_path}/no/s", listen=(f"unix:{tmp_path}/no/s",)).state is State.FAILS


def test_all_ports_off() -> None:
    assert found("ports", listen=(), port=0) == (
        State.FAILS, "ports", "none",
        "every port is off: give --port, --rest_api_port, --grpc_socket_path or --listen",
    )  # fmt: skip


@needs_openssl
def test_certificates_that_do_not_work(tmp_path: Path) -> None:
    pair, other = Authority(tmp_path).server(), Authority(tmp_path / "b", "b").server("other")
    good = found("TLS", tls_certificate=str(pair.certificate), tls_key=str(pair.key))
    assert (good.state, str(pair.certificate) in good.found) == (State.OK, True)
    assert found("TLS", tls_certificate=str(pair.certificate), tls_key=str(other.key)).state is State.FAILS
    assert found("TLS", tls_key=str(pair.key)).state is State.FAILS
    assert not [item for item in examine(ServeSettings(listen=FREE)) if item.subject == "TLS"]


def test_models_that_will_not_work(model: Path, tmp_path: Path) -> None:
    assert found("models", models=(f"{tmp_path}/none",)).found.endswith("none does not exist")
    wrong = found("model half_plus_two", models=(str(model),), engine="tensorflow")
    assert (wrong.state, "does not read onnx" in wrong.found) == (State.FAILS, True)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    whole = (model / "1" / "model.onnx").read_bytes()
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(whole[: len(whole) // 2])
    broken = found("model broken", models=(f"{tmp_path}/broken",))
    assert (broken.state, "version 1 is not complete" in broken.found) == (State.FAILS, True)
    empty = found("model default", model_base_path=str(tmp_path / "broken" / "1"))
    assert (empty.state, empty.advice) == (State.WARNING, "it is served when one appears")


def test_a_wrong_file_of_settings_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "servable.toml").write_text("prot = 1")
    assert main(["doctor", f"--config={tmp_path}/servable.toml"]) == 1
    assert "did you mean port?" in capsys.readouterr().err


def test_scarce_resources(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(checks, "cpus", lambda: Cpus(8, (2, 3), 0.5))
    cpus, threads = found("CPUs"), found("threads of each engine", tensorflow_intra_op_parallelism=4)
    assert (cpus.state, cpus.found) == (State.WARNING, "2 of 8 CPUs, quota 0.5 (2,3)")
    assert (threads.state, threads.found) == (State.WARNING, "4")
    assert found("threads of each engine").found == "1"
    monkeypatch.setattr(checks, "memory", lambda: Memory(200 << 20, 100 << 20))
    assert found("memory") == (
        State.WARNING, "memory", "limit 200 MiB, 100 MiB available", "a server and a small model want 256 MiB",
    )  # fmt: skip
    assert "lower --max_body" in found("max_body").advice
    monkeypatch.setattr(checks, "memory", lambda: Memory(None, 100))
    assert found("size of the models", models=(str(model),)).state is State.WARNING
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 4096))
    assert found("open files") == (
        State.WARNING, "open files", "1024 (at most 4096)",
        "each connection takes one: ulimit -n 4096, or LimitNOFILE= in a systemd unit",
    )  # fmt: skip
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 64))
    assert found("open files").state is State.FAILS


def test_a_missing_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.requires
    monkeypatch.setattr(metadata, "requires", lambda name: [*(real(name) or ()), "no-such-package>=1"])
    assert found("no-such-package") == (
        State.FAILS, "no-such-package", "not installed", "pip install 'no-such-package>=1'",
    )  # fmt: skip


def test_nothing_heavy_is_imported(model: Path) -> None:
    heavy = "{'tensorflow', 'onnxruntime', 'openvino'} & set(sys.modules)"
    script = f"import sys; from servable.cli import main; main(sys.argv[1:]); sys.exit(str({heavy} or 'none'))"
    command = [sys.executable, "-c", script, "doctor", str(model), "--listen=127.0.0.1:0"]
    assert subprocess.run(command, check=False, capture_output=True, text=True).stderr == "none\n"


def test_files_of_tensorflow_serving_that_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "f.config"
    file.write_text("max_batch_size { value: -1 }")
    finding = found("batching", batching_parameters_file=str(file), enable_batching=True)
    assert (finding.state, finding.found) == (State.FAILS, f"{file}:1:1: max_batch_size must be positive; was -1")
    assert found("metrics", monitoring_path="m").state is State.FAILS
    assert found("limits", grpc_channel_arguments="x").state is State.FAILS
    idle = found("--num_tflite_pools", without_effect=("num_tflite_pools",))
    assert (idle.state, idle.found) == (State.OK, "no effect")
