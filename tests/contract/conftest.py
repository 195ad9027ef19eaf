"""The contract's models, built once a session, each kind when it is first asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract import build_onnx_models, build_python_models


@pytest.fixture(scope="session")
def contract_models(tmp_path_factory: pytest.TempPathFactory):
    """Return a function: kind of artifact -> the folder with its models."""
    built: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in built:
            built[kind] = tmp_path_factory.mktemp(kind)
            _build(kind, built[kind])
        return built[kind]

    def _build(kind: str, target: Path) -> None:
        if kind == "onnx":
            build_onnx_models.build(target)
        elif kind == "python":
            build_python_models.build(target)
        elif kind == "openvino":
            build_onnx_models.convert(folder("onnx"), target)
        else:
            builder = Path(__file__).with_name("build_saved_models.py")
            done = subprocess.run(
                [sys.executable, builder, target], check=False, capture_output=True, text=True, timeout=50
            )
            assert done.returncode == 0, done.stderr

    return folder
