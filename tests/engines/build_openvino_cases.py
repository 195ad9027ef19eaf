"""Builds SavedModels for OpenVINO's tests, with TensorFlow's answers: ``build_openvino_cases.py FOLDER``.

A program of its own, because TensorFlow is not to be imported where the tests run.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

F32, I32, I64 = tf.float32, tf.int32, tf.int64
Signatures = dict[str, tuple[Callable[..., Any], list[Any]]]
LAYER_BYTES = 32 * 32 * 4
rng = np.random.default_rng(5)


def spec(name: str, *shape: int | None, dtype: Any = F32) -> Any:
    return tf.TensorSpec(shape, dtype, name=name)


def anything(name: str, dtype: Any = F32) -> Any:
    return tf.TensorSpec(None, dtype, name=name)


def one(function: Callable[..., Any], *specs: Any) -> Signatures:
    return {"serving_default": (function, list(specs))}


def layers() -> tf.Module:
    module = tf.Module()
    module.layers = [tf.Variable(rng.standard_normal((32, 32)).astype(np.float32) / 6) for _ in range(4)]
    return module


def held(module: tf.Module) -> dict[str, Signatures]:
    """Return the models that OpenVINO holds."""
    module.half, module.two = tf.Variable(0.5), tf.Variable(2.0)
    module.weights = tf.Variable(np.arange(12, dtype=np.float32).reshape(3, 4))
    module.table = tf.Variable(rng.standard_normal((10, 2)).astype(np.float32))
    module.kernel = tf.Variable(rng.standard_normal((3, 3, 3, 4)).astype(np.float32))

    def deep(x: Any) -> Any:
        for layer in module.stack.layers:
            x = tf.tanh(tf.matmul(x, layer))
        return {"y": x}

    def control(x: Any) -> Any:
        _, y = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 2.0), (0, x))
        return {"y": tf.cond(tf.reduce_sum(x) > 0.0, lambda: y + 1.0, lambda: y - 1.0)}

    def recurrent(x: Any) -> Any:
        return {"y": tf.transpose(tf.scan(lambda state, row: state * 0.5 + row, tf.transpose(x)))}

    def image(pixels: Any) -> Any:
        x = tf.cast(pixels, F32) / 255.0
        x = tf.nn.relu(tf.nn.conv2d(x, module.kernel, 2, "SAME"))
        return {"features": tf.reduce_mean(tf.nn.max_pool2d(x, 2, 2, "VALID"), [1, 2])}

    def tokens(ids: Any) -> Any:
        wrapped = tf.where(ids < 0, ids + 10, ids)
        present = tf.cast(tf.not_equal(ids, 0), I32)
        return {
            "mean": tf.reduce_mean(tf.gather(module.table, wrapped), 1),
            "lengths": tf.reduce_sum(present, 1),
            "best": tf.argmax(tf.one_hot(wrapped, 10), axis=-1),
        }

    return {
        "half_plus_two": one(lambda x: {"y": module.half * x + module.two}, spec("x", None, 1)),
        "three": {
            "dense": (lambda x: {"y": tf.matmul(x, module.weights)}, [spec("x", None, 3)]),
            "scale": (lambda v: {"y": v * module.two, "sum": tf.reduce_sum(v * module.half, -1)}, [spec("v", None, 4)]),
            "both": (lambda b, a: {"p": a + b, "q": a - b}, [spec("b", None), spec("a", None)]),
        },
        "unknown_rank": one(lambda x: {"y": x * module.two + 1.0}, anything("x")),
        "scalar": one(lambda x: {"y": x * module.two + 1.0}, spec("x")),
        "same_names": one(lambda x, y: {"y": x / y, "x": x * y}, spec("x", None, 3), spec("y", 3)),
        "same_tensor": one(lambda x: {"y": x, "z": x}, spec("x", None)),
        "unused_input": one(lambda x, unused: {"y": x + 1.0}, spec("x", None), spec("unused", None)),
        "shape_of": one(lambda x: {"y": tf.reshape(x, [tf.shape(x)[0] * tf.shape(x)[1]])}, spec("x", None, 1)),
        "shards": one(deep, spec("x", None, 32)),
        "control": one(control, spec("x", None)),
        "recurrent": one(recurrent, spec("x", None, 5)),
        "image": one(image, spec("pixels", None, 8, 8, 3, dtype=tf.uint8)),
        "tokens": one(tokens, spec("ids", None, 4, dtype=I64)),
        "flags": one(lambda f: {"not": tf.logical_not(f), "count": tf.cast(f, F32)}, spec("f", None, dtype=tf.bool)),
        "int32": one(lambda x: {"y": (x + 7) // 3 % 5, "r": tf.reverse(x, [0])}, spec("x", None, dtype=I32)),
    }  # fmt: skip


SHAPES: dict[str, list[tuple[int, ...]]] = {
    "half_plus_two": [(3, 1), (1,), (), (2,), (1, 2), (0, 1), (2, 3, 4)],
    "unknown_rank": [(), (2,), (2, 3), (1, 2, 3, 2), (3,)],
    "scalar": [(), (2,)],
    "shape_of": [(4, 1), (2, 3), (2,)],
    "dense": [(5, 3), (2, 4), (2, 2), (3,), (), (2, 2, 3)],
    "scale": [(5, 4), (4,), (2, 6), ()],
    "both": [(5,), (2, 3), ()],
    "recurrent": [(3, 5), (1, 5), (3, 5, 2)],
    "control": [(3,), (1,), ()],
    "shards": [(3, 32), (3, 31)],
}
"""Model or signature -> the shapes in which each of its inputs is sent; those of the rest are as declared."""


def refused(module: tf.Module) -> dict[str, Signatures]:
    """Return the models that OpenVINO would answer wrongly or not at all."""
    module.count = tf.Variable(0.0)
    module.big = tf.Variable(np.arange(5) + 2**40)
    module.words = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)), -1
    )

    def asserted(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0.0), [x])]):
            return {"y": x + 1.0}

    x, text = spec("x", None), spec("s", None, dtype=tf.string)
    integers = [spec("a", None, dtype=I64), spec("b", None, dtype=I64)]
    return {
        "float64": one(lambda x: {"y": x / 3}, spec("x", None, dtype=tf.float64)),
        "float64_inside": one(lambda x: {"y": tf.cast(tf.cast(x, tf.float64) / 3, F32)}, x),
        "uint64": one(lambda x: {"y": tf.reverse(x, [0])}, spec("x", None, dtype=tf.uint64)),
        "complex64": one(lambda x: {"y": x}, spec("x", None, dtype=tf.complex64)),
        "float16": one(lambda x: {"y": x + x}, spec("x", None, dtype=tf.float16)),
        "uint8": one(lambda x: {"y": x + x}, spec("x", None, dtype=tf.uint8)),
        "int64_sum": one(lambda a, b: {"y": a + b}, *integers),
        "int64_product": one(lambda a, b: {"y": a * 1000003 % 100 + b}, *integers),
        "int64_cast": one(lambda x: {"y": tf.cast(x, I64)}, x),
        "int64_variable": one(lambda i: {"y": tf.gather(module.big, i)}, spec("i", None, dtype=I32)),
        "int64_constant": one(lambda i: {"y": tf.gather([5, 2**50], i)}, spec("i", None, dtype=I32)),
        "division": one(lambda a, b: {"y": a // b}, *integers),
        "string": one(lambda s: {"n": tf.strings.length(s)}, text),
        "string_inside": one(lambda x: {"n": tf.strings.length(tf.strings.as_string(x))}, x),
        "jpeg": one(lambda s: {"y": tf.io.decode_jpeg(s[0])}, text),
        "parse": one(lambda s: {"y": tf.io.parse_example(s, {"x": tf.io.FixedLenFeature([1], F32)})["x"]}, text),
        "table": one(lambda s: {"y": module.words.lookup(s)}, text),
        "random": one(lambda x: {"y": x + tf.random.uniform(tf.shape(x))}, x),
        "counter": one(lambda x: {"y": x + module.count.assign_add(1.0)}, x),
        "unique": one(lambda x: {"y": tf.unique(x)[0]}, x),
        "scatter": one(lambda x: {"y": tf.scatter_nd([[0], [0]], x[:2], [3])}, x),
        "assert": one(asserted, x),
        "digamma": one(lambda x: {"y": tf.math.digamma(x)}, x),
        "constant_output": one(lambda x: {"y": tf.constant([1.0, 2.0]), "z": x}, x),
        "sliced": one(lambda x: {"y": tf.matmul(x, module.stack.layers[0])}, spec("x", None, 32)),
    }


def save(module: tf.Module, signatures: Signatures, folder: Path, shard_bytes: int = 0) -> None:
    concrete = {
        name: tf.function(function, input_signature=specs).get_concrete_function()
        for name, (function, specs) in signatures.items()
    }
    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=shard_bytes) if shard_bytes else None
    options = tf.saved_model.SaveOptions(experimental_sharding_callback=policy)
    tf.saved_model.save(module, str(folder), signatures=concrete, options=options)


def value(given: Any, shape: tuple[int, ...]) -> Any:
    if given.dtype == tf.bool:
        return rng.integers(0, 2, shape).astype(bool)
    if given.dtype.is_integer:
        return np.asarray(rng.integers(0, 10, shape)).astype(given.dtype.as_numpy_dtype)
    return np.asarray(rng.standard_normal(shape), dtype=given.dtype.as_numpy_dtype)


def answers(folder: Path, signature: str, requests: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Return what the session of TensorFlow's loader gives; ``None`` where it refuses.

    By way of the session's C interface, as TensorFlow Serving does: Python's would check declared shapes.
    """
    with tf1.Session(graph=tf1.Graph()) as session:
        meta_graph = tf1.saved_model.loader.load(session, ["serve"], str(folder))
        definition = meta_graph.signature_def[signature]
        session._extend_graph()

        def output(name: str) -> Any:
            return session.graph.get_tensor_by_name(name)._as_tf_output()

        found: list[dict[str, Any] | None] = []
        for request in requests:
            feed = {output(definition.inputs[name].name): array for name, array in request.items()}
            fetches = [output(info.name) for info in definition.outputs.values()]
            try:
                results = session._call_tf_sessionrun(None, feed, fetches, [], None)
            except tf.errors.OpError:
                found.append(None)
            else:
                found.append(dict(zip(definition.outputs, map(np.asarray, results), strict=True)))
        return found


def main(folder: Path) -> None:
    module = tf.Module()
    module.stack = layers()
    expected: dict[tuple[str, str], list[tuple[dict[str, Any], dict[str, Any] | None]]] = {}
    for name, signatures in held(module).items():
        if name == "shards":
            save(module.stack, signatures, folder / name / "1", shard_bytes=2 * LAYER_BYTES + 100)
        else:
            save(module, signatures, folder / name / "1")
        for signature, (_, specs) in signatures.items():
            declared = [
                [tuple(rows if size is None else size for size in given.shape) for given in specs]
                for rows in (1, 4)
                if all(given.shape.rank is not None for given in specs)
            ]
            other = [[shape] * len(specs) for shape in SHAPES.get(signature, SHAPES.get(name, []))]
            requests = [
                {given.name: value(given, shape) for given, shape in zip(specs, shapes, strict=True)}
                for shapes in declared + other
            ]
            results = answers(folder / name / "1", signature, requests)
            expected[name, signature] = list(zip(requests, results, strict=True))
    (folder / "expected.pickle").write_bytes(pickle.dumps(expected))
    for name, signatures in refused(module).items():
        save(module, signatures, folder / name / "1", shard_bytes=LAYER_BYTES - 1000 if name == "sliced" else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
