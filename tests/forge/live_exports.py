"""``servable.forge.export`` as users call it: in the process that has the framework. Run as a program, by its tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import servable
from servable.core.errors import ServingError


def main(part: str, root: Path) -> None:
    told: dict[str, Any] = {}

    def attempt(name: str, export: Callable[[], Path]) -> None:
        try:
            told[name] = str(export().relative_to(root))
        except ServingError as error:
            told[name] = f"{error.code.name}: {error.message}"

    (tensorflow if part == "tensorflow" else torch)(attempt, root)
    (root / "told.json").write_text(json.dumps(told))


def tensorflow(attempt: Callable[[str, Callable[[], Path]], None], root: Path) -> None:
    import keras
    import tensorflow as tf

    export = servable.forge.export
    line = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    line.layers[-1].set_weights([np.array([[0.5]], np.float32), np.array([2.0], np.float32)])
    attempt(
        "named",
        lambda: export(line, root / "line" / "1", signature="predict", inputs={"x": "float32[?,1]"}, outputs=["y"]),
    )
    attempt("next", lambda: export(line, root / "line", inputs={"x": None}, outputs={"y": 0}, format="onnx"))
    attempt("again", lambda: export(line, root / "line" / "1"))
    attempt("too many", lambda: export(line, root / "line" / "9", inputs={"x": "float32[?,1]", "z": "float32[?,1]"}))
    attempt("wrong type", lambda: export(line, root / "line" / "9", inputs={"x": "int64[?,1]"}))
    attempt("wrong output", lambda: export(line, root / "line" / "9", outputs={"y": "absent"}))
    attempt("no type", lambda: export(line, root / "line" / "9", inputs={"x": "floats"}))
    attempt("no model", lambda: export({"a": 1}, root / "line" / "9"))

    x = keras.Input((2,), name="x")
    hidden = keras.layers.Dense(3, activation="relu")(x)
    whole = keras.Model(x, keras.layers.Dense(1)(hidden))
    assert whole is not None
    attempt("part", lambda: export(whole, root / "part" / "1", inputs={"values": x}, outputs={"features": hidden}))

    class Scaled(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.factor = tf.Variable(3.0)

        @tf.function  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return x * self.factor

    attempt("module", lambda: export(Scaled(), root / "module" / "1", inputs={"x": "float32[?,2]"}, outputs=["y"]))
    attempt("module without types", lambda: export(Scaled(), root / "module" / "2"))
    random = tf.function(
        lambda x: x + tf.random.uniform(tf.shape(x)), input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")]
    )
    attempt("random", lambda: export(random, root / "random" / "1"))


def torch(attempt: Callable[[str, Callable[[], Path]], None], root: Path) -> None:
    import torch

    export = servable.forge.export
    line = torch.nn.Linear(1, 1)
    with torch.no_grad():
        line.weight.fill_(0.5)
        line.bias.fill_(2.0)
    attempt(
        "renamed",
        lambda: export(line, root / "line" / "1", signature="predict", inputs={"input": "float32[?,1]"}, outputs=["y"]),
    )
    attempt(
        "example", lambda: export(line, root / "line" / "2", example=torch.ones(1, 1), outputs=["y"], format="onnx")
    )
    attempt("no example", lambda: export(line, root / "line" / "3"))
    attempt("no parameter", lambda: export(line, root / "line" / "3", inputs={"x": "float32[?,1]"}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
