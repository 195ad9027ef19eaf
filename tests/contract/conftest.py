"""The contract's models, built once a session, each kind when it is first asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract import build_onnx_models, build_python_models

BUILDERS = {
    "build_saved_models.py": ("saved_model", "graph_def", "tflite"),
    "build_torch_models.py": ("torch_export", "torchscript"),
}
"""What builds in a process of its own, and the kinds that it makes, each in a folder of that name."""


@pytest.fixture(scope="session")
def contract_models(tmp_path_factory: pytest.TempPathFactory):
    """Return a function: kind of artifact -> the folder with its models."""
    built: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in built:
            _build(kind, tmp_path_factory.mktemp(kind))
        return built[kind]

    def _build(kind: str, target: Path) -> None:
        built[kind] = target
        if kind == "onnx":
            build_onnx_models.build(target)
        elif kind == "python":
            build_python_models.build(target)
        elif kind == "openvino":
            build_onnx_models.convert(folder("onnx"), target)
        else:
            builder, kinds = next(each for each in BUILDERS.items() if kind in each[1])
            built.update({each: target / each for each in kinds})
            done = subprocess.run(
                [sys.executable, Path(__file__).with_name(builder), target],
                check=False, capture_output=True, text=True, timeout=150,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

    return folder
