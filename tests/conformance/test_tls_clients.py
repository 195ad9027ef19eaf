"""grpcio, curl, nghttp, h2load and openssl against a live server with TLS; certificates replaced while they call."""

from __future__ import annotations

import re
import shutil
import signal
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from tests.certificates import Authority, Pair
from tests.conformance.test_curl import Reply, curl_one
from tests.conformance.test_grpc_python import half_plus_two, predict_on
from tests.conformance.tools import needs, run_tool
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

pytestmark = [pytest.mark.conformance, needs("openssl")]
BODY = '{"instances": [[1.0]]}'
ANSWER = b'{"predictions":[[2.5]]}'
AES_128_GCM = "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls_clients"))


def flags(pair: Pair) -> list[str]:
    return ["--tls_certificate", str(pair.certificate), "--tls_key", str(pair.key)]


@pytest.fixture(scope="module")
def secure(models: LiveModels, authority: Authority) -> Iterator[ServerProcess]:
    """A server with TLS that asks nobody who they are."""
    with ServerProcess(models.onnx("half_plus_two"), *flags(authority.server())) as started:
        yield started.ready()


@pytest.fixture(scope="module")
def strict(models: LiveModels, authority: Authority) -> Iterator[ServerProcess]:
    """A server that knows its clients."""
    wanted = ["--tls_client_ca", str(authority.certificate), "--tls_client_auth", "required"]
    with ServerProcess(models.onnx("half_plus_two"), *flags(authority.server("strict")), *wanted) as started:
        yield started.ready()


def predict_url(server: ServerProcess) -> str:
    return f"https://{server.address}/v1/models/half_plus_two:predict"


def credentials(ca: Path, pair: Pair | None = None) -> grpc.ChannelCredentials:
    if pair is None:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    return grpc.ssl_channel_credentials(ca.read_bytes(), pair.key.read_bytes(), pair.certificate.read_bytes())


def call(server: ServerProcess, credentials: grpc.ChannelCredentials) -> list[float]:
    with grpc.secure_channel(server.address, credentials) as channel:
        return list(predict_on(channel)(half_plus_two(1.0), timeout=10).outputs["y"].float_val)


# -- who is trusted ----------------------------------------------------------------------------------------------------


def test_grpcio(secure: ServerProcess, authority: Authority) -> None:
    assert call(secure, credentials(authority.certificate)) == [2.5]


def test_grpcio_does_not_trust_another_authority(secure: ServerProcess, tmp_path: Path) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(secure, credentials(Authority(tmp_path, "other").certificate))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_grpcio_shows_a_certificate(strict: ServerProcess, authority: Authority, tmp_path: Path) -> None:
    assert call(strict, credentials(authority.certificate, authority.client())) == [2.5]
    for pair in (None, Authority(tmp_path, "stranger").client()):
        with pytest.raises(grpc.RpcError) as raised:
            call(strict, credentials(authority.certificate, pair))
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


@needs("curl")
@pytest.mark.parametrize(
    ("words", "version"),
    [
        (["--http1.1"], "1.1"),
        (["--http2"], "2"),
        (["--no-alpn", "--http1.1"], "1.1"),
        (["--no-alpn", "--http2-prior-knowledge"], "2"),
        (["--tls-max", "1.2"], "2"),
        (["--tlsv1.3"], "2"),
    ],
    ids=" ".join,
)
def test_curl(secure: ServerProcess, authority: Authority, words: list[str] | str, version: str) -> None:
    reply: Reply = curl_one(*words, "--cacert", authority.certificate, predict_url(secure), "-d", BODY)
    assert (reply.status, reply.version, reply.body) == (200, version, ANSWER)


@needs("curl")
def test_curl_sees_a_large_body_both_ways(secure: ServerProcess, authority: Authority) -> None:
    rows = ",".join(["[1.0]"] * 500_000)
    for version in ("--http1.1", "--http2"):
        given = (version, "--cacert", authority.certificate, "-H", "Expect:", predict_url(secure), "-d", "@-")
        reply = curl_one(*given, stdin=f'{{"instances": [{rows}]}}'.encode())
        assert reply.status == 200
        assert reply.body.count(b"2.5") == 500_000


@needs("curl")
def test_curl_without_the_authority_and_without_tls(secure: ServerProcess) -> None:
    assert run_tool("curl", "-sS", predict_url(secure), "-d", BODY).returncode == 60, "not trusted"
    plain = run_tool("curl", "-sS", "--http0.9", f"http://{secure.address}/healthz")
    assert b"HTTP/" not in plain.stdout
    assert b"ok" not in plain.stdout


@needs("curl")
def test_curl_shows_a_certificate(strict: ServerProcess, authority: Authority) -> None:
    ca = ("--cacert", authority.certificate)
    worker = authority.client()
    reply = curl_one(*ca, "--cert", worker.certificate, "--key", worker.key, predict_url(strict), "-d", BODY)
    assert reply.body == ANSWER
    assert run_tool("curl", "-sS", *ca, predict_url(strict), "-d", BODY).returncode != 0
    refused = run_tool("curl", "-sS", "--tls-max", "1.2", *ca, predict_url(strict), "-d", BODY)
    assert b"alert" in refused.stderr, "the client is told, at the latest when it reads"


@needs("nghttp")
def test_nghttp(secure: ServerProcess, tmp_path: Path) -> None:
    (body := tmp_path / "body.json").write_text(BODY)
    done = run_tool("nghttp", "-m", 50, "-d", body, "-H", "content-type: application/json", predict_url(secure))
    assert done.stdout == ANSWER * 50


@needs("h2load")
@pytest.mark.parametrize("words", [[], ["--h1"]], ids=["2", "1.1"])
def test_h2load(secure: ServerProcess, tmp_path: Path, words: list[str]) -> None:
    (body := tmp_path / "body.json").write_text(BODY)
    done = run_tool("h2load", "-n", 400, "-c", 8, "-m", 1, *words, "-d", body, predict_url(secure))
    assert b"400 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    assert b"400 2xx" in done.stdout


# -- what is agreed ----------------------------------------------------------------------------------------------------


def s_client(server: ServerProcess, *words: object, stdin: bytes = b"") -> tuple[int, str]:
    """Return the exit code of openssl's client and all that it said."""
    done = run_tool("openssl", "s_client", "-connect", server.address, *words, stdin=stdin)
    return done.returncode, (done.stdout + done.stderr).decode("latin-1")


@pytest.mark.parametrize(
    "words",
    [
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0"],
    ],
    ids=" ".join,
)
def test_old_versions_and_suites_are_refused(secure: ServerProcess, words: list[str]) -> None:
    code, said = s_client(secure, *words)
    assert code != 0
    assert "alert" in said
    assert re.search(r"Cipher is \(NONE\)", said)


@pytest.mark.parametrize("words", [["-tls1_2", "-cipher", AES_128_GCM], ["-tls1_3"]], ids=" ".join)
def test_what_http_2_demands_is_there(secure: ServerProcess, authority: Authority, words: list[str]) -> None:
    code, said = s_client(secure, *words, "-alpn", "h2,http/1.1", "-CAfile", authority.certificate)
    assert code == 0
    assert "ALPN protocol: h2" in said
    assert "Compression: NONE" in said
    assert "Verify return code: 0 (ok)" in said


def test_renegotiation_is_refused(secure: ServerProcess) -> None:
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", secure.address, "-tls1_2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as client:
        try:
            assert client.stdin is not None
            client.stdin.write(b"R\n")
            client.stdin.flush()
            assert client.stdout is not None
            said = b"".join(iter(client.stdout.readline, b""))
        finally:
            client.kill()
    assert b"no renegotiation" in said


def test_a_rsa_certificate_gets_the_suite_that_clients_must_have(
    models: LiveModels, serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    command = f"req -x509 -newkey rsa:2048 -nodes -keyout {both} -out {tmp_path}/c.pem -days 2 -subj /CN=localhost"
    subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    with both.open("a") as file:
        file.write((tmp_path / "c.pem").read_text())
    server = serve(models.onnx("half_plus_two"), "--tls_certificate", both).ready()
    assert (
        "Cipher is ECDHE-RSA-AES128-GCM-SHA256"
        in s_client(server, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")[1]
    )


# -- what is said, and what stays plain --------------------------------------------------------------------------------


def test_the_start_says_that_it_is_tls_and_how_to_call(secure: ServerProcess) -> None:
    assert re.search(r"listening on \S+  gRPC and REST, TLS\n", secure.stdout)
    assert f"curl https://{secure.address}/v1/models/half_plus_two:predict" in secure.stdout


@needs("curl")
@pytest.mark.rule("tls-3")
def test_every_tcp_port_is_protected_and_a_unix_socket_stays_plain(
    models: LiveModels, authority: Authority, serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    socket = tmp_path / "s"
    server = serve(
        models.onnx("half_plus_two"), *flags(authority.server("several")),
        "--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--listen", f"unix:{socket}",
    ).ready()  # fmt: skip
    first, second, unix = server.addresses
    for address in (first, second):
        assert curl_one("--insecure", f"https://{address}/healthz").status == 200
        assert run_tool("curl", "-sS", f"http://{address}/healthz").returncode != 0
    assert unix == f"unix:{socket}"
    assert curl_one("--unix-socket", socket, "http://localhost/healthz").status == 200


def test_a_start_with_files_that_do_not_belong_together_fails(
    models: LiveModels, authority: Authority, serve: Callable[..., ServerProcess]
) -> None:
    one, other = authority.server("one"), authority.server("another")
    wrong = ["--tls_certificate", one.certificate, "--tls_key", other.key]
    server = serve(models.onnx("half_plus_two"), *wrong)
    assert server.wait() != 0
    assert f"another.key: this is not the key of the certificate in {one.certificate}" in server.stderr


# -- certificates replaced under load ----------------------------------------------------------------------------------


class Callers:
    """Threads that call until they are told to stop: on one connection, and on a new one for each call."""

    def __init__(self, server: ServerProcess, authority: Authority) -> None:
        self._server = server
        self._authority = authority
        self._ended = threading.Event()
        self.errors: list[Any] = []
        self.answers = [0, 0]
        self._threads = [threading.Thread(target=self._run, args=(n, one)) for n, one in enumerate(self._calls())]

    def _calls(self) -> list[Callable[[], list[float]]]:
        trust = credentials(self._authority.certificate)
        self._channel = grpc.secure_channel(self._server.address, trust)
        predict = predict_on(self._channel)
        return [
            lambda: list(predict(half_plus_two(1.0), timeout=10).outputs["y"].float_val),
            lambda: call(self._server, trust),
        ]

    def _run(self, number: int, one: Callable[[], list[float]]) -> None:
        while not self._ended.is_set():
            try:
                assert one() == [2.5]
            except (AssertionError, grpc.RpcError) as error:
                self.errors.append(error)
            self.answers[number] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()

    def answered(self, more: int) -> None:
        """Wait until each has got so many more answers."""
        wanted = [count + more for count in self.answers]
        wait_until(lambda: all(have >= want for have, want in zip(self.answers, wanted, strict=True)), "answers")


def serial(server: ServerProcess, authority: Authority) -> str:
    said = s_client(server, "-CAfile", authority.certificate, "-showcerts")[1]
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", said, re.DOTALL)
    assert found is not None
    der = ssl.PEM_cert_to_DER_cert(found[0] + "\n")
    shown = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-noout", "-serial"], input=der, capture_output=True, check=True
    )
    return shown.stdout.decode().strip().removeprefix("serial=")


@pytest.mark.rule("tls-3")
def test_certificates_are_replaced_under_load(
    models: LiveModels, authority: Authority, serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    first, second = authority.server("first"), authority.server("second")
    place = first.copy_to(tmp_path)
    server = serve(models.onnx("half_plus_two"), *flags(place)).ready()
    with Callers(server, authority) as callers:
        callers.answered(5)
        assert serial(server, authority) == first.serial
        place.replace(second)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: serial(server, authority) == second.serial, "new connections get the new certificate")
        callers.answered(5)
        place.certificate.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the one before serves on" in server.stderr, "the bad file is reported")
        assert serial(server, authority) == second.serial
        callers.answered(5)
        shutil.copy(first.certificate, place.certificate)  # with the key of the other
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "this is not the key of the certificate" in server.stderr, "the mismatch is reported")
        callers.answered(5)
        assert serial(server, authority) == second.serial
    assert callers.errors == []
    assert server.stop() == 0
