"""A live server with everything that TensorFlow Serving's own clients ask for."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

MODELS = """
model_config_list {{
  config {{
    name: "heads" base_path: "{heads}" model_platform: "tensorflow"
    version_labels {{ key: "stable" value: 1 }}
  }}
  config {{
    name: "half_plus_two" base_path: "{half}" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
    version_labels {{ key: "old" value: 1 }}
    version_labels {{ key: "a b" value: 3 }}
  }}
  config {{ name: "onnx_heads" base_path: "{onnx_heads}" model_platform: "tensorflow" }}
}}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ask for TensorFlow and its stubs, and leave what many tests share out of the time of the first."""
    here = Path(__file__).parent
    stubs = importlib.util.find_spec("tensorflow_serving") is not None
    for item in items:
        if here not in item.path.parents:
            continue
        item.add_marker(pytest.mark.conformance)
        item.add_marker(pytest.mark.tensorflow)
        item.add_marker(pytest.mark.timeout(180, func_only=True))
        if not stubs:
            item.add_marker(pytest.mark.skip(reason="tensorflow-serving-api is not installed"))


@pytest.fixture(scope="session")
def two_versions(models: LiveModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with the versions 1 and 3."""
    root = tmp_path_factory.mktemp("two_versions") / "half_plus_two"
    for version in (1, 3):
        shutil.copytree(models.onnx("half_plus_two") / "1", root / str(version))
    return root


@pytest.fixture(scope="session")
def heads_server(
    models: LiveModels, two_versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server of the model with many heads, and of one that has two versions and labels."""
    file = tmp_path_factory.mktemp("config") / "models.config"
    file.write_text(MODELS.format(heads=models.heads(), half=two_versions, onnx_heads=models.made("onnx_heads")))
    with ServerProcess("--model_config_file", file) as started:
        yield started.ready()
