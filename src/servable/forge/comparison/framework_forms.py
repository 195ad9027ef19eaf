"""One model as a user of each framework would have written it, filled with the same weights. Runs in a worker."""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.progress import Progress
from servable.core.tensors import Array
from servable.engines.base import Artifact
from servable.forge import arrays
from servable.forge.comparison.runs import measure_model
from servable.forge.workshop import open_model
from servable.zoo import weights as w

Predict = Callable[[Array], Array]
MODEL = "simple_cnn"
INPUT, OUTPUT = "input", "output"
COMPARED = 2
"""Rows whose answers are compared, whatever is timed: a batch of one hides what mixes rows."""


def run_form(
    form: str,
    weights: str,
    artifact: list[str],
    asked: str,
    answered: str,
    batches: list[int],
    runs: int,
    cold: int,
    report: Progress,
) -> dict[str, Any]:
    """Load one form, answer the first rows, and time it at every batch size. ``artifact`` is kind, path and engine.

    ``weights``, ``asked`` and ``answered`` are files of arrays.
    """
    report(f"{form}: loading")
    (drawn,) = arrays.load(Path(weights))
    began = time.perf_counter()
    predict = _BUILD[form](drawn) if form in _BUILD else _engine(*artifact)
    load_s = time.perf_counter() - began
    (inputs,) = arrays.load(Path(asked))
    pixels = inputs[INPUT]
    began = time.perf_counter()
    first = predict(pixels[:1])
    cold_s = time.perf_counter() - began
    compared = pixels[:COMPARED]
    arrays.save(
        Path(answered), [{OUTPUT: np.concatenate([first, predict(compared[1:])]) if len(compared) > 1 else first}]
    )
    timed = {}
    for batch in batches:
        report(f"{form}: batch {batch}")
        timed[str(batch)] = measure_model(predict, form, pixels[:batch], runs, cold).seconds
    return {"load_s": load_s, "cold_s": cold_s, "seconds": timed, "version": _version(form)}


def write_saved_model(weights: str, folder: str, report: Progress) -> None:
    """Write the model as a SavedModel into a folder that is not there yet."""
    from servable.zoo import catalog, tf_builders

    report(f"writing {MODEL} as a SavedModel")
    (drawn,) = arrays.load(Path(weights))
    Path(folder).mkdir(parents=True)
    tf_builders.write_saved_model(MODEL, catalog.describe(MODEL).signature_of("saved_model"), drawn, Path(folder))


def _keras(weights: w.Weights) -> Predict:
    from servable.zoo import keras_builders

    model = keras_builders.build(MODEL, weights)
    return lambda pixels: np.asarray(model.predict_on_batch({INPUT: pixels})[OUTPUT])


def _torch(weights: w.Weights) -> Predict:
    from servable.zoo import torch_builders

    torch: Any = importlib.import_module("torch")
    # The pictures come with their channels last: kernels that lie so too spare every call a copy.
    module = torch_builders.build(MODEL, weights).to(memory_format=torch.channels_last)

    def predict(pixels: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(pixels))[OUTPUT].numpy())

    return predict


def _tensorflow(weights: w.Weights) -> Predict:
    from servable.zoo import tf_builders

    module = tf_builders.build_module(MODEL, weights)
    tf: Any = importlib.import_module("tensorflow")
    specs = {INPUT: tf.TensorSpec((None, 224, 224, 3), tf.float32, name=INPUT)}
    serve = module.serve.get_concrete_function(**specs)
    return lambda pixels: np.asarray(serve(**{INPUT: tf.constant(pixels)})[OUTPUT].numpy())


def _engine(kind: str, path: str, engine: str) -> Predict:
    model = open_model(Artifact(kind, Path(path)), engine)
    signature = next(iter(model.signatures.values()))
    if INPUT not in signature.inputs or OUTPUT not in signature.outputs:
        raise failed_precondition(f"{path} has other names than {INPUT} and {OUTPUT}: {signature}")
    return lambda pixels: model.run(signature.name, {INPUT: pixels}, [OUTPUT])[OUTPUT]


_BUILD: dict[str, Callable[[w.Weights], Predict]] = {"keras": _keras, "torch": _torch, "tensorflow": _tensorflow}

_PACKAGES = {
    "keras": ("keras", "tensorflow-cpu", "tensorflow"),
    "torch": ("torch",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "litert": ("ai-edge-litert",),
}


def _version(form: str) -> str:
    for package in _PACKAGES[form]:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
