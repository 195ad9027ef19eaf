"""A grpcio server with a pool of threads and TensorFlow Serving's Predict. Needs ``servable.protos`` on its path."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc
import numpy as np
from onnx_model import PORT, OnnxModel

from servable.protos import serving

TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64}
NUMBERS = {np.dtype(dtype): number for number, dtype in TYPES.items()}
THREADS = 8

model = OnnxModel()


def predict(request: Any, _context: grpc.ServicerContext) -> Any:
    """Answer one request; tensors travel as ``tensor_content``."""
    feed = {}
    for name, tensor in request.inputs.items():
        shape = [size.size for size in tensor.tensor_shape.dim]
        feed[name] = np.frombuffer(tensor.tensor_content, TYPES[tensor.dtype]).reshape(shape)
    reply = serving.PredictResponse()
    for name, array in model.run(feed).items():
        tensor = reply.outputs[name]
        tensor.dtype = NUMBERS[array.dtype]
        for size in array.shape:
            tensor.tensor_shape.dim.add().size = size
        tensor.tensor_content = array.tobytes()
    return reply


def main() -> None:
    """Serve until killed."""
    handler = grpc.unary_unary_rpc_method_handler(
        predict,
        request_deserializer=serving.PredictRequest.FromString,
        response_serializer=lambda reply: reply.SerializeToString(),
    )
    methods = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=unlimited)
    server.add_generic_rpc_handlers((methods,))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
