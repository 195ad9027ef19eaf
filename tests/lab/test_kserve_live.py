"""Loads over the Open Inference Protocol: gRPC against grpcio with tritonclient's messages, and plain HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.lab.measure import measure
from servable.lab.plan import Plan
from servable.lab.session import Load, Progress
from servable.lab.synthesis import Wanted

grpc = pytest.importorskip("grpc")
messages = pytest.importorskip("tritonclient.grpc.service_pb2")
services: Any = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")
Servicer: Any = services.GRPCInferenceServiceServicer

METADATA = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}


def answer(x: Any) -> Any:
    """Return half the input plus two; wrong if its first number is above 0.9."""
    return (x / 2 + 2 + (x[:1, :1] > 0.9)).astype(np.float32)


class Grpc(Servicer):  # type: ignore[misc]
    def ModelMetadata(self, request: Any, _context: Any) -> Any:  # noqa: N802
        tensors = messages.ModelMetadataResponse.TensorMetadata
        return messages.ModelMetadataResponse(
            name=request.name,
            inputs=[tensors(**one) for one in METADATA["inputs"]],
            outputs=[tensors(**one) for one in METADATA["outputs"]],
        )

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.model_name != "half":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.model_name}")
        (tensor,) = request.inputs
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(list(tensor.shape))
        y = answer(x)
        output = messages.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=y.shape)
        return messages.ModelInferResponse(model_name="half", outputs=[output], raw_output_contents=[y.tobytes()])


class Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(json.dumps(METADATA).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        size = self.headers.get("inference-header-content-length")
        document = json.loads(body if size is None else body[: int(size)])
        (tensor,) = document["inputs"]
        if size is None:
            x = np.array(tensor["data"], np.float32)
        else:
            assert tensor["parameters"]["binary_data_size"] == len(body) - int(size)
            x = np.frombuffer(body[int(size) :], np.float32)
        y = answer(x.reshape(tensor["shape"]))
        output: dict[str, Any] = {"name": "y", "datatype": "FP32", "shape": list(y.shape)}
        if size is None:
            self.reply(json.dumps({"outputs": [{**output, "data": y.reshape(-1).tolist()}]}).encode())
            return
        output["parameters"] = {"binary_data_size": y.nbytes}
        head = json.dumps({"outputs": [output]}).encode()
        self.reply(head + y.tobytes(), len(head))

    def reply(self, body: bytes, header_length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        if header_length is not None:
            self.send_header("Inference-Header-Content-Length", str(header_length))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        services.add_GRPCInferenceServiceServicer_to_server(Grpc(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        rest = ThreadingHTTPServer(("127.0.0.1", 0), Rest)
        rest.daemon_threads = True
        thread = threading.Thread(target=rest.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield {"grpc": f"grpc://127.0.0.1:{port}", "http": f"http://127.0.0.1:{rest.server_address[1]}"}
        rest.shutdown()
        rest.server_close()
        thread.join()
        server.stop(None).wait()


@pytest.mark.parametrize("wire", ["kserve-grpc", "kserve-rest", "kserve-binary"])
def test_answers_over_kserve_are_verified(addresses: dict[str, str], tmp_path: Path, wire: str) -> None:
    x = np.linspace(0, 1, 60, dtype=np.float32).reshape(20, 3)
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "y.npz", y=x / 2 + 2)
    plan = Plan(
        url=f"{addresses['grpc' if wire == 'kserve-grpc' else 'http']}/half",
        wire=wire,
        data=tmp_path / "x.npz",
        expect=str(tmp_path / "y.npz"),
        variants=(Wanted(batch=2),),
        loads=(Load(concurrency=2, count=40, warmup_s=0),),
    )
    found = asyncio.run(measure(plan))
    (step,) = found.steps
    wrong_samples = sum(1 for at in range(0, 20, 2) if x[at, 0] > 0.9)
    assert wrong_samples > 0
    assert (step.errors, step.verified) == (0, 40)
    assert step.wrong == pytest.approx(4 * wrong_samples, abs=2)
    assert found.target.wire == wire


def test_errors_over_kserve_keep_their_code(addresses: dict[str, str]) -> None:
    plan = Plan(
        url=f"{addresses['grpc']}/nobody", wire="kserve-grpc", loads=(Load(concurrency=1, count=4, warmup_s=0),)
    )
    (step,) = asyncio.run(measure(plan)).steps
    assert (step.ok, step.errors) == (0, 4)
    assert (step.error_kinds[0].code, step.error_kinds[0].message) == ("NOT_FOUND", "no nobody")


def test_what_was_measured_before_the_server_went_is_kept() -> None:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        services.add_GRPCInferenceServiceServicer_to_server(Grpc(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        plan = Plan(
            url=f"grpc://127.0.0.1:{port}/half",
            wire="kserve-grpc",
            loads=(Load(concurrency=1, duration_s=0.25, warmup_s=0), Load(concurrency=2, duration_s=0.25, warmup_s=0)),
        )

        def stop_after_the_first(progress: Progress) -> None:
            if progress.label == "1 in flight":
                server.stop(None).wait()

        found = asyncio.run(measure(plan, on_progress=stop_after_the_first))
    assert [step.label for step in found.steps] == ["1 in flight"]
    assert found.ok > 0
    assert "could not be measured" in found.notes[0]
    assert "cannot connect" in found.notes[0]
