"""What a peer is: somebody else's server, how it is started here and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from servable.core.signatures import TensorSpec
from servable.lab.exchange import Wire

SERVERS = Path(__file__).parent / "servers"
REQUIREMENTS = Path(__file__).parent / "requirements"
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Placement:
    """What a contestant has to serve, and with what. ``folder`` is its own, for files that it wants or leaves."""

    model: str
    artifact: Path
    """A ``model.onnx``, or the directory of a SavedModel."""
    folder: Path
    ports: tuple[int, int, int]
    threads: int = 1
    batch_rows: int = 32
    batch_wait_ms: float = 1.0
    outputs: Mapping[str, TensorSpec] = field(default_factory=dict)
    """What the model answers: JSON tells neither names nor types."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server."""

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """One way to ask a running contestant. ``speaks`` replaces the wire where a peer has a dialect of its own."""

    url: str
    wire: str
    speaks: Wire | None = None

    @property
    def protocol(self) -> str:
        """Return ``gRPC`` or ``REST``."""
        return "gRPC" if self.wire.endswith("grpc") else "REST"


class Peer:
    """Somebody else's server. Its versions are in ``requirements/NAME.txt``, every package of its environment."""

    name: ClassVar[str]
    summary: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    """The packages that reports name."""
    python: ClassVar[tuple[int, int]] = (3, 11)
    system_python: ClassVar[bool] = False
    """Only the operating system's own interpreter will do."""
    artifact: ClassVar[str] = "onnx"
    ready_path: ClassVar[str] = "/readyz"
    start_limit_s: ClassVar[float] = 60.0
    refuses: ClassVar[Mapping[str, str]] = {}
    """Example models that it cannot serve, with the reason."""

    @property
    def requirements(self) -> Path | None:
        """Return the file of its packages; ``None`` for a peer that is no Python package."""
        return REQUIREMENTS / f"{self.name}.txt"

    def lacking(self) -> str:
        """Return what it needs of this machine, beside packages, that is not there; empty: nothing."""
        return ""

    def command(self, python: Path, placement: Placement) -> Command:
        """Say how to start it."""
        raise NotImplementedError

    def doors(self, placement: Placement) -> list[Door]:
        """Return the ways to ask it, most common first."""
        url = f"http://{HOST}:{placement.ports[0]}/v1/models/{placement.model}:predict"
        return [Door(url, "tfserving-rest")]

    def ready_url(self, placement: Placement) -> str | None:
        """Return what answers 200 when it is ready; ``None``: it is when its port is open."""
        return f"http://{HOST}:{placement.ports[0]}{self.ready_path}"

    def environment(self, placement: Placement) -> dict[str, str]:
        """Return what the programs in ``servers`` read."""
        return {
            "MODEL": str(placement.artifact),
            "MODEL_NAME": placement.model,
            "THREADS": str(placement.threads),
            "PORT": str(placement.ports[0]),
            "GRPC_PORT": str(placement.ports[1]),
            "METRICS_PORT": str(placement.ports[2]),
            "BATCH_ROWS": str(placement.batch_rows),
            "BATCH_WAIT_MS": str(placement.batch_wait_ms),
            "FOLDER": str(placement.folder),
            "HOME": str(placement.folder),
            "PYTHONPATH": str(SERVERS),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }

    def program(self, python: Path, script: str, placement: Placement, *arguments: str) -> Command:
        """Return the command that runs one of the programs in ``servers``."""
        words = [str(python), str(SERVERS / script), *arguments]
        return Command(words, self.environment(placement), placement.folder)
