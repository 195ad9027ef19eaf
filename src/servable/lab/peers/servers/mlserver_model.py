"""MLServer: a custom runtime, found by ``model-settings.json``. REST and gRPC of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_model import OnnxModel


class Predictor(MLModel):  # type: ignore[misc]
    """One model."""

    async def load(self) -> bool:
        """Load it."""
        self.model = OnnxModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request; MLServer has joined those that were waiting."""
        feed: dict[str, Any] = {}
        for given in payload.inputs:
            feed[given.name] = NumpyCodec.decode_input(given).astype(self.model.inputs[given.name], copy=False)
        made = self.model.run(feed)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in made.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
