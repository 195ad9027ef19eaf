"""Who can be compared: a server that runs already, this package, another revision of it, or a peer."""

from __future__ import annotations

import io
import os
import platform
import shlex
import subprocess
import sys
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from servable.core.cache import cache_dir
from servable.core.environments import pinned
from servable.core.errors import failed_precondition, invalid_argument
from servable.core.progress import Progress
from servable.lab.peers import PEERS, Command, Door, Environment, Peer, Placement
from servable.lab.peers.base import HOST
from servable.lab.target import parse_endpoint

FORMS = f"a URL, 'servable [OPTION ...]', 'git:REVISION [OPTION ...]' or a peer: {', '.join(PEERS)}"


class Contestant(ABC):
    """Something to measure. ``artifact`` is what it serves, ``onnx`` or ``saved_model``; ``None``: it has its own."""

    label: str
    artifact: str | None = "onnx"
    start_limit_s = 60.0

    def prepare(self, report: Progress) -> None:  # noqa: B027  # most need nothing
        """Get what it needs; ``ServingError`` says why that failed."""

    def refuses(self, model: str) -> str:
        """Return why it cannot serve an example model; empty if it can."""
        return ""

    def versions(self) -> dict[str, str]:
        """Return the versions of what makes it up."""
        return {}

    @abstractmethod
    def command(self, placement: Placement) -> Command | None:
        """Return how to start it; ``None``: it runs."""

    @abstractmethod
    def doors(self, placement: Placement) -> list[Door]:
        """Return the ways to ask it."""

    def ready_url(self, placement: Placement) -> str | None:
        """Return what answers 200 when it is ready; ``None``: it is when its port is open."""
        return None


class Ours(Contestant):
    """Ordinary ``servable serve``: both wires on one port, metrics on."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = list(options)
        self.label = shlex.join(["servable", *options])

    def versions(self) -> dict[str, str]:
        """Name the package and what computes."""
        names = ("servable", "onnxruntime", "numpy", "uvloop", "httptools", "orjson", "protobuf")
        return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}

    def command(self, placement: Placement) -> Command:
        """Serve the artifact."""
        words = [
            sys.executable, "-m", "servable", "serve", f"{placement.model}={placement.artifact}",
            "--listen", f"{HOST}:{placement.ports[0]}", "--log_level", "warning",
            f"--tensorflow_intra_op_parallelism={placement.threads}", *self._options,
        ]  # fmt: skip
        return Command(words, self._environment(), placement.folder)

    def doors(self, placement: Placement) -> list[Door]:
        """TensorFlow Serving's protocols."""
        place = f"{HOST}:{placement.ports[0]}/{placement.model}"
        return [Door(f"grpc://{place}", "tfserving-grpc"), Door(f"http://{place}", "tfserving-rest")]

    def ready_url(self, placement: Placement) -> str | None:
        """Ready when the model is."""
        return f"http://{HOST}:{placement.ports[0]}/readyz"

    def _environment(self) -> dict[str, str]:
        return {}


class Revision(Ours):
    """The sources of a git revision with the libraries of this environment."""

    def __init__(self, revision: str, options: Sequence[str] = (), repository: Path | None = None) -> None:
        super().__init__(options)
        self.label = " ".join([f"git:{revision}", *map(shlex.quote, options)])
        self._revision = revision
        self._repository = repository or Path()
        self._commit = ""
        self._sources = Path()

    def prepare(self, report: Progress) -> None:
        """Export the revision into the cache, beside the environments of peers; the repository is left as it is."""
        self._commit = self._git("rev-parse", "--verify", "--quiet", f"{self._revision}^{{commit}}").decode().strip()
        self._sources = cache_dir() / "revisions" / self._commit
        if not self._sources.exists():
            report(f"exporting {self._revision} to {self._sources}")
            fresh = self._sources.with_name(f".{self._commit}-{os.getpid()}")
            with tarfile.open(fileobj=io.BytesIO(self._git("archive", self._commit, "src"))) as archive:
                archive.extractall(fresh, filter="data")
            fresh.rename(self._sources)

    def versions(self) -> dict[str, str]:
        """Name the commit too."""
        return {**super().versions(), "servable": f"git {self._commit[:12]}"}

    def _environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self._sources / "src")}

    def _git(self, *words: str) -> bytes:
        try:
            return subprocess.run(  # noqa: S603  # git is looked for on PATH, as a shell would
                ["git", *words],  # noqa: S607
                check=True,
                capture_output=True,
                cwd=self._repository,
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or b""
            text = said.decode(errors="replace").strip() or f"there is no revision {self._revision!r} in this directory"
            raise failed_precondition(f"git {words[0]} failed: {text}") from error


class Running(Contestant):
    """A server that somebody else has started: nothing is known of its processes."""

    artifact = None

    def __init__(self, url: str) -> None:
        self.label = url
        self._endpoint = parse_endpoint(url)

    def command(self, placement: Placement) -> None:
        """It runs."""
        return

    def doors(self, placement: Placement) -> list[Door]:
        """As the URL says."""
        return [Door(self._endpoint.url, self._endpoint.wire)]


class PeerContestant(Contestant):
    """Somebody else's server, in its own environment."""

    def __init__(self, peer: Peer) -> None:
        self.label = peer.name
        self.artifact = peer.artifact
        self.start_limit_s = peer.start_limit_s
        self._peer = peer
        self._environment = Environment(peer) if peer.requirements is not None else None

    def prepare(self, report: Progress) -> None:
        """Make its environment."""
        lacking = self._peer.lacking()
        if lacking:
            raise failed_precondition(lacking)
        if self._environment is not None:
            self._environment.install(report)

    def refuses(self, model: str) -> str:
        """Ask the peer."""
        return self._peer.refuses.get(model, "")

    def versions(self) -> dict[str, str]:
        """Name its Python, its packages and what computes."""
        if self._peer.requirements is None:
            return {}
        known = pinned(self._peer.requirements)
        names = [*self._peer.packages, *(name for name in ("onnxruntime", "numpy") if name in known)]
        python = ".".join(map(str, self._peer.python))
        return {"python": python, **{name: known[name] for name in dict.fromkeys(names)}}

    def command(self, placement: Placement) -> Command:
        """Ask the peer."""
        python = self._environment.python if self._environment is not None else Path(sys.executable)
        return self._peer.command(python, placement)

    def doors(self, placement: Placement) -> list[Door]:
        """Ask the peer."""
        return self._peer.doors(placement)

    def ready_url(self, placement: Placement) -> str | None:
        """Ask the peer."""
        return self._peer.ready_url(placement)


def parse_contestant(text: str) -> Contestant:
    """Read what a person typed; INVALID_ARGUMENT says what there is."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise invalid_argument(f"{text!r} cannot be read: {error}") from None
    if not words:
        raise invalid_argument(f"a contestant is {FORMS}")
    name, options = words[0], words[1:]
    if name == "servable":
        return Ours(options)
    if name.startswith("git:") and len(name) > len("git:"):
        return Revision(name.removeprefix("git:"), options)
    if options:
        raise invalid_argument(f"{name!r} takes no options; 'servable' and 'git:REVISION' do")
    if "://" in name:
        return Running(name)
    if name in PEERS:
        return PeerContestant(PEERS[name])
    raise invalid_argument(f"{name!r} is no contestant: expected {FORMS}")
