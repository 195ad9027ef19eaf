"""LitServe: JSON in and out, one worker, batches of what is waiting."""

from __future__ import annotations

from typing import Any

import litserve
from onnx_model import BATCH_ROWS, BATCH_WAIT_MS, PORT, PREDICT_PATH, OnnxModel


class Predictor(litserve.LitAPI):  # type: ignore[misc]
    """One model."""

    def setup(self, device: str) -> None:
        """Load it in the worker."""
        self.model = OnnxModel()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # a type would become a schema
        """Leave the body to ``predict``, which has all of the batch."""
        return request

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Keep requests apart: their rows are joined as arrays."""
        return inputs

    def predict(self, inputs: Any) -> Any:
        """Answer a batch of requests, or one where batching is off."""
        return self.model.answer_all(inputs) if BATCH_ROWS > 1 else self.model.answer(inputs)

    def unbatch(self, output: list[Any]) -> list[Any]:
        """The answers are apart already."""
        return output

    def encode_response(self, output: Any) -> Any:
        """Send it as JSON."""
        return output


if __name__ == "__main__":
    api = Predictor(max_batch_size=BATCH_ROWS, batch_timeout=BATCH_WAIT_MS / 1e3, api_path=PREDICT_PATH)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=600)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False, log_level="warning")
