"""BentoML: JSON in and out. Its adaptive batching takes one array for each request."""

from __future__ import annotations

import bentoml
import numpy as np
from onnx_model import BATCH_ROWS, PREDICT_PATH, OnnxModel


@bentoml.service(workers=1, traffic={"timeout": 600, "max_concurrency": 1024}, logging={"access": {"enabled": False}})
class Predictor:
    """One model with one input and one output."""

    def __init__(self) -> None:
        self.model = OnnxModel()
        ((self.name, self.dtype),) = self.model.inputs.items()

    @bentoml.api(  # type: ignore[untyped-decorator]
        route=PREDICT_PATH, batchable=BATCH_ROWS > 1, batch_dim=0, max_batch_size=BATCH_ROWS, max_latency_ms=600_000
    )
    def predict(self, instances: np.ndarray) -> np.ndarray:  # its shape stays open
        """Answer the rows of the requests that were waiting."""
        (made,) = self.model.run({self.name: np.asarray(instances, self.dtype)}).values()
        return np.asarray(made)
