"""Whose Python may run: the one door that every load goes through, and what the settings say at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact, EngineOptions
from servable.engines.plan import choose, load
from servable.settings import ServeSettings, read_settings


@pytest.mark.parametrize(
    "artifact", [Artifact("python", Path("/m/1/model.py")), Artifact("onnx", Path("/m/1/x"), Path("/m/1/transform.py"))]
)
def test_no_engine_is_asked_to_load_python_that_is_not_allowed(artifact: Artifact) -> None:
    with pytest.raises(ServingError) as caught:
        load(choose(artifact), artifact, EngineOptions())
    assert caught.value.code is Code.PERMISSION_DENIED
    assert str(artifact.code) in caught.value.message
    assert "--allow_python" in caught.value.message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root" / "texts" / "1").mkdir(parents=True)
    (tmp_path / "models.config").write_text(
        f"model_config_list {{ config {{ name: 'texts' base_path: '{tmp_path}/root/texts' }} }}"
    )
    (tmp_path / "servable.toml").write_text('[[models]]\npath = "root/texts"\n')
    return tmp_path


def allowed(**given: object) -> bool:
    (config,) = read_settings(given, {}).model_configs()
    return config.options.allow_python


def test_a_path_on_the_command_line_may_run_python(folder: Path) -> None:
    assert allowed(models=[f"{folder}/root/texts"])
    assert allowed(models=[f"named={folder}/root/texts"])
    assert allowed(model_base_path=f"{folder}/root/texts")


@pytest.mark.parametrize("flag", [False, True])
def test_paths_from_roots_and_files_need_the_flag(folder: Path, flag: bool) -> None:
    assert allowed(models=[f"{folder}/root"], allow_python=flag) is flag
    assert allowed(model_config_file=f"{folder}/models.config", allow_python=flag) is flag
    assert allowed(config=f"{folder}/servable.toml", allow_python=flag) is flag


def test_the_other_options_of_engines_still_reach_every_model(folder: Path) -> None:
    settings = ServeSettings(models=(f"{folder}/root/texts",), tensorflow_intra_op_parallelism=3)
    (config,) = settings.model_configs()
    assert config.options == EngineOptions(intra_op_threads=3, plan="auto", allow_python=True)
