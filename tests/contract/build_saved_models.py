"""Builds the contract's models with TensorFlow: ``build_saved_models.py FOLDER``. TensorFlow stays in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import tensorflow as tf
from tests.contract.cases import BIAS, CASES, TABLE, TYPES, WEIGHTS


def functions(module: tf.Module) -> dict[str, Any]:
    module.weights = tf.Variable(WEIGHTS)
    module.bias = tf.Variable(BIAS)
    module.table = tf.Variable(TABLE)

    def perceptron(x: Any) -> Any:
        logits = tf.matmul(tf.tanh(x), module.weights) + module.bias
        return {"probabilities": tf.nn.softmax(logits), "label": tf.argmax(logits, axis=-1)}

    def two_inputs(a: Any, b: Any) -> Any:
        return {"difference": a - b, "product": a * b}

    def tokens(ids: Any) -> Any:
        return {"mean": tf.reduce_mean(tf.gather(module.table, ids), axis=1)}

    def scalar(x: Any) -> Any:
        return {"y": x * 2.0 + 1.0}

    return {"perceptron": perceptron, "two_inputs": two_inputs, "tokens": tokens, "scalar": scalar}


def save(module: tf.Module, function: Any, specs: list[tf.TensorSpec], folder: Path) -> None:
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})


def main(folder: Path) -> None:
    for name in CASES:
        module = tf.Module()
        specs = [
            tf.TensorSpec(spec.shape, spec.dtype.name, name=spec.name) for spec in CASES[name].signature.inputs.values()
        ]
        save(module, functions(module)[name], specs, folder / name / "1")
    typed = {}
    for name in TYPES:
        spec = tf.TensorSpec([None], name, name="x")
        row = tf.function(lambda x: {"y": tf.expand_dims(x, 0)}, input_signature=[spec])
        typed[name] = row.get_concrete_function()
        tf.saved_model.save(
            tf.Module(), str(folder / f"type_{name}" / "1"), signatures={"serving_default": typed[name]}
        )
    tf.saved_model.save(tf.Module(), str(folder / "types" / "1"), signatures=typed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
