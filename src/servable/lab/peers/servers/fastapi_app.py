"""FastAPI under uvicorn, the quick way: orjson on the body itself, no response model, no threads."""

from __future__ import annotations

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from onnx_model import PORT, PREDICT_PATH, OnnxModel

model = OnnxModel()
app = FastAPI()


@app.get("/readyz")  # type: ignore[untyped-decorator]
async def ready() -> str:
    """Say that the model is loaded."""
    return "ready"


@app.post(PREDICT_PATH)  # type: ignore[untyped-decorator]
async def predict(request: Request) -> Response:
    """Answer one request."""
    answer = model.answer(orjson.loads(await request.body()))
    return Response(orjson.dumps(answer), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, access_log=False, log_level="warning")
