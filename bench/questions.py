"""Requests for the zoo's models as bytes of both wires, and the check that answers are right."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import grpc
import numpy as np

from servable.core.tensors import Array
from servable.protos import serving
from servable.zoo import catalog

PREDICT = "/tensorflow.serving.PredictionService/Predict"
_DT = {"float32": 1, "int32": 3, "int64": 9}


@dataclass(frozen=True)
class Sample:
    """One request and its right answer."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]

    def grpc_body(self, model: str) -> bytes:
        request = serving.PredictRequest()
        request.model_spec.name = model
        for name, array in self.inputs.items():
            tensor = request.inputs[name]
            tensor.dtype = _DT[array.dtype.name]
            for size in array.shape:
                tensor.tensor_shape.dim.add().size = size
            tensor.tensor_content = array.tobytes()
        return bytes(request.SerializeToString())

    def framed(self, model: str) -> bytes:
        body = self.grpc_body(model)
        return b"\0" + len(body).to_bytes(4, "big") + body

    def rest_body(self) -> bytes:
        if len(self.inputs) == 1:
            (array,) = self.inputs.values()
            return json.dumps({"instances": array.tolist()}).encode()
        return json.dumps({"inputs": {name: array.tolist() for name, array in self.inputs.items()}}).encode()


def samples(model: str, row_counts: Sequence[int]) -> list[Sample]:
    """Requests of several sizes with different values, and what the numpy reference answers."""
    found = []
    for seed, rows in enumerate(row_counts):
        inputs = catalog.sample_inputs(model, rows=rows, seed=seed)
        found.append(Sample(inputs, catalog.reference(model, inputs)))
    return found


def close(left: Array, right: Array) -> bool:
    return left.shape == right.shape and bool(np.allclose(left, right, rtol=1e-4, atol=1e-5))


@dataclass
class Verifier:
    """A second client that asks now and then, during the load, and compares every answer."""

    model: str
    port: int
    over: str
    found: list[Sample]
    right: int = 0
    wrong: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        ask = self._over_grpc() if self.over == "grpc" else self._over_rest
        count = 0
        while not self._stop.is_set():
            sample = self.found[count % len(self.found)]
            count += 1
            try:
                answer = ask(sample)
                expected = next(iter(sample.outputs.values()))
                if close(answer, expected.astype(np.float64)):
                    self.right += 1
                else:
                    self.wrong.append(f"{answer.tolist()} instead of {expected.tolist()}")
            except Exception as error:  # noqa: BLE001  # whatever it is, it is not a right answer
                self.wrong.append(repr(error))
            time.sleep(0.05)

    def _over_rest(self, sample: Sample) -> Array:
        url = f"http://127.0.0.1:{self.port}/v1/models/{self.model}:predict"
        with urllib.request.urlopen(url, sample.rest_body(), timeout=30) as reply:
            return np.asarray(json.load(reply)["predictions"])

    def _over_grpc(self) -> Callable[[Sample], Array]:
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        call = channel.unary_unary(PREDICT, None, serving.PredictResponse.FromString)

        def ask(sample: Sample) -> Array:
            reply = call(sample.grpc_body(self.model), timeout=30)
            tensor = reply.outputs[next(iter(sample.outputs))]
            return np.asarray(tensor.float_val).reshape([dim.size for dim in tensor.tensor_shape.dim])

        return ask
