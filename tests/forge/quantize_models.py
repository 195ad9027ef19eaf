"""Two tiny models and what quantizes them all at once, for the tests of quantization. ``make`` runs in the worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from servable.core.tensors import Array
from servable.engines.base import Artifact
from servable.forge.arrays import load
from servable.forge.steps import Task, step_named

CLASSES = 5
VOCABULARY = 64
PIXELS = (0, 255)
"""Mean and standard deviation of bytes that stand for 0 to 1."""


def conv_net(path: Path, batch: int | str = "batch") -> Path:
    """Write: pictures ``image`` [n, 12, 12, 3], two convolutions with a batch norm, a dense layer, ``probs`` [n, 5]."""
    random = np.random.default_rng(3)
    constants = {
        "kernel1": random.normal(0, 0.4, (16, 3, 3, 3)),
        **{part: random.uniform(0.5, 1.5, 16) for part in ("gamma", "beta", "mean", "variance")},
        "kernel2": random.normal(0, 0.15, (32, 16, 3, 3)),
        "bias2": random.normal(0, 0.1, 32),
        "dense": random.normal(0, 0.3, (128, CLASSES)),
        "offset": random.normal(0, 0.1, CLASSES),
    }
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Transpose", ["image"], "first", {"perm": [0, 3, 1, 2]}),
        ("Conv", ["first", "kernel1"], "conv1", {}),
        ("BatchNormalization", ["conv1", "gamma", "beta", "mean", "variance"], "normal", {}),
        ("Relu", ["normal"], "active1", {}),
        ("MaxPool", ["active1"], "pool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["pool", "kernel2", "bias2"], "conv2", {"strides": [2, 2], "pads": [1, 1, 0, 0]}),
        ("Relu", ["conv2"], "active2", {}),
        ("Flatten", ["active2"], "flat", {}),
        ("Gemm", ["flat", "dense", "offset"], "logits", {}),
        ("Softmax", ["logits"], "probs", {"axis": 1}),
    ]
    return _write(path, nodes, constants, ("image", np.float32, [batch, 12, 12, 3]), [batch, CLASSES])


def lstm_net(path: Path) -> Path:
    """Write: ``tokens`` int32 [n, 6], a table of 64 words, an LSTM of 32, ``probs`` [n, 5]."""
    random = np.random.default_rng(4)
    constants = {
        "table": random.normal(0, 1, (VOCABULARY, 32)),
        "kernel": random.normal(0, 0.2, (1, 128, 32)),
        "recurrent": random.normal(0, 0.2, (1, 128, 32)),
        "dense": random.normal(0, 1, (32, CLASSES)),
        "offset": random.normal(0, 0.1, CLASSES),
        "axis": np.array([0], np.int64),
    }
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Transpose", ["tokens"], "by_time", {"perm": [1, 0]}),
        ("Gather", ["table", "by_time"], "words", {}),
        ("LSTM", ["words", "kernel", "recurrent"], ",state", {"hidden_size": 32}),
        ("Squeeze", ["state", "axis"], "last", {}),
        ("MatMul", ["last", "dense"], "product", {}),
        ("Add", ["product", "offset"], "logits", {}),
        ("Softmax", ["logits"], "probs", {"axis": 1}),
    ]
    return _write(path, nodes, constants, ("tokens", np.int32, ["batch", 6]), ["batch", CLASSES])


def _write(
    path: Path,
    nodes: list[tuple[str, list[str], str, dict[str, Any]]],
    constants: Mapping[str, Array],
    given: tuple[str, Any, list[int | str]],
    answer: list[int | str],
) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    name, dtype, shape = given
    graph = helper.make_graph(
        [
            helper.make_node(kind, inputs, out.split(","), name=f"{out.strip(',')}/{kind}", **attributes)
            for kind, inputs, out, attributes in nodes
        ],
        "tiny",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, answer)],
        [
            numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), key)
            for key, value in constants.items()
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def pictures(rows: int, seed: int = 0) -> dict[str, Array]:
    return {"image": np.random.default_rng(seed).uniform(0, 1, (rows, 12, 12, 3)).astype(np.float32)}


def sentences(rows: int, seed: int = 0) -> dict[str, Array]:
    return {"tokens": np.random.default_rng(seed).integers(0, VOCABULARY, (rows, 6)).astype(np.int32)}


def make(jobs: list[dict[str, Any]], report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run several steps in one process, each as the worker would; return the facts of each, or its error."""
    import importlib

    found = []
    for job in jobs:
        module, _, name = step_named(job["step"]).function.partition(":")
        kind, path = job["source"]
        with tempfile.TemporaryDirectory(dir=Path(job["target"]).parent) as scratch:
            version = Path(scratch) / "version"
            version.mkdir()
            rows = load(Path(job["samples"])) if job["samples"] else []
            task = Task(rows, job["options"], report)
            facts = getattr(importlib.import_module(module), name)(Artifact(kind, Path(path)), version, task)
            version.rename(job["target"])
        found.append(facts)
    return found


def make_saved_models(root: Path) -> None:
    """Write a convolution as a SavedModel with two signatures and an LSTM with a free batch; beside them what they say.

    ``<name>.asked.npy`` is what they are asked, ``<name>.said.npy`` the answer.
    """
    import keras
    import tensorflow as tf

    random = np.random.default_rng(5)
    kernel1 = tf.Variable(random.normal(0, 0.4, (3, 3, 3, 16)).astype(np.float32))
    kernel2 = tf.Variable(random.normal(0, 0.1, (5 * 5 * 16, CLASSES)).astype(np.float32))

    class Net(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.kernels = [kernel1, kernel2]

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec([None, 12, 12, 3], tf.float32, name="image")]
        )
        def scores(self, image: Any) -> Any:
            maps = tf.nn.relu(tf.nn.conv2d(image, kernel1, 2, "VALID"))
            return {"probs": tf.nn.softmax(tf.reshape(maps, [-1, 5 * 5 * 16]) @ kernel2)}

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec([None, 12, 12, 3], tf.float32, name="image")]
        )
        def brightness(self, image: Any) -> Any:
            return {"mean": tf.reduce_mean(image, [1, 2, 3])}

    net = Net()
    tf.saved_model.save(net, str(root / "conv"), {"serving_default": net.scores, "brightness": net.brightness})
    recurrent = keras.Sequential([keras.Input((6, 8), name="words"), keras.layers.LSTM(8), keras.layers.Dense(3)])
    recurrent.export(str(root / "lstm"))
    words = np.random.default_rng(2).normal(size=(5, 6, 8)).astype(np.float32)
    image = pictures(7, seed=9)["image"]
    for name, asked, said in (
        ("conv", image, net.scores(image)["probs"].numpy()),
        ("lstm", words, recurrent(words).numpy()),
    ):
        np.save(root / f"{name}.asked.npy", asked)
        np.save(root / f"{name}.said.npy", said)


def make_tflite(folder: str, report: Callable[[str], None]) -> dict[str, Any]:
    """Make both SavedModels and what is made of them; return the facts of each by name."""
    root = Path(folder)
    make_saved_models(root)
    jobs = {
        "conv-fp16": ("fp16-tflite", "conv"),
        "conv-weights": ("int8-weights-tflite", "conv"),
        "conv-int8": ("int8-tflite", "conv"),
        "conv-uint8": ("int8-tflite", "conv"),
        "conv-fp16-ir": ("fp16-openvino", "conv"),
        "lstm-weights": ("int8-weights-tflite", "lstm"),
    }
    facts = make(
        [
            {
                "step": step,
                "source": ["saved_model", str(root / source)],
                "target": str(root / name),
                "samples": str(root / f"{source}.npz"),
                "options": {"io": "uint8", "input_stats": PIXELS} if name == "conv-uint8" else {},
            }
            for name, (step, source) in jobs.items()
        ],
        report,
    )
    return {"conv": {}, **dict(zip(jobs, facts, strict=True))}
