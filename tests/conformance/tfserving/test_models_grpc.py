"""Metadata, status, versions, flags and reload by TensorFlow Serving's stubs."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.conformance.tfserving import model_checks, reload_checks, strict_checks
from tests.conformance.tfserving.checks import outcomes, parameters
from tests.conformance.tfserving.rest import call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

PACKAGE = "tests.conformance.tfserving"
STRICT = (
    "--enable_signature_method_name_check",
    "--enable_serialization_as_tensor_content=true",
    "--rest_api_enable_cors_support",
    "--rest_api_gzip_bytes=0",
)
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


@pytest.mark.parametrize("check", parameters(model_checks.CHECKS))
def test_models_over_grpc(heads_server: ServerProcess, check: str) -> None:
    failure = outcomes(f"{PACKAGE}.model_checks", heads_server.address)[check]
    assert failure is None, failure


@pytest.fixture(scope="module")
def strict_server(models: LiveModels) -> Iterator[ServerProcess]:
    with ServerProcess(models.heads(), *STRICT) as started:
        yield started.ready()


@pytest.mark.parametrize("check", parameters(strict_checks.CHECKS))
def test_flags_over_grpc(strict_server: ServerProcess, check: str) -> None:
    failure = outcomes(f"{PACKAGE}.strict_checks", strict_server.address)[check]
    assert failure is None, failure


@pytest.mark.rule("rest-12", "tensor-18", "predict-2")
def test_flags_over_rest(strict_server: ServerProcess) -> None:
    path = "/v1/models/heads"
    body = {"signature_name": "predict", "instances": [[1.0, 0.0]] * 4000}
    good = call(strict_server.address, "POST", f"{path}:predict", body, Accept_Encoding="gzip")
    assert good.json["predictions"][3999] == [0.5, -1.0, 2.0]
    assert "content-encoding" not in good.headers
    unnamed = call(strict_server.address, "POST", f"{path}:predict", body | {"signature_name": "unnamed"})
    assert unnamed.status == 500
    assert unnamed.error.startswith("Expected prediction signature method_name to be one of")
    preflight = call(strict_server.address, "OPTIONS", f"{path}:predict", Origin="https://a.example")
    assert (preflight.status, preflight.body) == (200, b"")
    refused = call(strict_server.address, "OPTIONS", f"{path}:predict", Origin="file://")
    missing = call(strict_server.address, "GET", "/v1/models/nonesuch")
    malformed = call(strict_server.address, "PUT", path)
    for reply in (good, unnamed, preflight, refused, missing, malformed, call(strict_server.address, "GET", path)):
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["access-control-allow-methods"] == "POST, GET"
        assert reply.headers["access-control-allow-headers"] == "Content-Type"


@pytest.fixture(scope="module")
def reloaded(
    models: LiveModels, two_versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, Path]]:
    """A server of another model, on every address of this machine, and a folder of models to reload it with."""
    folder = tmp_path_factory.mktemp("reloaded")
    shutil.copytree(two_versions, folder / "half")
    (folder / "code" / "1").mkdir(parents=True)
    (folder / "code" / "1" / "model.py").write_text("raise SystemExit('code from an RPC may never run')\n")
    (folder / "empty").mkdir()
    arguments = ("--listen", "0.0.0.0:0", "--file_system_poll_wait_seconds", "0.1")
    with ServerProcess(models.onnx("half_plus_two"), *arguments) as started:
        yield started.ready(), folder


@pytest.mark.parametrize("check", parameters(reload_checks.CHECKS))
def test_reload(reloaded: tuple[ServerProcess, Path], check: str) -> None:
    server, folder = reloaded
    failure = outcomes(f"{PACKAGE}.reload_checks", f"127.0.0.1:{server.port}", str(folder))[check]
    assert failure is None, failure


@pytest.mark.rule("reload-10")
def test_reload_is_for_this_machine_only(reloaded: tuple[ServerProcess, Path]) -> None:
    server, _ = reloaded
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but the loopback")
    with grpc.insecure_channel(f"{address}:{server.port}") as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary(RELOAD)(b"\n\x02\n\x00", timeout=10)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "over loopback and Unix sockets" in failure.value.details()


def own_address() -> str | None:
    """Return an address of this machine that is not the loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith("127.") else found
