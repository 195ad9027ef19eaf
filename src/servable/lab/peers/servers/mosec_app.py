"""mosec: JSON in and out, batches of what is waiting."""

from __future__ import annotations

import json
from typing import Any

from mosec import Server, Worker
from onnx_model import BATCH_ROWS, BATCH_WAIT_MS, PREDICT_PATH, OnnxModel


class Predictor(Worker):  # type: ignore[misc]
    """The only stage."""

    def __init__(self) -> None:
        super().__init__()
        self.model = OnnxModel()

    def serialize(self, data: Any) -> bytes:
        """Write compact JSON; mosec's own is indented."""
        return json.dumps(data, separators=(",", ":")).encode()

    def forward(self, data: Any) -> Any:
        """Answer a batch of requests, or one where batching is off."""
        return self.model.answer_all(data) if BATCH_ROWS > 1 else self.model.answer(data)


if __name__ == "__main__":
    server = Server()
    wait_ms = max(1, round(BATCH_WAIT_MS))
    server.append_worker(Predictor, num=1, max_batch_size=BATCH_ROWS, max_wait_time=wait_ms, route=PREDICT_PATH)
    server.run()
