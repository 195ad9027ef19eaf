"""What every peer that runs Python shares: the model, the threads it gets, and the JSON of TensorFlow Serving.

Nothing of servable is imported here: these programs run in other environments, where it is not installed.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
NAME = os.environ.get("MODEL_NAME", "")
PORT = int(os.environ.get("PORT", "0"))
GRPC_PORT = int(os.environ.get("GRPC_PORT", "0"))
METRICS_PORT = int(os.environ.get("METRICS_PORT", "0"))
BATCH_ROWS = int(os.environ.get("BATCH_ROWS", "1"))
BATCH_WAIT_MS = float(os.environ.get("BATCH_WAIT_MS", "0"))
PREDICT_PATH = f"/v1/models/{NAME}:predict"


class OnnxModel:
    """One session over the file in ``MODEL``, with ``THREADS`` threads. ``inputs`` are the types by name."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("THREADS", "1"))
        options.inter_op_num_threads = 1
        path = os.environ["MODEL"]
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {given.name: DTYPES[given.type] for given in self.session.get_inputs()}
        self.outputs = {made.name: DTYPES[made.type] for made in self.session.get_outputs()}
        self.shapes = {each.name: each.shape for each in (*self.session.get_inputs(), *self.session.get_outputs())}

    def run(self, feed: dict[str, Any]) -> dict[str, Any]:
        """Arrays to arrays."""
        return dict(zip(self.outputs, self.session.run(None, feed)))  # noqa: B905  # Python 3.8 has no strict zip

    def feed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Arrays of a request's ``instances`` (rows) or ``inputs`` (columns)."""
        if "inputs" in body:
            columns = body["inputs"]
            if not isinstance(columns, dict):
                columns = {next(iter(self.inputs)): columns}
        else:
            rows = body["instances"]
            if rows and isinstance(rows[0], dict):
                columns = {name: [row[name] for row in rows] for name in self.inputs}
            else:
                columns = {next(iter(self.inputs)): rows}
        return {name: np.asarray(columns[name], dtype) for name, dtype in self.inputs.items()}

    def reply(self, body: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        """The answer in the form of the question: ``predictions`` to ``instances``, ``outputs`` to ``inputs``."""
        columns = {name: array.tolist() for name, array in made.items()}
        single = next(iter(columns.values())) if len(columns) == 1 else None
        if "inputs" in body:
            return {"outputs": columns if single is None else single}
        if single is not None:
            return {"predictions": single}
        rows = zip(*columns.values())  # noqa: B905  # as above
        return {"predictions": [dict(zip(columns, row)) for row in rows]}  # noqa: B905

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """One JSON request to its JSON answer."""
        return self.reply(body, self.run(self.feed(body)))

    def answer_all(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several requests as one batch, each with its own answer."""
        feeds = [self.feed(body) for body in bodies]
        counts = [len(next(iter(feed.values()))) for feed in feeds]
        ends = np.cumsum(counts)
        made = self.run({name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs})
        replies = []
        for body, count, end in zip(bodies, counts, ends):  # noqa: B905
            replies.append(self.reply(body, {name: array[end - count : end] for name, array in made.items()}))
        return replies
