"""Builds the contract's models with TensorFlow: ``build_saved_models.py FOLDER``. TensorFlow stays in this process.

As SavedModels, and as one frozen graph and one TFLite file with a signature for each case and type.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import tensorflow as tf
from tests.contract.cases import BIAS, CASES, TABLE, TFLITE_TYPES, TYPES, WEIGHTS, Case, typed_signature

from servable.core.signatures import Signature
from servable.engines.signature_settings import write_signature_settings


def functions(module: tf.Module, hold: Callable[[Any], Any]) -> dict[str, Any]:
    module.weights = hold(WEIGHTS)
    module.bias = hold(BIAS)
    module.table = hold(TABLE)

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


def row(x: Any) -> Any:
    return {"y": tf.expand_dims(x, 0)}


def concrete(function: Any, case: Case) -> Any:
    specs = [tf.TensorSpec(spec.shape, spec.dtype.name, name=spec.name) for spec in case.signature.inputs.values()]
    return tf.function(function, input_signature=specs).get_concrete_function()


def save_all(folder: Path) -> None:
    """Write each case and each type by itself, and one SavedModel with a signature for each of them."""
    everything = {}
    whole = tf.Module()
    made = functions(whole, tf.Variable)
    for name, case in CASES.items():
        module = tf.Module()
        signatures = {"serving_default": concrete(functions(module, tf.Variable)[name], case)}
        tf.saved_model.save(module, str(folder / name / "1"), signatures=signatures)
        everything[name] = concrete(made[name], case)
    for name in TYPES:
        spec = tf.TensorSpec([None], name, name="x")
        everything[name] = tf.function(row, input_signature=[spec]).get_concrete_function()
        signatures = {"serving_default": everything[name]}
        tf.saved_model.save(tf.Module(), str(folder / f"type_{name}" / "1"), signatures=signatures)
    tf.saved_model.save(whole, str(folder / "all" / "1"), signatures=everything)


def freeze_all(version: Path) -> None:
    """Write one graph of constants, and its signatures beside it."""
    signatures = {name: replace(case.signature, name=name) for name, case in CASES.items()}
    signatures |= {name: typed_signature(name) for name in TYPES}
    graph = tf.Graph()
    with graph.as_default():
        made = functions(tf.Module(), tf.constant) | dict.fromkeys(TYPES, row)
        stated = {name: _placed(signature, made[name]) for name, signature in signatures.items()}
    version.mkdir(parents=True)
    (version / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    write_signature_settings(version / "servable.toml", stated)


def _placed(signature: Signature, function: Any) -> Signature:
    fed = {
        name: tf.compat.v1.placeholder(spec.dtype.name, spec.shape, f"{signature.name}_{name}")
        for name, spec in signature.inputs.items()
    }
    given = function(**fed)
    return replace(
        signature,
        inputs={name: replace(spec, node=fed[name].name) for name, spec in signature.inputs.items()},
        outputs={name: replace(spec, node=given[name].name) for name, spec in signature.outputs.items()},
    )


def convert_all(saved: Path, version: Path) -> None:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[*CASES, *TFLITE_TYPES])
    version.mkdir(parents=True)
    (version / "model.tflite").write_bytes(converter.convert())


def main(folder: Path) -> None:
    save_all(folder / "saved_model")
    freeze_all(folder / "graph_def" / "all" / "1")
    convert_all(folder / "saved_model" / "all" / "1", folder / "tflite" / "all" / "1")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
