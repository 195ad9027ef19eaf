"""What can be said of the files under deploy/ without building or installing them; the entry point really runs."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.fixtures import models, serve
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

from servable.settings import ServeSettings, option_fields

__all__ = ["models", "serve"]

ROOT = Path(__file__).parent.parent.parent
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile*"))
ENTRYPOINT = DOCKER / "entrypoint.sh"
UNIT = ROOT / "deploy" / "systemd" / "servable.service"

Instruction = tuple[str, str]


def instructions(path: Path) -> list[Instruction]:
    """Return (name, rest of the line) with continued lines joined and comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def values(path: Path, name: str) -> list[str]:
    return [rest for found, rest in instructions(path) if found == name]


def final_stage(path: Path) -> list[Instruction]:
    found = instructions(path)
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def is_sent_to_the_builder(path: str) -> bool:
    """Apply .dockerignore: the last rule that fits decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip()
        if rule and not rule.startswith("#"):
            pattern = rule.removeprefix("!")
            if fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
                sent = rule.startswith("!")
    return sent


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_are_two() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.tensorflow"]


def test_bases_are_pinned_to_a_release(dockerfile: Path) -> None:
    images = [rest.split()[0] for rest in values(dockerfile, "FROM")]
    assert images
    for image in images:
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", image), f"{image} may change under us"
    assert len(set(images)) == 1, "a virtual environment runs with the interpreter that made it"


def test_it_runs_as_a_user_of_its_own(dockerfile: Path) -> None:
    users = [rest for name, rest in final_stage(dockerfile) if name == "USER"]
    assert len(users) == 1
    assert users[0] not in {"root", "0"}
    assert users[0].isdigit(), "Kubernetes' runAsNonRoot wants a number"
    later = [name for name, _ in final_stage(dockerfile)][[n for n, _ in final_stage(dockerfile)].index("USER") :]
    assert "RUN" not in later


def test_commands_are_lists(dockerfile: Path) -> None:
    entry = values(dockerfile, "ENTRYPOINT")
    assert len(entry) == 1, "without a shell between, signals reach the server"
    assert isinstance(json.loads(entry[0]), list)
    assert all(isinstance(json.loads(rest), list) for rest in values(dockerfile, "CMD"))


def test_what_is_copied_exists_and_is_sent(dockerfile: Path) -> None:
    assert not values(dockerfile, "ADD")
    for rest in values(dockerfile, "COPY"):
        words = rest.split()
        if any(word.startswith("--from=") for word in words):
            continue
        *sources, _target = [word for word in words if not word.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert is_sent_to_the_builder(source), f".dockerignore leaves {source} out"
    assert not is_sent_to_the_builder(".git")
    assert not is_sent_to_the_builder("tests")


def test_what_is_installed_is_declared(dockerfile: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = [rest for rest in values(dockerfile, "RUN") if "pip install" in rest]
    assert "--no-cache-dir" in install
    for extra in re.findall(r"\[(\w+)\]", install):
        assert extra in project["optional-dependencies"]
    assert ("[tensorflow]" in install) is (dockerfile.suffix == ".tensorflow")
    needed = {"pyproject.toml", project["readme"], *project["license-files"], "src"}
    copied = " ".join(values(dockerfile, "COPY")).split()
    assert needed <= set(copied)
    version = values(dockerfile, "FROM")[0].split(":")[1].split("-")[0]
    assert tuple(map(int, version.split("."))) >= (3, 11)


def health_check(path: Path, port: int) -> subprocess.CompletedProcess[bytes]:
    (rest,) = values(path, "HEALTHCHECK")
    python, *words = json.loads(rest[rest.index("CMD ") + 4 :])
    assert python == "python"
    command = [sys.executable, *(word.replace(":8501/", f":{port}/") for word in words)]
    return subprocess.run(command, check=False, capture_output=True)


def test_the_health_check_tells_a_server_from_none(
    dockerfile: Path, models: LiveModels, serve: Callable[..., ServerProcess]
) -> None:
    server = serve(models.onnx("half_plus_two")).ready()
    assert health_check(dockerfile, server.port).returncode == 0
    assert server.stop() == 0
    assert health_check(dockerfile, server.port).returncode != 0


# -- the entry point ------------------------------------------------------------------------------------------------


def entered(folder: Path, *words: str, **environment: str) -> list[str]:
    """Return what the entry point would run."""
    fake = folder / "servable"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "MODEL_NAME": "model", "MODEL_BASE_PATH": "/models", **environment}
    done = subprocess.run([ENTRYPOINT, *words], check=True, capture_output=True, text=True, env=given)
    return done.stdout.splitlines()


SERVE = ["serve", "--host=0.0.0.0", "--port=8500", "--rest_api_port=8501"]


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ([], {}, [*SERVE, "--model_name=model", "--model_base_path=/models/model"]),
        (
            ["--enable_batching=a b"],
            {"MODEL_NAME": "spam ham", "MODEL_BASE_PATH": "/srv"},
            [*SERVE, "--model_name=spam ham", "--model_base_path=/srv/spam ham", "--enable_batching=a b"],
        ),
        (["--config=/x"], {}, [*SERVE, "--config=/x"]),
        (["--config", "/x"], {}, [*SERVE, "--config", "/x"]),
        ([], {"SERVABLE_CONFIG": "/x"}, SERVE),
        (["doctor", "--json"], {}, ["doctor", "--json"]),
    ],
)
def test_arguments_are_those_of_tensorflow_servings_image(
    tmp_path: Path, words: list[str], environment: dict[str, str], expected: list[str]
) -> None:
    assert entered(tmp_path, *words, **environment) == expected


def test_its_flags_exist() -> None:
    known = {f"--{item.name}" for item in option_fields()}
    assert set(re.findall(r"--[a-z_]+(?==)", ENTRYPOINT.read_text())) <= known


def test_it_is_executable() -> None:
    assert os.access(ENTRYPOINT, os.X_OK)
    assert ENTRYPOINT.read_text().startswith("#!/bin/sh\n")


def test_it_serves_for_real(models: LiveModels) -> None:
    """The image's arguments with other ports behind them; replaced by the server, it passes SIGTERM on."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    base = models.onnx("half_plus_two")
    environment = {"PATH": path, "MODEL_NAME": base.name, "MODEL_BASE_PATH": str(base.parent)}
    ports = ["--port=0", "--rest_api_port=0", "--listen=127.0.0.1:0"]
    with subprocess.Popen([ENTRYPOINT, *ports], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = next(line for line in lines if "listening on" in line).split()[2]
        assert any(f"{base.name}/1" in line for line in lines)
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()
        process.terminate()
        assert process.wait(15) == 0


# -- the others -----------------------------------------------------------------------------------------------------


def test_compose_names_files_that_exist() -> None:
    text = (DOCKER / "docker-compose.yml").read_text()
    (context,) = re.findall(r"context: (\S+)", text)
    (file,) = re.findall(r"dockerfile: (\S+)", text)
    assert (DOCKER / context).resolve() == ROOT
    assert (ROOT / file).exists()
    assert ":latest" not in text
    assert not re.search(r'- "?85', text), "published on the loopback only"


def test_conda_installs_this_project() -> None:
    path = ROOT / "deploy" / "conda" / "environment.yml"
    (below,) = re.findall(r"^ +- (\.\S*)$", path.read_text(), re.MULTILINE)
    assert (path.parent / below / "pyproject.toml").exists()
    assert "python=3.11" in path.read_text()


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_gives_the_server_time_to_drain() -> None:
    assert float(unit()["TimeoutStopSec"][0]) > ServeSettings().drain_timeout_s
    assert unit()["KillMode"] == ["mixed"]
    assert unit()["DynamicUser"] == ["yes"]
    assert unit()["NoNewPrivileges"] == ["yes"]
    assert "MemoryDenyWriteExecute" not in unit()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/servable/bin/servable", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", copy], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
