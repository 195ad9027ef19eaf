"""Ray Serve: one replica, JSON in and out, batches of what is waiting."""

from __future__ import annotations

import signal
from typing import Any

import ray
from onnx_model import BATCH_ROWS, BATCH_WAIT_MS, PORT, PREDICT_PATH, OnnxModel
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
class Predictor:
    """One model."""

    def __init__(self) -> None:
        self.model = OnnxModel()

    @serve.batch(max_batch_size=BATCH_ROWS, batch_wait_timeout_s=BATCH_WAIT_MS / 1e3)  # type: ignore[untyped-decorator]
    async def answer(self, bodies: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        replies: list[Any] = self.model.answer_all(bodies)
        return replies

    async def __call__(self, request: Request) -> Any:
        """Answer one request."""
        return await self.answer(await request.json())


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config={"enable_access_log": False})
    serve.run(Predictor.bind(), route_prefix=PREDICT_PATH)  # type: ignore[attr-defined]  # the decorator's
    signal.pause()
