"""The classic: flask under gunicorn, JSON in and out, one session for all threads."""

from __future__ import annotations

from typing import Any

import flask
from onnx_model import PREDICT_PATH, OnnxModel

model = OnnxModel()
app = flask.Flask(__name__)


@app.get("/readyz")  # type: ignore[untyped-decorator]
def ready() -> str:
    """Say that the model is loaded."""
    return "ready"


@app.post(PREDICT_PATH)  # type: ignore[untyped-decorator]
def predict() -> Any:
    """Answer one request."""
    return model.answer(flask.request.get_json(force=True))
