"""TensorFlow Serving's gRPC as method paths, statuses and message bytes: both directions, without I/O.

Predict is in ``tfserving_grpc_predict``, what takes tf.Examples in ``tfserving_grpc_examples``, model metadata and
status in ``tfserving_grpc_models``, reload in ``tfserving_reload``. Listeners and clients import all of it from here.
"""

from __future__ import annotations

from typing import Final

from servable.wire.grpc import decode_error, encode_error
from servable.wire.tfserving_examples import CLASSIFY as CLASSIFY_EXAMPLES
from servable.wire.tfserving_examples import REGRESS as REGRESS_EXAMPLES
from servable.wire.tfserving_examples import (
    ExampleMethod,
    ExampleRequest,
    example_outputs,
    missing_signature,
)
from servable.wire.tfserving_grpc_examples import (
    InferenceTask,
    MultiInferenceRequest,
    decode_classification_response,
    decode_example_request,
    decode_multi_inference_request,
    decode_regression_response,
    encode_classification_response,
    encode_example_request,
    encode_multi_inference_response,
    encode_regression_response,
)
from servable.wire.tfserving_grpc_models import (
    decode_model_metadata_request,
    decode_model_metadata_response,
    decode_model_status_request,
    decode_model_status_response,
    decode_signatures,
    encode_model_metadata_request,
    encode_model_metadata_response,
    encode_model_status_request,
    encode_model_status_response,
    encode_signatures,
)
from servable.wire.tfserving_grpc_predict import (
    decode_predict_request,
    decode_predict_response,
    encode_predict_request,
    encode_predict_response,
)
from servable.wire.tfserving_reload import (
    ReloadRequest,
    decode_reload_request,
    decode_reload_response,
    encode_reload_request,
    encode_reload_response,
)

__all__ = [
    "CLASSIFY",
    "CLASSIFY_EXAMPLES",
    "GET_MODEL_METADATA",
    "GET_MODEL_STATUS",
    "HANDLE_RELOAD_CONFIG_REQUEST",
    "MODEL_SERVICE",
    "MULTI_INFERENCE",
    "PREDICT",
    "PREDICTION_SERVICE",
    "PREDICT_STREAMED",
    "REGRESS",
    "REGRESS_EXAMPLES",
    "ExampleMethod",
    "ExampleRequest",
    "InferenceTask",
    "MultiInferenceRequest",
    "ReloadRequest",
    "decode_classification_response",
    "decode_error",
    "decode_example_request",
    "decode_model_metadata_request",
    "decode_model_metadata_response",
    "decode_model_status_request",
    "decode_model_status_response",
    "decode_multi_inference_request",
    "decode_predict_request",
    "decode_predict_response",
    "decode_regression_response",
    "decode_reload_request",
    "decode_reload_response",
    "decode_signatures",
    "encode_classification_response",
    "encode_error",
    "encode_example_request",
    "encode_model_metadata_request",
    "encode_model_metadata_response",
    "encode_model_status_request",
    "encode_model_status_response",
    "encode_multi_inference_response",
    "encode_predict_request",
    "encode_predict_response",
    "encode_regression_response",
    "encode_reload_request",
    "encode_reload_response",
    "encode_signatures",
    "example_outputs",
    "missing_signature",
]

PREDICTION_SERVICE: Final = "tensorflow.serving.PredictionService"
MODEL_SERVICE: Final = "tensorflow.serving.ModelService"
PREDICT: Final = b"/tensorflow.serving.PredictionService/Predict"
PREDICT_STREAMED: Final = b"/tensorflow.serving.PredictionService/PredictStreamed"
"""One request, a reply for each part. TensorFlow Serving's open source has the options for it, not the method."""
CLASSIFY: Final = b"/tensorflow.serving.PredictionService/Classify"
REGRESS: Final = b"/tensorflow.serving.PredictionService/Regress"
MULTI_INFERENCE: Final = b"/tensorflow.serving.PredictionService/MultiInference"
GET_MODEL_METADATA: Final = b"/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS: Final = b"/tensorflow.serving.ModelService/GetModelStatus"
HANDLE_RELOAD_CONFIG_REQUEST: Final = b"/tensorflow.serving.ModelService/HandleReloadConfigRequest"
