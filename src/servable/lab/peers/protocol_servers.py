"""Peers that speak a protocol of their own: TensorFlow Serving's, or the Open Inference Protocol, or tfserver's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import orjson

from servable.core.errors import internal
from servable.core.messages import ModelRef
from servable.lab.exchange import Prepared, Sample, Tensors
from servable.lab.peers.base import HOST, SERVERS, Command, Door, Peer, Placement
from servable.lab.wires.tfserving import TfservingGrpc, TfservingRest
from servable.transport.exchange import RequestHead
from servable.transport.reply import Reply
from servable.wire import json_writer
from servable.wire import tfserving_rest as rest

_JPEG = "its SavedModel takes JPEG files, not the pixels that the others get"
_JSON = ((b"content-type", b"application/json"),)


class Grpcio(Peer):
    """What people write who want gRPC in Python."""

    name = "grpcio"
    summary = "a grpcio server with 8 threads and TensorFlow Serving's Predict"
    packages = ("grpcio",)

    def command(self, python: Path, placement: Placement) -> Command:
        """Run it with our message definitions, which need nothing but protobuf."""
        command = self.program(python, "grpcio_server.py", placement)
        path = f"{SERVERS}:{SERVERS.parents[3]}"
        return Command(command.words, {**command.environment, "PYTHONPATH": path}, command.directory)

    def doors(self, placement: Placement) -> list[Door]:
        """Ask over gRPC."""
        return [Door(f"grpc://{HOST}:{placement.ports[0]}/{placement.model}", "tfserving-grpc")]

    def ready_url(self, placement: Placement) -> str | None:
        """It loads its model before it opens its port."""
        return None


class TensorFlowModelServer(Peer):
    """TensorFlow Serving itself, where it is installed."""

    name = "tensorflow_model_server"
    summary = "TensorFlow Serving, if tensorflow_model_server is on PATH; batching on"
    packages = ()
    artifact = "saved_model"
    refuses = {"resnet50": _JPEG}  # noqa: RUF012  # never changed

    @property
    def requirements(self) -> Path | None:
        """It comes from the system's packages."""
        return None

    def lacking(self) -> str:
        """Look for the program."""
        return "" if _program(self.name) else f"there is no {self.name} of TensorFlow on PATH"

    def command(self, python: Path, placement: Placement) -> Command:
        """Serve the directory of versions above the SavedModel."""
        program = _program(self.name) or self.name
        parameters = placement.folder / "batching.txt"
        parameters.write_text(
            f"max_batch_size {{ value: {placement.batch_rows} }}\n"
            f"batch_timeout_micros {{ value: {placement.batch_wait_ms * 1e3:.0f} }}\n"
            f"num_batch_threads {{ value: {placement.threads} }}\n"
        )
        http_port, grpc_port, _ = placement.ports
        words = [
            program, f"--rest_api_port={http_port}", f"--port={grpc_port}", f"--model_name={placement.model}",
            f"--model_base_path={placement.artifact.parent}", "--enable_batching",
            f"--batching_parameters_file={parameters}",
            f"--tensorflow_intra_op_parallelism={placement.threads}", "--tensorflow_inter_op_parallelism=1",
        ]  # fmt: skip
        return Command(words, self.environment(placement), placement.folder)

    def doors(self, placement: Placement) -> list[Door]:
        """Both of its protocols."""
        http_port, grpc_port, _ = placement.ports
        return [
            Door(f"grpc://{HOST}:{grpc_port}/{placement.model}", "tfserving-grpc"),
            Door(f"http://{HOST}:{http_port}/{placement.model}", "tfserving-rest"),
        ]

    def ready_url(self, placement: Placement) -> str | None:
        """A model that is not loaded has no metadata."""
        return f"http://{HOST}:{placement.ports[0]}/v1/models/{placement.model}/metadata"


class OpenInference(Peer):
    """A server of the Open Inference Protocol, which KServe calls version 2."""

    def doors(self, placement: Placement) -> list[Door]:
        """Both protocols."""
        http_port, grpc_port, _ = placement.ports
        return [
            Door(f"grpc://{HOST}:{grpc_port}/{placement.model}", "kserve-grpc"),
            Door(f"http://{HOST}:{http_port}/v2/models/{placement.model}/infer", "kserve-rest"),
        ]

    def ready_url(self, placement: Placement) -> str | None:
        """Ask for the model."""
        return f"http://{HOST}:{placement.ports[0]}/v2/models/{placement.model}/ready"


class PyTriton(OpenInference):
    """Triton, as its Python package brings it."""

    name = "pytriton"
    summary = "Triton with a Python model through pytriton, dynamic batching"
    packages = ("nvidia-pytriton",)
    system_python = True

    def command(self, python: Path, placement: Placement) -> Command:
        """Run it."""
        return self.program(python, "pytriton_app.py", placement)


class MlServer(OpenInference):
    """A runtime of the user's, found by settings files."""

    name = "mlserver"
    summary = "MLServer with a custom runtime, in its own process, adaptive batching"
    packages = ("mlserver",)

    def command(self, python: Path, placement: Placement) -> Command:
        """Write its settings, and run it on them."""
        http_port, grpc_port, metrics_port = placement.ports
        settings = {
            "host": HOST, "http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port,
            "parallel_workers": 0, "debug": False, "grpc_max_message_length": 256 << 20,
        }  # fmt: skip
        model = {
            "name": placement.model, "implementation": "mlserver_model.Predictor",
            "max_batch_size": placement.batch_rows, "max_batch_time": placement.batch_wait_ms / 1e3,
        }  # fmt: skip
        (placement.folder / "settings.json").write_bytes(msgspec.json.encode(settings))
        (placement.folder / "model-settings.json").write_bytes(msgspec.json.encode(model))
        words = [str(python.parent / "mlserver"), "start", str(placement.folder)]
        return Command(words, self.environment(placement), placement.folder)


class TfServer(Peer):
    """The old server that this project succeeds, with TensorFlow of its time."""

    name = "tfserver"
    summary = "tfserver 0.4.11 on Python 3.10 and TensorFlow 2.11"
    packages = ("tfserver", "tensorflow-cpu")
    python = (3, 10)
    artifact = "saved_model"
    ready_path = "/models"
    start_limit_s = 120.0
    refuses = {  # noqa: RUF012  # never changed
        "resnet50": _JPEG,
        "text_cnn": "it fails models with several inputs",
    }

    def command(self, python: Path, placement: Placement) -> Command:
        """Run it; TensorFlow reads its numbers of threads from the environment."""
        command = self.program(python, "tfserver_app.py", placement)
        threads = {
            "TF_NUM_INTRAOP_THREADS": str(placement.threads), "TF_NUM_INTEROP_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }  # fmt: skip
        return Command(command.words, {**command.environment, **threads}, command.directory)

    def doors(self, placement: Placement) -> list[Door]:
        """TensorFlow Serving's gRPC with a signature of its own name, and its own JSON."""
        model, authority = ModelRef(placement.model), f"{HOST}:{placement.ports[0]}"
        grpc = TfservingGrpc(model, authority.encode(), signature="predict")
        http = TfServerRest(model, authority.encode(), specs=placement.outputs)
        return [
            Door(f"grpc://{authority}/{placement.model}", "tfserving-grpc", grpc),
            Door(f"http://{authority}/models/{placement.model}/predict", "http", http),
        ]


def _program(name: str) -> str | None:
    """Return a compiled program on PATH: this package brings a script of the same name, which is no peer."""
    for folder in os.get_exec_path():
        path = Path(folder, name)
        try:
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF" and os.access(path, os.X_OK):
                    return str(path)
        except OSError:
            continue
    return None


@dataclass(frozen=True)
class TfServerRest(TfservingRest):
    """``POST /models/NAME/predict`` with the inputs by name; answers are in ``result``, also by name."""

    def prepare(self, sample: Sample) -> Prepared:
        """Encode the inputs by name."""
        parts = [json_writer.dumps_tensor(name, name, array)[1:-1] for name, array in sample.inputs.items()]
        head = RequestHead(
            b"POST", f"/models/{self.model.name}/predict".encode(), _JSON,
            authority=self.authority, scheme=self.scheme, version=b"1.1",
        )  # fmt: skip
        return Prepared(head, b"{" + b",".join(parts) + b"}", sample.rows, sample.expected)

    def outputs(self, reply: Reply) -> Tensors:
        """Decode the outputs that are the model's; the rest are classes and their scores."""
        try:
            result = orjson.loads(reply.body)["result"]
            wanted = {name: result[name] for name in self.specs or result}
        except (ValueError, KeyError, TypeError) as error:
            raise internal(f"the server sent what is no answer of tfserver: {error!r}") from None
        single = len(wanted) == 1
        columns = next(iter(wanted.values())) if single else wanted
        return rest.decode_predict_response(orjson.dumps({"outputs": columns}), self.specs)
