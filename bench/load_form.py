"""Load one form of a model, answer once, and say how long each took: the child of ``bench.load_forms``.

``python -m bench.load_form FORM MODEL PATH QUESTION ANSWER``: FORM is ``code`` (PATH is a checkpoint) or an engine.
Standard output is one line of JSON: seconds of the framework's import, the load, and the first answer.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

IMPORTS = {
    "code": ("tensorflow", "keras"),
    "tensorflow": ("tensorflow",),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert.interpreter",),
}
CODE = "servable.zoo.keras_builders"


def main(form: str, model: str, path: Path, question: Path, answer: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with np.load(question) as stored:
        inputs = dict(stored)
    began = time.perf_counter()
    for name in IMPORTS[form]:
        importlib.import_module(name)
    imported = time.perf_counter()
    ask = _from_code(model, path) if form == "code" else _from_engine(form, path)
    loaded = time.perf_counter()
    outputs = ask(inputs)
    answered = time.perf_counter()
    np.savez(answer, **outputs)
    told = {"import_s": imported - began, "load_s": loaded - imported, "first_s": answered - loaded}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    os._exit(0)  # what a framework does at its end is nobody's load


def _from_code(model: str, checkpoint: Path) -> Any:
    keras_model = getattr(importlib.import_module(CODE), model)()
    keras_model.load_weights(checkpoint)
    return keras_model.predict_on_batch


def _from_engine(engine: str, path: Path) -> Any:
    from servable.engines.base import EngineOptions, engine_class
    from servable.engines.plan import find_artifact

    # In this process, whose time is measured; a server would give TensorFlow one of its own.
    model = engine_class(engine)().load(find_artifact(path), EngineOptions())
    signature = model.signatures["serving_default"]
    return lambda inputs: model.run(signature.name, inputs, list(signature.outputs))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(Path, sys.argv[3:6]))
