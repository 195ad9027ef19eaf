"""TensorFlow Serving's gRPC codec: one request of 50 tokens, and 32 of them in one."""

from __future__ import annotations

import numpy as np

from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.wire import tfserving_grpc as codec

VARIED = 16


class Requests:
    params = (1, 32)
    param_names = ("rows",)

    def setup(self, rows: int) -> None:
        draw = np.random.default_rng(1).integers
        self.bodies = [
            codec.encode_predict_request(
                InferRequest(
                    ModelRef("m"), {"tokens": draw(0, 20_000, (rows, 50)).astype(np.int32)}, "serving_default"
                ),
                framed=True,
            )
            for _ in range(VARIED)
        ]
        self.response = InferResponse(ModelRef("m", 1), "serving_default", {"probs": np.ones((rows, 2), np.float32)})

    def time_decode(self, _rows: int) -> None:
        for body in self.bodies:
            codec.decode_predict_request(body, 5)

    def time_encode(self, _rows: int) -> None:
        for _ in range(VARIED):
            codec.encode_predict_response(self.response)
