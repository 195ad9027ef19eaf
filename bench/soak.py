"""10 000 requests must leave memory within 5 % of what it was after the first 1 000: exit code 1 if they do not.

Both wires, several models and sizes, right and wrong requests, connections that come and go.
"""

from __future__ import annotations

import http.client
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.processes import resident_mb, servable_server
from bench.questions import PREDICT, close, samples
from servable.protos import serving
from servable.zoo import catalog

MODELS = ("half_plus_two", "text_cnn_small", "noop")
REQUESTS, SETTLED, ALLOWED = 10_000, 1_000, 0.05


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        questions = []
        for model in MODELS:
            catalog.build(model, Path(folder), kind="onnx")
            questions += [(model, sample) for sample in samples(model, (1, 2, 5, 17))]
        with servable_server(folder) as (pid, port):
            settled = 0.0
            wrong = 0
            channel, call, rest = _connect(port)
            for number in range(REQUESTS):
                if number % 500 == 499:
                    channel.close()
                    rest.close()
                    channel, call, rest = _connect(port)
                model, sample = questions[number % len(questions)]
                if number % 10 == 9:
                    rest.request("POST", f"/v1/models/{model}:predict", b'{"instances": [[1, "x"')
                    wrong += rest.getresponse().read() == b""
                elif number % 2:
                    rest.request("POST", f"/v1/models/{model}:predict", sample.rest_body())
                    reply = rest.getresponse()
                    wrong += reply.status != 200
                    reply.read()
                else:
                    answer = call(sample.grpc_body(model), timeout=30)
                    tensor = answer.outputs[next(iter(sample.outputs))]
                    got = np.asarray(tensor.float_val).reshape([dim.size for dim in tensor.tensor_shape.dim])
                    wrong += not close(got, next(iter(sample.outputs.values())))
                if number + 1 == SETTLED:
                    settled = resident_mb(pid)
            after = resident_mb(pid)
    growth = after / settled - 1
    print(f"after {SETTLED} requests {settled:.1f} MB, after {REQUESTS} {after:.1f} MB: {growth:+.1%}; wrong: {wrong}")
    return 0 if growth <= ALLOWED and not wrong else 1


def _connect(port: int) -> tuple[Any, Any, http.client.HTTPConnection]:
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    call = channel.unary_unary(PREDICT, None, serving.PredictResponse.FromString)
    return channel, call, http.client.HTTPConnection("127.0.0.1", port)


if __name__ == "__main__":
    sys.exit(main())
