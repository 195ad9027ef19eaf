"""Train a small ``sentiment``, build it as both artifacts, ask TensorFlow, and write all down. Run as a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from servable.core.errors import ServingError
from servable.zoo import catalog, sentiment
from servable.zoo.onnx_builders import write_onnx
from servable.zoo.tf_builders import write_saved_model

QUICK = sentiment.Course(units=64, reviews=3000, held_out=500, batch=64, rate=6e-3, enough=0.85)
TINY = sentiment.Course(units=8, reviews=64, held_out=16, epochs=2, short_epochs=1, batch=16, least=0.0)


def main(root: Path, lengths: tuple[int, ...]) -> None:
    lines: list[str] = []
    trained = sentiment.train(np.random.default_rng(3), lines.append, QUICK)
    weights: dict[str, Any] = trained.weights
    np.savez(root / "weights.npz", **weights)
    signature = catalog.describe("sentiment").signature
    for kind, write in (("onnx", write_onnx), ("saved_model", write_saved_model)):
        (root / kind).mkdir()
        write("sentiment", signature, trained.weights, root / kind)
    import tensorflow as tf

    call = tf.saved_model.load(str(root / "saved_model")).signatures["serving_default"]
    for length in lengths:
        vectors = np.random.default_rng(length).standard_normal((3, length, 64), dtype=np.float32)
        outputs = {key: value.numpy() for key, value in call(vectors=tf.constant(vectors)).items()}
        np.savez(root / f"{length}.npz", vectors=vectors, **outputs)
    found = {
        "accuracy": trained.accuracy,
        "texts": trained.held_out.texts,
        "labels": trained.held_out.labels.tolist(),
        "lines": lines,
    }
    (root / "found.json").write_text(json.dumps(found))


def repeat(root: Path) -> None:
    """Train a tiny one twice, and one that cannot learn."""
    lines: list[str] = []
    first, second = (sentiment.train(np.random.default_rng(7), lines.append, TINY).weights for _ in range(2))
    try:
        sentiment.train(
            np.random.default_rng(7), lines.append, sentiment.Course(units=2, reviews=8, held_out=8, epochs=0)
        )
    except ServingError as error:
        failed = str(error)
    repeats = all(np.array_equal(first[key], second[key]) for key in first)
    (root / "repeated.json").write_text(json.dumps({"repeats": repeats, "failed": failed}))


if __name__ == "__main__":
    target, *wanted = sys.argv[1:]
    if wanted:
        main(Path(target), tuple(map(int, wanted)))
    else:
        repeat(Path(target))
