"""Microseconds per operation of TensorFlow Serving's gRPC codec: ``python bench/wire_micro.py``.

Each line is the best of fifteen runs in one thread (what else runs on the machine only adds), beside what the same
step costs with protobuf's messages alone. The bodies of requests vary.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from servable import protos
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.wire import tfserving_grpc as codec
from servable.wire.tensor_bytes import tensor_message
from servable.wire.tensor_proto import decode_tensor


def measure(label: str, operation: Callable[[], Any], number: int = 5_000) -> None:
    for _ in range(16):
        operation()
    runs = timeit.repeat(operation, number=number, repeat=15)
    print(f"{min(runs) / number * 1e6:10.2f} us  {label}")


def bodies(inputs: dict[str, np.ndarray[Any, Any]], *, tensor_content: bool = True) -> list[bytes]:
    """Return sixteen requests that differ in their data."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(16):
        varied = {name: rng.permutation(array.reshape(-1)).reshape(array.shape) for name, array in inputs.items()}
        request = InferRequest(ModelRef("text_cnn"), varied, "serving_default")
        made.append(codec.encode_predict_request(request, tensor_content=tensor_content, framed=True))
    return made


def cycle(items: list[bytes]) -> Callable[[], bytes]:
    position = -1

    def following() -> bytes:
        nonlocal position
        position = (position + 1) & 15
        return items[position]

    return following


def with_messages(body: bytes) -> InferRequest:
    message = protos.serving.PredictRequest.FromString(memoryview(body)[5:])
    spec = message.model_spec
    inputs = {name: decode_tensor(message.inputs[name]) for name in message.inputs}
    return InferRequest(ModelRef(spec.name), inputs, spec.signature_name, tuple(message.output_filter))


def requests() -> None:
    tokens = np.arange(50, dtype=np.int32).reshape(1, 50)
    cases = {
        "int32 [1,50], tensor_content": bodies({"x": tokens}),
        "3 x int32 [1,50], tensor_content": bodies({"a": tokens, "b": tokens, "c": tokens}),
        "float32 [1,50], float_val": bodies({"x": tokens.astype(np.float32)}, tensor_content=False),
        "int32 [1,50], int_val (always parsed)": bodies({"x": tokens}, tensor_content=False),
    }
    for label, made in cases.items():
        following = cycle(made)
        measure(f"decode request   {label}", lambda f=following: codec.decode_predict_request(f(), 5))  # type: ignore[misc]
        measure(f"  with messages  {label}", lambda f=following: with_messages(f()))  # type: ignore[misc]
    for label, made in {
        "float32 [100,1025], tensor_content": bodies({"x": np.zeros((100, 1025), np.float32)}),
        "float32 [100,1025], float_val": bodies({"x": np.zeros((100, 1025), np.float32)}, tensor_content=False),
        "int64 [100,500], int64_val": bodies({"x": np.arange(50_000).reshape(100, 500)}, tensor_content=False),
    }.items():
        following = cycle(made)
        measure(f"decode request   {label}", lambda f=following: codec.decode_predict_request(f(), 5), 200)  # type: ignore[misc]


def with_built_messages(response: InferResponse) -> bytes:
    message = protos.serving.PredictResponse()
    for name, array in response.outputs.items():
        tensor = message.outputs[name]
        tensor.dtype = 1
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.extend(array.reshape(-1).tolist())
    message.model_spec.name = response.model.name
    message.model_spec.version.value = response.model.version or 0
    message.model_spec.signature_name = response.signature
    encoded: bytes = message.SerializeToString()
    return encoded


def replies() -> None:
    model = ModelRef("text_cnn", 1)
    floats = np.array([[0.25, 0.75]], np.float32)
    small = InferResponse(model, "serving_default", {"probs": floats})
    measure("encode response  float32 [1,2]", lambda: codec.encode_predict_response(small, framed=True))
    measure("  with messages  float32 [1,2]", lambda: with_built_messages(small))
    two = InferResponse(model, "serving_default", {"probs": floats, "labels": np.array([1])})
    measure("encode response  float32 [1,2] and int64 [1]", lambda: codec.encode_predict_response(two, framed=True))
    body = codec.encode_predict_response(small)
    measure("decode response  float32 [1,2]", lambda: codec.decode_predict_response(body))
    measure("encode request   int32 [1,50], tensor_content", lambda: codec.encode_predict_request(request))
    large = InferResponse(model, "serving_default", {"y": np.zeros((100, 1025), np.float32)})
    measure("encode response  float32 [100,1025]", lambda: codec.encode_predict_response(large, framed=True), 200)
    measure("  with messages  float32 [100,1025]", lambda: with_built_messages(large), 5)
    many = np.random.default_rng(1).integers(0, 1_000_000, 100_000)
    measure("encode tensor    int64 [100000], int64_val", lambda: tensor_message(many), 10)


request = InferRequest(ModelRef("text_cnn"), {"x": np.arange(50, dtype=np.int32).reshape(1, 50)})

if __name__ == "__main__":
    requests()
    replies()
