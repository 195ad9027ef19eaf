"""Python environments for software that cannot live in ours: other people's servers, converters. In the user's cache.

Every package is pinned by a list and installed without looking at what packages ask for: what is not on the list is not
installed. An environment is complete when its mark is there; its name changes with the list.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servable.core.errors import failed_precondition
from servable.core.progress import Progress, unheard

_COMPLETE = "complete"
_MOST_LINES = 8
_PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")


class Environment:
    """Where the packages on a list are, or would be.

    ``name`` and ``root`` place it; ``version`` is of Python; ``system`` asks for the operating system's own.
    """

    def __init__(
        self, name: str, requirements: Path, version: tuple[int, int], root: Path, *, system: bool = False
    ) -> None:
        self.name = name
        self._requirements = requirements
        self._version = version
        self._system = system
        text = f"{version}{system}{requirements.read_text()}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.path = root / f"{name}-{digest}"

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.path / "bin" / "python"

    def installed(self) -> bool:
        """Return whether it is complete."""
        return (self.path / _COMPLETE).exists()

    def install(self, report: Progress = unheard) -> None:
        """Make it unless it is there; FAILED_PRECONDITION says what was lacking or how the installation failed.

        Processes that want it at the same time wait for the one that makes it. One that was killed leaves its folder
        without the mark, and the next one begins anew.
        """
        if self.installed():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_suffix(".lock")) as lock:
                if not self.installed():
                    self._make(lock, report)
        except OSError as error:
            raise failed_precondition(f"cannot install {self.name} into {self.path}: {error.strerror}") from error

    def _make(self, lock: int, report: Progress) -> None:
        interpreter = find_python(self._version, system=self._system)
        if interpreter is None:
            place = "of the operating system" if self._system else "on PATH or in ~/.pyenv"
            version = ".".join(map(str, self._version))
            raise failed_precondition(f"{self.name} needs a Python {version} {place}, and there is none")
        report(f"installing {self.name} into {self.path}")
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            # Without a pip of its own: ours installs there, and setting one up takes longer than most environments.
            _run([interpreter, "-m", "venv", "--without-pip", str(self.path)], "making the environment", lock)
            _run(
                [
                    sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet",
                    "--disable-pip-version-check", "--no-deps", "--requirement", str(self._requirements),
                ],
                "pip",
                lock,
            )  # fmt: skip
            (self.path / _COMPLETE).touch()
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise


def pinned(requirements: Path) -> dict[str, str]:
    """Return the versions on a list, by lower-case name."""
    return {name.lower(): version for name, version in _PIN.findall(requirements.read_text())}


def find_python(version: tuple[int, int], *, system: bool = False) -> str | None:
    """Return an interpreter of a version: this one, one on PATH, or one of pyenv's."""
    name = "python{}.{}".format(*version)
    if system:
        found = Path("/usr/bin", name)
        return str(found) if found.exists() else None
    # Not this environment's own python, which a new environment would refer to.
    base = Path(sys.base_prefix, "bin", name)
    if base.exists():
        return str(base)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    versions = sorted(pyenv.glob("{}.{}.*/bin/{}".format(*version, name)))
    return str(versions[-1]) if versions else shutil.which(name)


def _run(command: list[str], what: str, lock: int) -> None:
    """Run a command that holds the lock too: what is left of a process that was killed must not disturb the next."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    try:
        done = subprocess.run(  # noqa: S603  # venv and pip, with words of ours
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment,
            pass_fds=(lock,),
        )  # fmt: skip
    except OSError as error:
        raise failed_precondition(f"{what} could not be started: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise failed_precondition(f"{what} failed: " + "\n".join(lines[-_MOST_LINES:]))


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
