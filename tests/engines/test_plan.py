"""Which engine, and how many threads: pure decisions."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact
from servable.engines.plan import Choice, choose, cpu_threads

SAVED_MODEL = Artifact("saved_model", Path("/m/1"))
ONNX = Artifact("onnx", Path("/m/1/model.onnx"))
IR = Artifact("openvino", Path("/m/1/model.xml"))


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in packages else find(name))


def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorflow")


@pytest.mark.tensorflow
def test_a_saved_model_goes_to_tensorflow_in_a_child_where_that_is_installed() -> None:
    assert choose(SAVED_MODEL) == Choice("tensorflow", "f32", True, "tensorflow is installed: exact semantics")


def test_a_saved_model_goes_to_openvino_where_tensorflow_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without_tensorflow(monkeypatch)
    choice = choose(SAVED_MODEL)
    assert (choice.engine, choice.isolated) == ("openvino", False)
    assert "tensorflow is not installed" in choice.reason


@pytest.mark.parametrize(("artifact", "engine"), [(ONNX, "onnxruntime"), (IR, "openvino")])
def test_other_artifacts_go_to_their_own_runtime(artifact: Artifact, engine: str) -> None:
    choice = choose(artifact)
    assert (choice.engine, choice.precision, choice.isolated) == (engine, "f32", False)
    assert choice.reason


@pytest.mark.parametrize("artifact", [SAVED_MODEL, ONNX, IR])
def test_the_engine_asked_for_wins(artifact: Artifact) -> None:
    choice = choose(artifact, "openvino", "bf16")
    assert (choice.engine, choice.precision, choice.reason) == ("openvino", "bf16", "asked for by name")


def test_an_engine_that_does_not_read_the_artifact_is_refused_with_those_that_do() -> None:
    with pytest.raises(ServingError, match=r"onnxruntime does not read saved_model .*try openvino or tens") as failure:
        choose(SAVED_MODEL, "onnxruntime")
    assert failure.value.code is Code.FAILED_PRECONDITION


def test_an_engine_that_is_not_installed_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without_tensorflow(monkeypatch)
    with pytest.raises(ServingError, match=r"pip install 'servable\[tensorflow\]'"):
        choose(SAVED_MODEL, "tensorflow")


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("tflite", "ai_edge_litert", "litert"),
        ("torch_export", "torch", "torch"),
        ("torchscript", "torch", "torch"),
        ("graph_def", "tensorflow", "tensorflow"),
    ],
)
def test_what_no_engine_here_reads_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, kind: str, package: str, extra: str
) -> None:
    without(monkeypatch, package)
    with pytest.raises(ServingError, match=rf"/m/1/x needs .*pip install 'servable\[{extra}\]'") as failure:
        choose(Artifact(kind, Path("/m/1/x")))
    assert failure.value.code is Code.FAILED_PRECONDITION


def test_an_engine_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(
        ServingError, match="no engine is called 'caffe'; there are litert, onnxruntime, openvino, python"
    ):
        choose(ONNX, "caffe")


class Host:
    """A made-up machine: CPUs this process may use, and a tree of cgroups."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cpus)))
        self._memberships = folder / "memberships"
        self._cgroups = folder / "cgroups"
        self._cgroups.mkdir()

    def member_of(self, lines: str, **files: str) -> int:
        self._memberships.write_text(lines)
        for name, text in files.items():
            path = self._cgroups.joinpath(*name.split("__")[:-1], name.split("__")[-1].replace("_DOT_", "."))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cpu_threads(self._memberships, self._cgroups)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch, cpus=8)


def test_without_a_quota_every_usable_cpu_counts(host: Host) -> None:
    assert host.member_of("0::/a\n", a__cpu_DOT_max="max 100000\n") == 8
    assert host.member_of("") == 8


@pytest.mark.parametrize(("quota", "threads"), [("350000", 3), ("50000", 1), ("1600000", 8), ("200000", 2)])
def test_a_quota_cuts_them_down_to_whole_cpus_and_at_least_one(host: Host, quota: str, threads: int) -> None:
    assert host.member_of("0::/a/b\n", a__b__cpu_DOT_max=f"{quota} 100000\n") == threads


def test_the_smallest_quota_on_the_way_up_counts(host: Host) -> None:
    files = {"a__cpu_DOT_max": "200000 100000", "a__b__cpu_DOT_max": "400000 100000"}
    assert host.member_of("0::/a/b\n", **files) == 2


def test_in_a_container_the_path_may_not_be_mounted_and_the_root_counts(host: Host) -> None:
    assert host.member_of("0::/kubepods/pod\n", cpu_DOT_max="300000 100000") == 3


def test_the_first_version_of_cgroups_is_read_too(host: Host) -> None:
    files = {"cpu__a__cpu_DOT_cfs_quota_us": "250000\n", "cpu__a__cpu_DOT_cfs_period_us": "100000\n"}
    assert host.member_of("5:memory:/x\n4:cpu,cpuacct:/a\n", **files) == 2
    assert host.member_of("4:cpu,cpuacct:/a\n", cpu__a__cpu_DOT_cfs_quota_us="-1\n") == 8


def test_this_very_machine_has_at_least_one_thread() -> None:
    assert 1 <= cpu_threads() <= (os.cpu_count() or 1)
