"""Versions, policies, labels and files of models, followed from outside by plain HTTP."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import onnx
import pytest
from tests.conformance.tfserving.rest import Reply, call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable import protos

ALL = "model_version_policy { all {} }"


class Folder:
    """A server whose file of models and whose versions are changed while it runs."""

    def __init__(self, root: Path, version: Path) -> None:
        self._version = version
        self.root = root
        self.config = root / "models.config"
        self.base = root / "m"
        self.base.mkdir()

    def write(self, fields: str = ALL, base: str = "") -> None:
        """Replace the file of models by one with this model; the slash at the end of its path is on purpose."""
        new = self.root / "new"
        new.write_text(f"model_config_list {{ config {{ name: 'm' base_path: '{base or self.base}/' {fields} }} }}")
        new.replace(self.config)

    def publish(self, name: str) -> None:
        """Put a version there, all of it at once."""
        shutil.copytree(self._version, self.root / "copy")
        (self.root / "copy").rename(self.base / name)


@pytest.fixture(scope="module")
def folder(models: LiveModels, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made = Folder(tmp_path_factory.mktemp("lifecycle"), models.onnx("half_plus_two") / "1")
    for name in ("001", "2", "v9", "9.0", "10_tmp"):
        made.publish(name)
    (made.base / "11").write_text("a file, not a directory")
    made.write()
    return made


@pytest.fixture(scope="module")
def server(folder: Folder) -> Iterator[ServerProcess]:
    (folder.root / "monitoring.config").write_text("prometheus_config { enable: true }")
    words = (
        "--model_config_file_poll_wait_seconds=0.1",
        "--file_system_poll_wait_seconds=0.1",
        "--max_num_load_retries=0",
        f"--monitoring_config_file={folder.root}/monitoring.config",
    )
    with ServerProcess("--model_config_file", folder.config, *words) as started:
        yield started.ready()


def states(server: ServerProcess) -> dict[int, str]:
    found = call(server.address, "GET", "/v1/models/m").json["model_version_status"]
    return {int(each["version"]): each["state"] for each in found}


def predict(server: ServerProcess, where: str = "") -> Reply:
    return call(server.address, "POST", f"/v1/models/m{where}:predict", {"instances": [[2.0]]})


def wait(server: ServerProcess, expected: dict[int, str]) -> None:
    wait_until(lambda: states(server) == expected, f"versions were {expected}")


# The tests run in the order in which they are written here: each leaves the models to the next.


@pytest.mark.rule("layout-1", "layout-2", "layout-3", "policy-2", "state-1", "manager-8")
def test_versions_are_directories_with_whole_numbers(server: ServerProcess) -> None:
    found = call(server.address, "GET", "/v1/models/m").json["model_version_status"]
    assert [each["version"] for each in found] == ["2", "1"], "newest first, and no file or other name among them"
    wait(server, {2: "AVAILABLE", 1: "AVAILABLE"})
    assert predict(server, "/versions/1").json == predict(server).json == {"predictions": [[3.0]]}


@pytest.mark.rule("poll-1", "manager-2", "state-2", "manager-5")
def test_a_version_that_fails_is_shown_and_harms_none(server: ServerProcess, folder: Folder) -> None:
    (folder.root / "broken").mkdir()
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("NoSuchOperation", ["x"], ["y"])], "graph", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]),
        folder.root / "broken" / "model.onnx",
    )
    (folder.root / "broken").rename(folder.base / "3")
    wait_until(lambda: states(server).get(3) == "END", "version 3 failed")
    (failed,) = call(server.address, "GET", "/v1/models/m/versions/3").json["model_version_status"]
    assert failed["state"] == "END"
    assert failed["status"]["error_code"] != "OK"
    assert "NoSuchOperation" in failed["status"]["error_message"]
    assert predict(server).status == 200
    reply = predict(server, "/versions/3")
    assert (reply.status, reply.error) == (404, "Servable not found for request: Specific(m, 3)")


@pytest.mark.rule("poll-4", "state-1", "lookup-5", "select-2")
def test_a_version_that_goes_is_unloaded_and_remembered(server: ServerProcess, folder: Folder) -> None:
    shutil.rmtree(folder.base / "001")
    shutil.rmtree(folder.base / "3")
    wait_until(lambda: states(server).get(1) == "END", "version 1 was unloaded")
    reply = predict(server, "/versions/1")
    assert (reply.status, reply.error) == (404, "Servable not found for request: Specific(m, 1)")
    assert states(server)[2] == "AVAILABLE"


@pytest.mark.rule("policy-1", "policy-2", "manager-1", "config-1", "config-3")
def test_policies_choose_among_the_versions(server: ServerProcess, folder: Folder) -> None:
    def available() -> set[int]:
        return {version for version, state in states(server).items() if state == "AVAILABLE"}

    folder.publish("4")
    folder.publish("05")
    for fields, expected in (
        (ALL, {2, 4, 5}),
        ("", {5}),
        ("model_version_policy { latest { num_versions: 2 } }", {4, 5}),
        ("model_version_policy { specific { versions: 2 versions: 5 versions: 77 } }", {2, 5}),
        ("model_version_policy { latest { num_versions: 0 } }", {5}),
    ):
        folder.write(fields)
        wait_until(lambda wanted=expected: available() == wanted, f"{fields!r} was followed")  # type: ignore[misc]
        assert predict(server).status == 200


@pytest.mark.rule("label-1", "label-2", "label-3", "label-4", "lookup-3")
def test_labels_follow_the_file(server: ServerProcess, folder: Folder) -> None:
    def labels(**named: int) -> str:
        return ALL + "".join(f" version_labels {{ key: '{name}' value: {number} }}" for name, number in named.items())

    def version_of(label: str) -> Any:
        reply = call(server.address, "GET", f"/v1/models/m/labels/{label}/metadata")
        return int(reply.json["model_spec"]["version"]) if reply.status == 200 else reply.error

    folder.write(ALL)
    wait_until(lambda: states(server)[2] == states(server)[4] == "AVAILABLE", "all versions are back")
    folder.write(labels(stable=2, canary=5, same=5))
    wait_until(lambda: version_of("same") == 5, "the labels came")
    assert (version_of("stable"), version_of("canary")) == (2, 5)
    folder.write(labels(stable=5))
    wait_until(lambda: version_of("stable") == 5, "the label moved")
    assert version_of("same") == "Unrecognized servable version label: same"
    folder.write(labels(stable=99))
    wait_until(lambda: "label to version 99 of model m" in server.stderr, "the label was refused")
    assert version_of("stable") == 5, "what is refused changes nothing"


@pytest.mark.rule("config-2", "reload-2")
def test_the_file_overrides_what_came_by_rpc(server: ServerProcess, folder: Folder) -> None:
    folder.write(ALL)
    label = "/v1/models/m/labels/stable/metadata"
    wait_until(lambda: call(server.address, "GET", label).status == 400, "the file without labels was applied")
    applied = "read again and applied"
    before = server.stderr.count(applied)
    request = protos.serving.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="n", base_path=str(folder.base))
    with grpc.insecure_channel(server.address) as channel:
        reload = channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        with contextlib.suppress(grpc.RpcError):  # the file may be looked at before the model is loaded
            reload(request.SerializeToString(), timeout=10)
    wait_until(lambda: server.stderr.count(applied) > before, "the file, which nobody wrote, was applied again")
    wait_until(lambda: predict(server).status == 200, "the model of the file is back")
    wait_until(
        lambda: call(server.address, "POST", "/v1/models/n:predict", {"instances": [[2.0]]}).status == 404,
        "the model that came by RPC is gone",
    )


@pytest.mark.rule("poll-2", "poll-3", "lookup-4")
def test_a_base_path_that_vanishes_or_is_empty(server: ServerProcess, folder: Folder) -> None:
    folder.write(ALL)
    folder.base.rename(folder.root / "away")
    wait_until(lambda: "Could not find base path" in server.stderr, "that was logged")
    assert predict(server).status == 200
    (folder.root / "empty").mkdir()
    (folder.root / "empty").rename(folder.base)
    wait_until(lambda: predict(server).status == 404, "nothing is left")
    assert predict(server).error == "Servable not found for request: Latest(m)"
    assert "No versions of servable m found under base path" in server.stderr


MONITORING = "/monitoring/prometheus/metrics"


@pytest.mark.rule("metrics-1", "metrics-2", "metrics-3", "metrics-4", "metrics-10")
def test_the_monitoring_path(server: ServerProcess, heads_server: ServerProcess, folder: Folder) -> None:
    replies = [call(server.address, verb, MONITORING) for verb in ("GET", "POST", "PUT", "DELETE")]
    for reply in replies:
        assert (reply.status, reply.headers["content-type"].partition(";")[0]) == (200, "text/plain")
        lines = reply.body.decode().splitlines()
        theirs = [line for line in lines if line.startswith((":tensorflow:", "# TYPE :tensorflow:"))]
        names = [line.split()[2] for line in theirs if line.startswith("# TYPE")]
        assert names == sorted(names)
        assert ":tensorflow:serving:request_count" in names
        (counted,) = [each for each in theirs if each.startswith(':tensorflow:serving:request_count{model_name="m",sta')
                      and 'status="OK"' in each]  # fmt: skip
        assert int(counted.rpartition(" ")[2]) > 0
        assert f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{folder.base}/3",status="fail"}} 1' in lines
    with_query = call(server.address, "GET", f"{MONITORING}?a=b")
    assert with_query.status == 400
    assert f"Unexpected path: {MONITORING}?a=b. Should be {MONITORING}" in with_query.body.decode()
    assert call(heads_server.address, "GET", MONITORING).status == 404, "it was not asked for there"


@pytest.mark.rule("better-7")
def test_metrics_have_version_and_signature(heads_server: ServerProcess) -> None:
    call(heads_server.address, "POST", "/v1/models/half_plus_two/versions/1:predict", {"instances": [[2.0]]})
    lines = call(heads_server.address, "GET", "/metrics").body.decode().splitlines()
    counted = [line for line in lines if line.startswith("servable_requests_total{")]
    assert [line for line in counted if 'model="half_plus_two"' in line and 'version="1"' in line]
