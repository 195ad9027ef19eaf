"""Builds a SavedModel with heads that take tf.Examples, and notes TensorFlow's own answers: ``build_heads.py FOLDER``.

A program of its own, because TensorFlow is not to be imported where the tests run. Written with the v1 builder, as
Estimators wrote: the only way to method names other than predict.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

v1 = tf.compat.v1
CLASSIFY, REGRESS, PREDICT = (f"tensorflow/serving/{name}" for name in ("classify", "regress", "predict"))
INIT_OP = "__saved_model_init_op"
TYPES = ("bfloat16", "complex64", "complex128", "float16", "float8_e4m3fn", "int4", "uint16")
"""Types that no other model of the conformance tests takes."""
LABELS = ("low", "middle", "h\u00f6her")


def example(**features: Any) -> bytes:
    """Return a serialized Example. Floats make a float_list, integers an int64_list, bytes a bytes_list."""
    message = tf.train.Example()
    for name, values in features.items():
        feature = message.features.feature[name]
        kind = {float: "float_list", int: "int64_list", bytes: "bytes_list"}[type(values[0])]
        getattr(feature, kind).value.extend(values)
    return bytes(message.SerializeToString())


def heads() -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
    """Return every signature: inputs, outputs, method name. All of those that parse share the parsed features."""
    examples = v1.placeholder(tf.string, [None], name="examples")
    specs = {
        "x": tf.io.FixedLenFeature([2], tf.float32),
        "k": tf.io.FixedLenFeature([], tf.int64, default_value=1),
        "word": tf.io.FixedLenFeature([], tf.string, default_value=b"none"),
    }
    parsed = tf.io.parse_example(examples, specs)
    weights = v1.get_variable("weights", initializer=np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], np.float32))
    logits = tf.matmul(parsed["x"], weights) * tf.cast(parsed["k"], tf.float32)[:, None]
    scores = tf.nn.softmax(logits)
    rows = tf.shape(examples)[0]
    classes = tf.tile(tf.constant([[label.encode() for label in LABELS]]), [rows, 1])
    value = tf.reduce_sum(logits, axis=1)
    x = v1.placeholder(tf.float32, [None, 2], name="x")
    given = {"inputs": examples}
    kept = {name: v1.placeholder(tf.as_dtype(name), None, name=f"any_{name}") for name in TYPES}
    return {
        "types": (kept, {f"same_{name}": tf.identity(tensor) for name, tensor in kept.items()}, PREDICT),
        "serving_default": (given, {"classes": classes, "scores": scores}, CLASSIFY),
        "scores": (given, {"scores": scores}, CLASSIFY),
        "classes": (given, {"classes": classes}, CLASSIFY),
        "regress": (given, {"outputs": value[:, None]}, REGRESS),
        "flat": (given, {"outputs": value}, REGRESS),
        "extra": (given, {"scores": scores, "logits": logits}, PREDICT),
        "predict": ({"x": x}, {"y": tf.matmul(x, weights)}, PREDICT),
        "unnamed": ({"x": x}, {"y": tf.matmul(x, weights)}, ""),
        "features": (given, dict(parsed), PREDICT),
        # What Classify and Regress refuse.
        "wide": (given, {"outputs": logits}, REGRESS),
        "double": (given, {"outputs": tf.cast(value, tf.float64)}, REGRESS),
        "first": (given, {"outputs": value[:1]}, REGRESS),
        "vector": (given, {"scores": value}, CLASSIFY),
        "double_scores": (given, {"scores": tf.cast(scores, tf.float64)}, CLASSIFY),
        "number_classes": (given, {"classes": scores}, CLASSIFY),
        "first_scores": (given, {"scores": scores[:1]}, CLASSIFY),
        "first_classes": (given, {"classes": classes[:1]}, CLASSIFY),
        "uneven": (given, {"classes": classes[:, :2], "scores": scores}, CLASSIFY),
        "other_input": ({"examples": examples}, {"scores": scores, "outputs": value}, CLASSIFY),
        "other_input_one": ({"examples": examples}, {"outputs": value}, REGRESS),
        "two_inputs": ({"inputs": examples, "x": x}, {"scores": scores}, CLASSIFY),
        "three_outputs": (given, {"classes": classes, "scores": scores, "logits": logits}, CLASSIFY),
        "other_output": (given, {"logits": logits}, CLASSIFY),
        "number_input": ({"inputs": x}, {"scores": tf.matmul(x, weights), "outputs": x}, CLASSIFY),
    }


EXAMPLES = {
    "plain": [example(x=[1.0, 2.0]), example(x=[-0.5, 0.25], k=[3], word=[b"\xff\x00"])],
    "one": [example(x=[0.125, -4.0], k=[2])],
    "many": [example(x=[index / 7, 1 - index / 5], k=[index % 4]) for index in range(40)],
}


def add_init_op(file: Path) -> None:
    """Add the signature that TensorFlow 2 writes for what is to be done at the start; the v1 builder refuses it."""
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    saved.meta_graphs[0].signature_def[INIT_OP].outputs[INIT_OP].name = "start"
    file.write_bytes(saved.SerializeToString())


def main(folder: Path) -> None:
    target = folder / "heads" / "1"
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = heads()
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        definitions = {
            name: v1.saved_model.build_signature_def(
                {key: info(tensor) for key, tensor in inputs.items()},
                {key: info(tensor) for key, tensor in outputs.items()},
                method,
            )
            for name, (inputs, outputs, method) in signatures.items()
        }
        for name, (inputs, outputs, _) in signatures.items():
            if set(inputs) == {"inputs"} and inputs["inputs"].dtype == tf.string:
                answers[name] = {
                    case: session.run(outputs, {inputs["inputs"]: rows}) for case, rows in EXAMPLES.items()
                }
        given = {name: info(v1.placeholder(tf.float32, [None], name=f"given_{name}")) for name in ("a", "b")}
        total = session.graph.get_tensor_by_name("given_a:0") + session.graph.get_tensor_by_name("given_b:0")
        defaulted = v1.saved_model.build_signature_def(given, {"sum": info(total)}, PREDICT)
        defaulted.defaults["b"].CopyFrom(tf.make_tensor_proto([10.0], tf.float32))
        definitions["defaulted"] = defaulted
        tf.no_op(name="start")
        builder = v1.saved_model.Builder(str(target))
        builder.add_meta_graph_and_variables(session, ["serve"], definitions)
        builder.save()
    add_init_op(target / "saved_model.pb")
    (folder / "heads.pickle").write_bytes(pickle.dumps((EXAMPLES, answers)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
