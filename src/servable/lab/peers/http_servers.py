"""Peers that answer JSON over HTTP in a form of the user's choice. Ours is TensorFlow Serving's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from servable.core.messages import ModelRef
from servable.lab.exchange import Tensors
from servable.lab.peers.base import HOST, Command, Door, Peer, Placement
from servable.lab.wires.tfserving import TfservingRest
from servable.transport.reply import Reply
from servable.wire import tfserving_rest as rest


class Flask(Peer):
    """The classic."""

    name = "flask"
    summary = "flask under gunicorn, one worker with 8 threads"
    packages = ("flask", "gunicorn")

    def command(self, python: Path, placement: Placement) -> Command:
        """Run gunicorn. Its watch over workers is off: it would kill one that was stopped for a while."""
        words = [
            str(python), "-m", "gunicorn", "--workers", "1", "--worker-class", "gthread", "--threads", "8",
            "--keep-alive", "600", "--timeout", "0", "--log-level", "error",
            "--bind", f"{HOST}:{placement.ports[0]}", "flask_app:app",
        ]  # fmt: skip
        return Command(words, self.environment(placement), placement.folder)


class FastApi(Peer):
    """The usual choice today."""

    name = "fastapi"
    summary = "FastAPI under uvicorn, orjson, the model called in the event loop"
    packages = ("fastapi", "uvicorn")

    def command(self, python: Path, placement: Placement) -> Command:
        """Run uvicorn from the program."""
        return self.program(python, "fastapi_app.py", placement)


class Mosec(Peer):
    """A front in Rust, workers in Python."""

    name = "mosec"
    summary = "mosec, one worker, dynamic batching"
    packages = ("mosec",)
    ready_path = "/"

    def command(self, python: Path, placement: Placement) -> Command:
        """Run it."""
        port = str(placement.ports[0])
        limits = ("--timeout", "600000", "--max-body-size", str(256 << 20), "--capacity", "4096")
        return self.program(python, "mosec_app.py", placement, "--address", HOST, "--port", port, *limits)


class LitServe(Peer):
    """FastAPI before, processes behind."""

    name = "litserve"
    summary = "LitServe, one worker, dynamic batching"
    packages = ("litserve",)
    ready_path = "/health"

    def command(self, python: Path, placement: Placement) -> Command:
        """Run it."""
        return self.program(python, "litserve_app.py", placement)


class BentoMl(Peer):
    """A starlette service with adaptive batching."""

    name = "bentoml"
    summary = "BentoML, one worker, adaptive batching"
    packages = ("bentoml",)

    def command(self, python: Path, placement: Placement) -> Command:
        """Serve from the program's directory, where it is looked for."""
        words = [
            str(python), "-m", "bentoml", "serve", "bentoml_app:Predictor",
            "--host", HOST, "--port", str(placement.ports[0]),
        ]  # fmt: skip
        quiet = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(placement.folder / "bentoml")}
        return Command(words, {**self.environment(placement), **quiet}, placement.folder)

    def doors(self, placement: Placement) -> list[Door]:
        """Its batched answers are bare arrays."""
        (door,) = super().doors(placement)
        authority = f"{HOST}:{placement.ports[0]}".encode()
        return [Door(door.url, "http", BareRows(ModelRef(placement.model), authority, specs=placement.outputs))]


class RayServe(Peer):
    """Ray's proxy and one replica."""

    name = "ray"
    summary = "Ray Serve, one replica, dynamic batching"
    packages = ("ray",)
    ready_path = "/-/healthz"
    start_limit_s = 180.0

    def command(self, python: Path, placement: Placement) -> Command:
        """Run Ray and the application in one go."""
        command = self.program(python, "ray_app.py", placement)
        given = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(placement.folder), "RAY_AUTH_MODE": "disabled"}
        return Command(command.words, {**command.environment, **given}, command.directory)


@dataclass(frozen=True)
class BareRows(TfservingRest):
    """TensorFlow Serving's questions; answers are the rows without a name."""

    def outputs(self, reply: Reply) -> Tensors:
        """Decode ``[[...], ...]``."""
        return rest.decode_predict_response(b'{"predictions": ' + reply.body + b"}", self.specs)
