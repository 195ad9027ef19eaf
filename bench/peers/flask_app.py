"""The ordinary way: flask under gunicorn with ONNX Runtime. The model's path is in MODEL."""

from __future__ import annotations

import os
from typing import Any

import flask
import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
outputs = [output.name for output in session.get_outputs()]
(model_input,) = session.get_inputs()
dtype = {"tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(int64)": np.int64}[model_input.type]
app = flask.Flask(__name__)


@app.get("/readyz")  # type: ignore[untyped-decorator]
def ready() -> str:
    return "ready"


@app.post("/v1/models/<name>:predict")  # type: ignore[untyped-decorator]
def predict(name: str) -> Any:
    instances = flask.request.get_json(force=True)["instances"]
    answers = session.run(None, {model_input.name: np.asarray(instances, dtype)})
    return {"predictions": answers[0].tolist()}
