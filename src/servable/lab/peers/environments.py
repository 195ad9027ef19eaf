"""An environment for each peer, made when it is first needed, in the user's cache.

Every package is pinned by the peer's own list and installed without looking at what packages ask for: what is not on
the list is not installed. An environment is complete when its mark is there; its name changes with the list.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from servable.core.cache import cache_dir
from servable.core.errors import failed_precondition
from servable.lab.peers.base import Peer

_COMPLETE = "complete"
_MOST_LINES = 8
_PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")


class Environment:
    """Where a peer's packages are, or would be."""

    def __init__(self, peer: Peer, root: Path | None = None) -> None:
        self.peer = peer
        requirements = peer.requirements
        assert requirements is not None, f"{peer.name} has no packages"
        self._requirements = requirements
        text = f"{peer.python}{peer.system_python}{requirements.read_text()}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.path = (root or cache_dir() / "peers") / f"{peer.name}-{digest}"

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.path / "bin" / "python"

    def installed(self) -> bool:
        """Return whether it is complete."""
        return (self.path / _COMPLETE).exists()

    def install(self, report: Callable[[str], None] = lambda _: None) -> None:
        """Make it unless it is there; FAILED_PRECONDITION says what was lacking or how the installation failed.

        Processes that want it at the same time wait for the one that makes it.
        """
        if self.installed():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.with_suffix(".lock")):
            if self.installed():
                return
            interpreter = find_python(self.peer.python, system=self.peer.system_python)
            if interpreter is None:
                place = "of the operating system" if self.peer.system_python else "on PATH or in ~/.pyenv"
                version = ".".join(map(str, self.peer.python))
                raise failed_precondition(f"{self.peer.name} needs a Python {version} {place}, and there is none")
            report(f"installing {self.peer.name} into {self.path}")
            shutil.rmtree(self.path, ignore_errors=True)
            try:
                # Without a pip of its own: ours installs there, and setting one up takes longer than most peers.
                _run([interpreter, "-m", "venv", "--without-pip", str(self.path)], "making the environment")
                _run(
                    [
                        sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet",
                        "--disable-pip-version-check", "--no-deps", "--requirement", str(self._requirements),
                    ],
                    "pip",
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


def _run(command: list[str], what: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    try:
        done = subprocess.run(  # noqa: S603  # venv and pip, with words of ours
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
        )
    except OSError as error:
        raise failed_precondition(f"{what} could not be started: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise failed_precondition(f"{what} failed: " + "\n".join(lines[-_MOST_LINES:]))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
