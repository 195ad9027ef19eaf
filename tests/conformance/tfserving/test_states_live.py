"""The life of versions seen from outside while their loads are held up, fail and are given up."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.tfserving.rest import call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until
from tests.engines.saved_model_writer import half_plus_two, write

Serve = Callable[..., ServerProcess]

HELD = """
import os
import time
from typing import TypedDict

from servable import Tensor

FOLDER = {folder!r}

def wait(name):
    with open(os.path.join(FOLDER, "notes"), "a") as notes:
        notes.write(name + "\\n")
    while not os.path.exists(os.path.join(FOLDER, name)):
        time.sleep(0.002)

class Answer(TypedDict):
    y: Tensor["float32", "n", 1]

class Held:
    def load(self):
        wait("load {name} {version}")

    def predict(self, x: Tensor["float32", "n", 1]) -> Answer:
        if x.shape[0] == 1 and x[0, 0] == 7:
            wait("answer {name} {version}")
        return {{"y": x + {version}}}
"""


class Models:
    """A folder of models whose loads, and answers to 7, wait for a file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, name: str, version: int) -> Path:
        code = HELD.format(folder=str(self.root), name=name, version=version)
        fresh = self.root / "fresh"
        fresh.mkdir()
        (fresh / "model.py").write_text(code)
        (self.root / name).mkdir(exist_ok=True)
        fresh.rename(self.root / name / str(version))
        return self.root / name

    def go(self, what: str) -> None:
        (self.root / what).touch()

    @property
    def notes(self) -> list[str]:
        file = self.root / "notes"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def held(tmp_path: Path) -> Models:
    return Models(tmp_path)


def states(server: ServerProcess, name: str = "m") -> dict[int, str]:
    reply = call(server.address, "GET", f"/v1/models/{name}")
    return {int(each["version"]): each["state"] for each in reply.json.get("model_version_status", [])}


def predict(server: ServerProcess, value: float, where: str = "") -> Any:
    return call(server.address, "POST", f"/v1/models/m{where}:predict", {"instances": [[value]]})


POLL = ("--file_system_poll_wait_seconds=0.05",)


@pytest.mark.rule("manager-3", "select-3", "manager-1")
def test_a_version_ends_after_its_last_answer(serve: Serve, held: Models) -> None:
    base = held.add("m", 1)
    server = serve(base, *POLL)
    server.wait_for("listening on")
    wait_until(lambda: states(server) == {1: "LOADING"}, "it loads")
    assert predict(server, 1).status == 404
    held.go("load m 1")
    wait_until(lambda: states(server) == {1: "AVAILABLE"}, "it is available")
    with ThreadPoolExecutor(1) as thread:
        last = thread.submit(predict, server, 7)
        wait_until(lambda: "answer m 1" in held.notes, "it computes")
        held.add("m", 2)
        wait_until(lambda: "load m 2" in held.notes, "the next one loads")
        held.go("load m 2")
        wait_until(lambda: states(server) == {2: "AVAILABLE", 1: "UNLOADING"}, "it waits for its last answer")
        assert predict(server, 1).json == {"predictions": [[3.0]]}, "the new one answers"
        assert not last.done()
        held.go("answer m 1")
        assert last.result().json == {"predictions": [[8.0]]}, "the old one answered what it was asked"
    wait_until(lambda: states(server) == {2: "AVAILABLE", 1: "END"}, "it has ended")


@pytest.mark.rule("manager-4")
def test_resources_first_if_asked_for(serve: Serve, held: Models) -> None:
    base = held.add("m", 1)
    held.go("load m 1")
    server = serve(base, *POLL, "--version_transition=resource_preserving").ready()
    held.add("m", 2)
    wait_until(lambda: states(server).get(1) == "END", "the old one went first")
    wait_until(lambda: "load m 2" in held.notes, "then the new one came")
    assert predict(server, 1).status == 404, "nothing is served between"
    held.go("load m 2")
    wait_until(lambda: states(server) == {2: "AVAILABLE", 1: "END"}, "the new one is served")


@pytest.mark.rule("manager-6")
def test_retries_stop_when_nobody_wishes_for_the_version(serve: Serve, tmp_path: Path) -> None:
    base = tmp_path / "m"
    (base / "1").mkdir(parents=True)
    (base / "1" / "model.py").write_text(
        "from servable import Code, ServingError\nraise ServingError(Code.UNAVAILABLE, 'not today')"
    )
    server = serve(base, *POLL, "--load_retry_interval_micros=3600000000", "--max_num_load_retries=5")
    server.wait_for("listening on")
    wait_until(lambda: "attempt 1 of 6 failed" in server.stderr, "the first attempt failed")
    shutil.rmtree(base / "1")
    (base / "2").mkdir()
    (base / "2" / "model.py").write_text("raise OSError('nor now')")
    wait_until(lambda: states(server).get(1) == "END", "it was given up")
    (status,) = call(server.address, "GET", "/v1/models/m/versions/1").json["model_version_status"]
    assert status["status"] == {"error_code": "CANCELLED", "error_message": "Loading of servable cancelled"}


@pytest.mark.rule("manager-7")
@pytest.mark.parametrize(("threads", "together"), [(0, ["load m 3"]), (2, ["load m 2", "load m 3"])])
def test_versions_load_highest_first(serve: Serve, held: Models, threads: int, together: list[str]) -> None:
    base = held.add("m", 1)
    held.go("load m 1")
    config = held.root / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{base}" model_version_policy {{ all {{}} }} }} }}'
    )
    words = ("--model_config_file", config, "--allow_python", f"--num_load_threads={threads}")
    server = serve(*words, "--file_system_poll_wait_seconds=1").ready()
    held.add("m", 2)
    held.add("m", 3)
    wait_until(lambda: set(together) <= set(held.notes), "loads began")
    assert sorted(held.notes[1:]) == together
    for number in (3, 2):
        held.go(f"load m {number}")
    wait_until(lambda: states(server) == dict.fromkeys((3, 2, 1), "AVAILABLE"), "all are there")


@pytest.mark.rule("better-2")
def test_before_any_model_is_there(serve: Serve, held: Models, models: LiveModels) -> None:
    """A page says whether all are ready, and each model is looked at by itself."""
    held.add("m", 1)
    server = serve(held.root / "m", models.onnx("half_plus_two"), *POLL)
    server.wait_for("listening on")
    assert call(server.address, "GET", "/healthz").status == 200
    wait_until(lambda: states(server, "half_plus_two") == {1: "AVAILABLE"}, "the other one is there")
    assert call(server.address, "GET", "/readyz").status == 503
    reply = call(server.address, "POST", "/v1/models/half_plus_two:predict", {"instances": [[2.0]]})
    assert reply.json == {"predictions": [[3.0]]}
    held.go("load m 1")
    wait_until(lambda: call(server.address, "GET", "/readyz").status == 200, "all are ready")


@pytest.mark.rule("poll-5", "better-4")
def test_ended_versions_are_forgotten_and_half_copies_not_loaded(
    serve: Serve, models: LiveModels, tmp_path: Path
) -> None:
    base, source = tmp_path / "m", models.onnx("half_plus_two") / "1"
    shutil.copytree(source, base / "1")
    server = serve(base, "--file_system_poll_wait_seconds=0.01").ready()
    content = (source / "model.onnx").read_bytes()
    for version in range(2, 36):
        (base / "new").mkdir()
        (base / "new" / "model.onnx").write_bytes(content)
        (base / "new").rename(base / str(version))
        wait_until(lambda number=version: states(server).get(number) == "AVAILABLE", f"{version} came")  # type: ignore[misc]
        shutil.rmtree(base / str(version - 1))
    wait_until(lambda: states(server).get(34) == "END", "34 has gone")
    assert sorted(states(server)) == list(range(3, 36)), "the last 32, and the one that is there"
    (base / "40").mkdir()
    with (base / "40" / "model.onnx").open("wb") as file:
        for at in range(0, len(content) - 1, 8):
            file.write(content[at : min(at + 8, len(content) - 1)])
            file.flush()
            assert states(server).get(40) != "AVAILABLE"
        file.write(content[-1:])
    wait_until(lambda: states(server).get(40) == "AVAILABLE", "the whole copy was taken")
    assert predict(server, 2).json == {"predictions": [[3.0]]}


@pytest.mark.rule("manager-9", "file-1", "log-3")
def test_files_of_models(serve: Serve, models: LiveModels, tmp_path: Path) -> None:
    path, file = models.onnx("half_plus_two"), tmp_path / "models.config"
    file.write_text("# nothing\n")
    empty = serve("--model_config_file", file).ready()
    assert call(empty.address, "GET", "/v1/models/m").status == 404
    for text in (
        f'model_config_list {{ config {{ name: "m" base_path: "{path}" }} }}',
        f"model_config_list: {{ config: {{ name: 'm', base_path: '{path}', }}, }}",
        f"model_config_list < config: < name:'m'; base_path:'{str(path)[:5]}' '{str(path)[5:]}' > ; >",
        f'model_config_list {{ config: [ {{ name: "m" # a comment\n base_path: "{path}" }} ] }}',
    ):
        file.write_text(text)
        server = serve("--model_config_file", file).ready()
        assert predict(server, 2).json == {"predictions": [[3.0]]}, text
    file.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{path}" logging_config {{ '
        'log_collector_config { type: "kafka" filename_prefix: "x" } } } }'
    )
    refused = serve("--model_config_file", file)
    assert refused.wait() != 0
    assert "Cannot find LogCollector::Factory for type: kafka" in refused.stderr + refused.stdout


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ServerProcess]]:
    """A server of SavedModels: of these tags, of other ones, none at all, and something older."""
    root = tmp_path_factory.mktemp("tagged")
    for name, tags in (("exact", ("serve", "gpu")), ("more", ("serve", "gpu", "x")), ("fewer", ("serve",))):
        graph = half_plus_two()
        del graph.meta_graph.meta_info_def.tags[:]
        graph.meta_graph.meta_info_def.tags.extend(tags)
        write(root / name / "1", graph)
    (root / "nothing" / "1").mkdir(parents=True)
    (root / "nothing" / "1" / "readme").write_text("")
    (root / "bundle" / "1").mkdir(parents=True)
    (root / "bundle" / "1" / "export.meta").write_text("")
    platform = root / "platform.config"
    platform.write_text(
        """platform_configs { key: "tensorflow" value { source_adapter_config {
        [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] { legacy_config {
          saved_model_tags: "gpu" saved_model_tags: "serve"
          batching_parameters { max_batch_size { value: 2 } } } } } } }"""
    )
    names = ("exact", "more", "fewer", "nothing", "bundle")
    configs = " ".join(
        f'config {{ name: "{name}" base_path: "{root}/{name}" model_platform: "tensorflow" }}' for name in names
    )
    (root / "models.config").write_text(f"model_config_list {{ {configs} }}")
    words = ("--model_config_file", root / "models.config", f"--platform_config_file={platform}")
    with ServerProcess(*words, "--max_num_load_retries=0", "--saved_model_tags=other", "--engine=openvino") as server:
        yield root, server.ready()


@pytest.mark.rule("flag-11", "savedmodel-1", "file-3")
def test_the_graph_of_exactly_these_tags_is_loaded(tagged: tuple[Path, ServerProcess]) -> None:
    _, server = tagged
    reply = call(server.address, "POST", "/v1/models/exact:predict", {"instances": [[2.0]] * 2})
    assert reply.json == {"predictions": [[3.0]] * 2}, "the platform's tags, in any order, replace the flag's"
    too_many = call(server.address, "POST", "/v1/models/exact:predict", {"instances": [[2.0]] * 3})
    assert too_many.error.startswith("Task size 3 is larger than maximum"), "and its parameters batch"
    for name, code, words in (
        ("more", "NOT_FOUND", "Could not find meta graph def matching supplied tags: { "),
        ("fewer", "NOT_FOUND", "Could not find meta graph def matching supplied tags: { "),
        ("nothing", "NOT_FOUND", "Could not find SavedModel .pb or .pbtxt at supplied export directory path: "),
        ("bundle", "UNIMPLEMENTED", "Session Bundle is deprecated and removed."),
    ):
        wait_until(lambda model=name: states(server, model) == {1: "END"}, f"{name} failed")  # type: ignore[misc]
        (status,) = call(server.address, "GET", f"/v1/models/{name}").json["model_version_status"]
        assert status["status"]["error_code"] == code
        assert status["status"]["error_message"].startswith(words), status


@pytest.mark.rule("flag-13")
def test_tensorflows_variables_set_the_level_of_the_log(models: LiveModels) -> None:
    from tests.conformance.tfserving.test_command_line import ModelServer, free_port

    said = {}
    for level in ("0", "2"):
        words = (f"--port={free_port()}", f"--model_base_path={models.onnx('half_plus_two')}", "--grpc_max_threads=3")
        with ModelServer(*words, environment={"TF_CPP_MIN_LOG_LEVEL": level}) as server:
            server.ready()
            said[level] = server.stderr
    assert "AVAILABLE" in said["0"]
    assert "AVAILABLE" not in said["2"], "errors alone"


@pytest.mark.rule("tls-2")
def test_clients_without_a_certificate_are_refused(models: LiveModels, serve: Serve, tmp_path: Path) -> None:
    import ssl

    from tests.certificates import Authority

    authority = Authority(tmp_path / "ca")
    own, client = authority.server(), authority.client()

    def text(file: Path) -> str:
        return json.dumps(file.read_text())

    (tmp_path / "ssl.config").write_text(
        f"server_key: {text(own.key)} server_cert: {text(own.certificate)} "
        f"custom_ca: {text(authority.certificate)} client_verify: true"
    )
    server = serve(models.onnx("half_plus_two"), f"--ssl_config_file={tmp_path}/ssl.config").ready()

    def ask(*, known: bool) -> int:
        context = ssl.create_default_context(cafile=authority.certificate)
        if known:
            context.load_cert_chain(client.certificate, client.key)
        connection = http.client.HTTPSConnection("localhost", server.port, timeout=10, context=context)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/models/half_plus_two")
            return connection.getresponse().status

    assert ask(known=True) == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(known=False)
