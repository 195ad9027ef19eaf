"""Profiles a server by TensorFlow's own client while it answers: ``ADDRESS FOLDER``; prints what came, as JSON.

A process of its own, because TensorFlow is in it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import grpc

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def main(address: str, folder: str) -> None:
    """Profile while a thread asks the model ``heads``, then watch it for a while."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2
    from tensorflow_serving.apis import predict_pb2

    channel = grpc.insecure_channel(address)
    serialize: Any = predict_pb2.PredictRequest.SerializeToString
    predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict", request_serializer=serialize)
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "heads", "predict"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 0.0]]))
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            predict(request)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        client: Any = tf.profiler.experimental.client
        client.trace(f"grpc://{address}", folder, 400)
        watched = client.monitor(f"grpc://{address}", 100)
    finally:
        enough.set()
        asking.join()
    files = {path.name.partition(".")[2]: path for path in Path(folder).rglob("*") if path.is_file()}
    (name,) = [name for name in files if name.endswith("xplane.pb")]
    space = xplane_pb2.XSpace.FromString(files[name].read_bytes())
    lines = {
        line.name: sorted({plane.event_metadata[event.metadata_id].name for event in line.events})
        for plane in space.planes
        for line in plane.lines
    }
    latest = max(
        event.offset_ps + event.duration_ps for plane in space.planes for line in plane.lines for event in line.events
    )
    print(  # noqa: T201  # the program's result
        json.dumps(
            {
                "files": [path.name.rpartition("_")[2] for path in files.values()],
                "planes": [plane.name for plane in space.planes],
                "lines": lines,
                "latest_ms": latest * 1e-9,
                "watched": watched,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
