"""Triton through pytriton: REST and gRPC of the Open Inference Protocol, Triton's dynamic batcher."""

from __future__ import annotations

from typing import Any

from onnx_model import BATCH_ROWS, BATCH_WAIT_MS, GRPC_PORT, METRICS_PORT, NAME, PORT, OnnxModel
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

model = OnnxModel()


def tensors(dtypes: dict[str, Any]) -> list[Tensor]:
    """Describe tensors without their rows, which Triton adds."""
    return [
        Tensor(
            name=name,
            dtype=dtype,
            shape=tuple(size if isinstance(size, int) else -1 for size in model.shapes[name][1:]),
        )
        for name, dtype in dtypes.items()
    ]


@batch  # type: ignore[untyped-decorator]
def predict(**feed: Any) -> dict[str, Any]:
    """Answer a batch that Triton has joined."""
    made: dict[str, Any] = model.run(feed)
    return made


if __name__ == "__main__":
    ports = TritonConfig(
        http_address="127.0.0.1", http_port=PORT, grpc_address="127.0.0.1", grpc_port=GRPC_PORT,
        metrics_address="127.0.0.1", metrics_port=METRICS_PORT, log_verbose=0,
    )  # fmt: skip
    batcher = DynamicBatcher(max_queue_delay_microseconds=round(BATCH_WAIT_MS * 1e3))
    with Triton(config=ports) as triton:
        triton.bind(
            model_name=NAME, infer_func=predict, inputs=tensors(model.inputs), outputs=tensors(model.outputs),
            config=ModelConfig(max_batch_size=BATCH_ROWS, batching=BATCH_ROWS > 1, batcher=batcher),
        )  # fmt: skip
        triton.serve()
