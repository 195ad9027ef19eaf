"""Keys and the operator's port on a live server, asked by grpcio and by plain HTTP."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable import protos
from servable.client import Client
from servable.core.errors import Code, ServingError
from servable.core.messages import ModelRef
from servable.wire import tfserving_grpc as tfserving
from servable.wire.tfserving_examples import ExampleRequest

Serve = Callable[..., ServerProcess]
ALL, HALF, ADMIN = "key-for-all-of-the-models", "key-for-half-plus-two", "key-for-the-administrator"
X = np.array([[1.0]], np.float32)


def keys(folder: Path, *names: str) -> Path:
    file = folder / "keys.toml"
    tables = {
        "all": f'[[keys]]\nname = "all"\nkey = "{ALL}"\n',
        "half": f'[[keys]]\nname = "half"\nkey = "{HALF}"\nmodels = ["half_plus_two"]\n',
        "admin": f'[[keys]]\nname = "admin"\nkey = "{ADMIN}"\nadmin = true\n',
    }
    file.write_text("\n".join(tables[name] for name in names or tables))
    return file


@pytest.fixture
def guarded(serve: Serve, models: LiveModels, tmp_path: Path) -> ServerProcess:
    socket = tmp_path / "socket"
    arguments = [models.onnx("half_plus_two"), models.onnx("lstm_tokens"), "--api_keys_file", keys(tmp_path)]
    return serve(*arguments, "--listen=127.0.0.1:0", f"--listen=unix:{socket}").ready()


def get(server: ServerProcess, path: str, key: str = "", body: bytes | None = None) -> int:
    request = urllib.request.Request(server.rest_url + path, body, {"authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        document = json.load(error)
        assert document["error"]
        return error.code


def test_over_rest(guarded: ServerProcess) -> None:
    assert get(guarded, "/healthz") == get(guarded, "/readyz") == 200
    for path in ("/metrics", "/servable/status", "/v1/models/half_plus_two", "/nowhere"):
        assert get(guarded, path) == 401
        assert get(guarded, path, "not-a-key-that-is-known") == 401
    assert get(guarded, "/metrics", HALF) == 200
    assert get(guarded, "/v1/models/half_plus_two", HALF) == 200
    assert get(guarded, "/v1/models/lstm_tokens", HALF) == 403
    assert get(guarded, "/v1/models/lstm%5Ftokens/metadata", HALF) == 403
    assert get(guarded, "/v1/models/lstm_tokens", ALL) == 200
    body = b'{"instances": [[1.0]]}'
    assert get(guarded, "/v1/models/half_plus_two:predict", HALF, body) == 200
    assert get(guarded, "/v1/models/half_plus_two/versions/1:predict", HALF, body) == 200
    assert get(guarded, "/v1/models/lstm_tokens:predict", HALF, body) == 403
    assert get(guarded, "/v1/models/half_plus_two:predict", body=body) == 401


@pytest.mark.rule("reload-10")
def test_over_grpc(guarded: ServerProcess) -> None:
    multi = protos.serving_internal.SerializedMultiInferenceRequest()
    for name in ("half_plus_two", "lstm_tokens"):
        multi.tasks.add().model_spec.name = name
    example = tfserving.encode_example_request(ExampleRequest(ModelRef("lstm_tokens"), "", [b"x"]))
    status = tfserving.encode_model_status_request(ModelRef("half_plus_two"))
    with grpc.insecure_channel(guarded.address) as channel:

        def ask(method: bytes, body: bytes, key: str = "", compression: grpc.Compression | None = None) -> str:
            metadata = [("x-api-key", key)] if key else []
            try:
                channel.unary_unary(method.decode())(body, timeout=20, metadata=metadata, compression=compression)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        assert ask(tfserving.GET_MODEL_STATUS, status) == "UNAUTHENTICATED"
        assert ask(tfserving.GET_MODEL_STATUS, status, "wrong") == "UNAUTHENTICATED"
        assert ask(tfserving.GET_MODEL_STATUS, status, HALF) == "OK"
        assert ask(tfserving.GET_MODEL_STATUS, status, HALF, grpc.Compression.Gzip) == "OK"
        lstm = tfserving.encode_model_metadata_request(ModelRef("lstm_tokens"))
        for compression in (None, grpc.Compression.Gzip):
            assert ask(tfserving.GET_MODEL_METADATA, lstm, HALF, compression) == "PERMISSION_DENIED"
        assert ask(tfserving.GET_MODEL_METADATA, lstm, ALL) == "OK"
        for method in (tfserving.CLASSIFY, tfserving.REGRESS, tfserving.PREDICT_STREAMED, tfserving.PREDICT):
            assert ask(method, example, HALF) == "PERMISSION_DENIED"
        assert ask(tfserving.MULTI_INFERENCE, multi.SerializeToString(), HALF) == "PERMISSION_DENIED"
        assert ask(b"/grpc.health.v1.Health/Check", b"") == "OK"
        reload = protos.serving.ReloadConfigRequest()
        reload.config.model_config_list.SetInParent()
        for key, code in (("", "UNAUTHENTICATED"), (ALL, "PERMISSION_DENIED"), (ADMIN, "OK")):
            assert ask(tfserving.HANDLE_RELOAD_CONFIG_REQUEST, reload.SerializeToString(), key) == code
        assert ask(tfserving.GET_MODEL_METADATA, lstm, ALL) == "NOT_FOUND", "the administrator has removed it"


def test_our_client_and_the_socket(guarded: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (guarded.grpc_url, guarded.rest_url):
        with Client(url, api_key=HALF) as client:
            assert client.predict("half_plus_two", x=X)["y"].tolist() == [[2.5]]
            with pytest.raises(ServingError) as raised:
                client.status("lstm_tokens")
            assert raised.value.code is Code.PERMISSION_DENIED
        with Client(url) as client, pytest.raises(ServingError) as raised:
            client.status("half_plus_two")
        assert raised.value.code is Code.UNAUTHENTICATED
        monkeypatch.setenv("SERVABLE_API_KEY", ALL)
        with Client(url) as client:
            assert client.status("lstm_tokens")
        monkeypatch.delenv("SERVABLE_API_KEY")
    with Client(guarded.addresses[1]) as client:
        assert client.predict("lstm_tokens", inputs={"tokens": np.ones((1, 50), np.int32)}) is not None
    with pytest.raises(ServingError, match="printable ASCII"):
        Client(guarded.grpc_url, api_key="two words")


def test_a_key_is_taken_away_while_a_connection_is_open(guarded: ServerProcess, tmp_path: Path) -> None:
    with Client(guarded.grpc_url, api_key=HALF) as client:
        client.predict("half_plus_two", x=X)
        keys(tmp_path, "all")
        guarded.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "1 API keys were read" in guarded.stderr, "the keys were read again")
        with pytest.raises(ServingError) as raised:
            client.predict("half_plus_two", x=X)
        assert raised.value.code is Code.UNAUTHENTICATED


def test_a_server_does_not_start_with_a_wrong_file_of_keys(serve: Serve, models: LiveModels, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("[[keys]]\nname = 'a'\n")
    server = serve(models.onnx("half_plus_two"), "--api_keys_file", tmp_path / "keys.toml")
    assert server.wait() != 0
    assert "expected one of key and sha256" in server.stderr + server.stdout


@pytest.mark.rule("reload-10")
def test_the_operators_port(serve: Serve, models: LiveModels) -> None:
    server = serve(models.onnx("half_plus_two"), "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0").ready()
    public, operators = (f"http://{address}" for address in server.addresses)

    def status(base: str, path: str) -> int:
        try:
            with urllib.request.urlopen(base + path, timeout=20) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code

    for path in ("/metrics", "/servable/status"):
        assert (status(public, path), status(operators, path)) == (404, 200)
    for path in ("/healthz", "/readyz", "/v1/models/half_plus_two"):
        assert (status(public, path), status(operators, path)) == (200, 200)
    reload = protos.serving.ReloadConfigRequest()
    reload.config.model_config_list.SetInParent()
    for address, code in zip(server.addresses, ("UNIMPLEMENTED", "OK"), strict=True):
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(tfserving.HANDLE_RELOAD_CONFIG_REQUEST.decode())
            try:
                call(reload.SerializeToString(), timeout=20)
            except grpc.RpcError as error:
                assert error.code().name == code  # noqa: PT017
            else:
                assert code == "OK"
