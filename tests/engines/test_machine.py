from __future__ import annotations

import os
from pathlib import Path

import pytest

from servable.engines.machine import Cpus, Memory, cpus, memory

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cgroups").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 9999999 kB\nMemAvailable: 4194304 kB\n")
    return tmp_path


def write(root: Path, memberships: str, files: dict[str, str]) -> tuple[Path, Path]:
    (root / "memberships").write_text(memberships)
    for name, text in files.items():
        path = root / "cgroups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "memberships", root / "cgroups"


def memory_of(root: Path, memberships: str, **files: str) -> Memory:
    named = {name.replace("__", "/").replace("_DOT_", "."): text for name, text in files.items()}
    return memory(*write(root, memberships, named), root / "meminfo")


def test_cpus_are_described(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 1})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    found = cpus(*write(root, "0::/a\n", {"a/cpu.max": "150000 100000"}))
    assert found == Cpus(8, (1, 3), 1.5)
    assert (str(found), found.threads) == ("2 of 8 CPUs, quota 1.5", 1)
    assert str(cpus(*write(root, "", {}))) == "2 of 8 CPUs"


def test_memory_without_a_limit_is_the_machines(root: Path) -> None:
    assert memory_of(root, "0::/a\n", a__memory_DOT_max="max\n") == Memory(None, 4 * GIB)
    assert memory_of(root, "4:memory:/a\n", memory__a__memory_DOT_limit_in_bytes=str(2**63 - 4096)) == Memory(
        None, 4 * GIB
    )


def test_memory_is_the_least_of_all_around(root: Path) -> None:
    files = {
        "a__memory_DOT_max": str(3 * GIB), "a__memory_DOT_current": str(2 * GIB),
        "a__b__memory_DOT_max": str(2 * GIB), "a__b__memory_DOT_current": "0",
    }  # fmt: skip
    assert memory_of(root, "0::/a/b\n", **files) == Memory(2 * GIB, GIB)


def test_the_first_version_of_cgroups_is_read_too(root: Path) -> None:
    files = {"memory__a__memory_DOT_limit_in_bytes": str(GIB), "memory__a__memory_DOT_usage_in_bytes": str(2 * GIB)}
    assert memory_of(root, "4:memory:/a\n", **files) == Memory(GIB, 0)


def test_without_proc_nothing_is_claimed(tmp_path: Path) -> None:
    assert memory(tmp_path / "none", tmp_path, tmp_path / "none") == Memory(None, None)
