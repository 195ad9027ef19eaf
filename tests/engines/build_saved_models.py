"""Builds small SavedModels, and notes what TensorFlow itself answers for them: ``build_saved_models.py FOLDER``.

A program of its own, because TensorFlow is not to be imported where the tests run.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

TYPES = (
    "float16", "bfloat16", "float32", "float64", "float8_e5m2", "float8_e4m3fn", "int4", "uint4", "int8", "int16",
    "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "string",
)  # fmt: skip


def float32(*shape: int | None, name: str) -> Any:
    return tf.TensorSpec(shape, tf.float32, name=name)


def many(vocabulary: Path) -> tuple[Any, dict[str, Any]]:
    """Return a model and its functions: one for each thing that can go right or wrong."""
    module = tf.Module()
    module.half = tf.Variable(0.5)
    module.two = tf.Variable(2.0)
    module.weights = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2))
    module.kept = tf.Variable([0.0], shape=[None])
    index = tf.lookup.TextFileIndex
    lines = tf.lookup.TextFileInitializer(str(vocabulary), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
    module.words = tf.lookup.StaticVocabularyTable(lines, 1)

    def half_plus_two(x: Any) -> Any:
        return {"y": module.half * x + module.two}

    def mixed(z: Any, a: Any, m: Any) -> Any:
        return {
            "product": tf.matmul(z, module.weights),
            "next": a + 1,
            "shout": tf.strings.join([m, b"!"]),
            "first": m[0],
            "index": module.words.lookup(m),
        }

    def keep(x: Any) -> Any:
        before = tf.identity(module.kept.read_value())
        with tf.control_dependencies([before]):
            module.kept.assign(x)
        return {"before": before}

    def loop(x: Any) -> Any:
        def step(total: Any, row: Any) -> Any:
            return tf.tanh(total + tf.reduce_sum(row) + tf.map_fn(lambda item: item * 0.5, row)[0])

        return {"y": tf.scan(step, x, initializer=0.0), "rows": tf.shape(x)[0]}

    def types(*values: Any) -> Any:
        return {f"{name}_out": tf.identity(value) for name, value in zip(TYPES, values, strict=True)}

    mixed_specs = [
        float32(None, 3, name="z"),
        tf.TensorSpec(None, tf.int32, "a"),
        tf.TensorSpec([None], tf.string, "m"),
    ]
    module.functions = {
        "half_plus_two": tf.function(half_plus_two, [float32(None, 1, name="x")]),
        "mixed": tf.function(mixed, mixed_specs),
        "keep": tf.function(keep, [float32(None, name="x")]),
        "loop": tf.function(loop, [float32(None, None, name="x")]),
        "types": tf.function(types, [tf.TensorSpec(None, tf.as_dtype(name), name) for name in TYPES]),
    }
    return module, dict(module.functions)


def save_old_style(folder: Path) -> None:
    """Save with the v1 builder: outputs that are separate nodes, one of which fails, one of which is an input."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        count = v1.get_variable("count", initializer=3.0)
        good = tf.identity(x * count, name="good")
        with tf.control_dependencies([v1.assert_less(x, 0.0, message="x is not small enough")]):
            bad = tf.identity(x, name="bad")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"good": good, "bad": bad, "itself": x})


def main(folder: Path) -> None:
    vocabulary = folder / "words.txt"
    vocabulary.write_text("zero\none\ntwo\n")
    module, functions = many(vocabulary)
    inputs: dict[str, dict[str, Any]] = {
        "half_plus_two": {"x": np.array([[1.0], [-3.0]], np.float32)},
        "mixed": {
            "z": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
            "a": np.array(4, np.int32),
            "m": np.array([b"two", b"\x00\xff", b"one", b""], dtype=object),
        },
        "loop": {"x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)},
    }
    expected = {
        name: {key: value.numpy() for key, value in functions[name](**values).items()}
        for name, values in inputs.items()
    }
    (folder / "expected.pickle").write_bytes(pickle.dumps((inputs, expected)))
    tf.saved_model.save(module, str(folder / "many" / "1"), signatures=functions)
    save_old_style(folder / "old" / "1")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
