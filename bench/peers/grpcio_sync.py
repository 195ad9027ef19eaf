"""The ordinary way: a grpcio server with a thread pool, TensorFlow Serving's stubs and ONNX Runtime. MODEL PORT"""

from __future__ import annotations

import sys
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import onnxruntime

from servable.protos import serving

_NUMPY = {1: np.float32, 3: np.int32, 9: np.int64}


class Predictor:
    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        feed = {
            name: np.frombuffer(tensor.tensor_content, _NUMPY[tensor.dtype]).reshape(
                [dim.size for dim in tensor.tensor_shape.dim]
            )
            for name, tensor in request.inputs.items()
        }
        reply = serving.PredictResponse()
        for name, array in zip(self.outputs, self.session.run(None, feed), strict=True):
            tensor = reply.outputs[name]
            tensor.dtype = 1
            for size in array.shape:
                tensor.tensor_shape.dim.add().size = size
            tensor.float_val.extend(array.ravel().tolist())
        return reply


def main() -> None:
    path, port = sys.argv[1:]
    predictor = Predictor(path)
    handler = grpc.unary_unary_rpc_method_handler(
        predictor.predict,
        request_deserializer=serving.PredictRequest.FromString,
        response_serializer=lambda reply: reply.SerializeToString(),
    )
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
