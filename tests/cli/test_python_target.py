"""``inspect`` and ``predict`` of a Python model: a path that is named runs it, a root that holds it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from servable.cli.targets import find_version
from servable.core.errors import Code, ServingError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "texts" / "1").mkdir(parents=True)
    (tmp_path / "texts" / "1" / "model.py").write_text("raise AssertionError('it ran')\n")
    return tmp_path


@pytest.mark.parametrize("path", ["texts", "texts/1", "texts/1/model.py"])
def test_a_path_of_its_own_is_found(root: Path, path: str) -> None:
    artifact = find_version(root / path, None)
    assert (artifact.kind, artifact.path) == ("python", root / "texts" / "1" / "model.py")


def test_a_root_that_holds_only_it_is_refused(root: Path) -> None:
    with pytest.raises(ServingError, match=r"model\.py is Python, which runs only from a path that is named") as caught:
        find_version(root, None)
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_a_root_that_holds_only_another_model_is_not(tmp_path: Path) -> None:
    (tmp_path / "plain" / "1").mkdir(parents=True)
    (tmp_path / "plain" / "1" / "model.onnx").touch()
    assert find_version(tmp_path, None).kind == "onnx"
