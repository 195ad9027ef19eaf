"""What lies in a project's folder: names, and the words of its small text files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Final

from servable.core.errors import failed_precondition, not_found

MOST_FILES: Final = 20_000
MOST_TEXT: Final = 256 << 10
MOST_TEXTS: Final = 64 << 20
MOST_BINARY: Final = 64 << 20
_PASSED_OVER: Final = frozenset(
    {".git", ".hg", ".svn", "node_modules", "__pycache__", "site-packages", ".tox", ".nox", ".mypy_cache",
     ".pytest_cache", ".ruff_cache", ".hypothesis", "dist", ".idea", ".vscode"}
)  # fmt: skip
_TEXTS: Final = frozenset(
    {".md", ".rst", ".txt", ".toml", ".yml", ".yaml", ".json", ".py", ".ipynb", ".sh", ".cfg", ".ini", ".pbtxt",
     ".config", ".conf", ".service", ".tf", ".mk"}
)  # fmt: skip
_SAID: Final = re.compile(r'"""(?s:.*?)"""|#[^\n]*')
"""Docstrings and comments of Python: what they mention is not done by being mentioned."""
_TEXT_NAMES: Final = ("Dockerfile*", "*.Dockerfile", "Makefile", "Jenkinsfile", "Justfile", "Procfile", "run")


@dataclass(frozen=True, slots=True)
class Tree:
    """Files by their path from the root, and the texts among them. ``cut`` says that there were too many to look at."""

    root: Path
    files: tuple[str, ...]
    texts: Mapping[str, str] = field(repr=False)
    cut: bool = False

    def named(self, *patterns: str) -> list[str]:
        """Return the files whose name, or, for a pattern with a slash, whose path fits one of the patterns."""
        return [file for file in self.files if any(_fits(file, pattern) for pattern in patterns)]

    def saying(self, words: re.Pattern[str], *patterns: str) -> list[str]:
        """Return the texts in which the words are found, of those whose names fit; without patterns of all."""
        return [
            file
            for file, text in self.texts.items()
            if (not patterns or any(_fits(file, pattern) for pattern in patterns)) and words.search(text)
        ]

    def holding(self, words: re.Pattern[bytes], *patterns: str) -> list[str]:
        """Return the files of these names in whose bytes the words are found; very large ones are passed over."""
        return [file for file in self.named(*patterns) if self._holds(file, words)]

    def _holds(self, file: str, words: re.Pattern[bytes]) -> bool:
        path = self.root / file
        try:
            return path.stat().st_size <= MOST_BINARY and words.search(path.read_bytes()) is not None
        except OSError:
            return False


def look(root: Path) -> Tree:
    """Walk a folder. NOT_FOUND if there is none; what cannot be read in it is passed over."""
    if not root.exists():
        raise not_found(f"there is no folder {root}")
    if not root.is_dir():
        raise failed_precondition(f"{root} is a file: a checklist is of a project's folder")
    files: list[str] = []
    texts: dict[str, str] = {}
    room = MOST_TEXTS
    for path in _walk(root):
        if len(files) == MOST_FILES:
            return Tree(root, tuple(files), texts, cut=True)
        name = path.relative_to(root).as_posix()
        files.append(name)
        text = _text(path, room)
        if text is not None:
            texts[name] = text
            room -= len(text)
    return Tree(root, tuple(files), texts)


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        # An environment of Python is somebody else's project.
        folders[:] = sorted(
            name for name in folders if name not in _PASSED_OVER and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            yield here / name


def _text(path: Path, room: int) -> str | None:
    if path.suffix.lower() not in _TEXTS and not any(fnmatch(path.name, pattern) for pattern in _TEXT_NAMES):
        return None
    try:
        size = path.stat().st_size
        if not path.is_file() or size > min(MOST_TEXT, room):
            return None
        text = path.read_text(errors="replace")
    except OSError:
        return None
    return _SAID.sub("", text) if path.suffix == ".py" else text


def _fits(file: str, pattern: str) -> bool:
    return fnmatch(file if "/" in pattern else PurePosixPath(file).name, pattern)
