"""Every conversion of TensorFlow's models once, many in one process: it takes seconds to start. Run by the worker.

Writes, under ``root``, a version for each and an ``.npz`` of what the model in memory answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from servable.core.errors import ServingError
from servable.core.signatures import Signature
from servable.engines.base import Artifact
from servable.forge import arrays
from servable.forge.artifacts import copy_companions
from servable.forge.conversion import files as convert_files
from servable.forge.conversion import fold_graph
from servable.forge.conversion import live_sources as convert_live
from servable.forge.conversion import saved_models as convert_saved_model
from servable.forge.conversion.live import LiveModel, Naming, live_model
from servable.forge.steps import Task

Report = Callable[[str], None]
ROWS = (1, 2, 7)


def convert(part: str, root: str, report: Report) -> dict[str, Any]:
    """Return the facts of each conversion of a part by name; an error is its message."""
    import keras

    keras.utils.set_random_seed(3)
    done = _Conversions(Path(root), report)
    getattr(done, part)()
    return done.facts


class _Conversions:
    def __init__(self, root: Path, report: Report) -> None:
        self.root, self.report = root, report
        self.facts: dict[str, Any] = {}

    def network(self) -> None:
        """A picture network with batch normalization, from Keras to everything."""
        model = convolutions()
        live = live_model(model, Naming("predict"))
        self.answered("cnn", live)
        path = self.root / "cnn.keras"
        model.save(path)
        source = Artifact("keras", path)
        for kind in ("saved_model", "onnx", "openvino", "tflite"):
            function = getattr(convert_live, f"to_{kind}")
            self.run(f"cnn-keras-{kind}", function, source, signature="predict")
        legacy = self.root / "cnn.h5"
        model.save(legacy)
        self.run("cnn-h5-saved_model", convert_live.to_saved_model, Artifact("keras", legacy))
        saved = Artifact("saved_model", self.root / "cnn-keras-saved_model")
        for kind in ("onnx", "openvino", "graph_def"):
            self.run(f"cnn-saved_model-{kind}", getattr(convert_saved_model, f"to_{kind}"), saved)
        frozen = Artifact("graph_def", self.root / "cnn-saved_model-graph_def" / "graph.pb")
        self.run("cnn-folded", fold_graph.fold, frozen)
        self.run("cnn-text", convert_files.rewrite, frozen, text=True)
        text = Artifact("graph_def", self.root / "cnn-text" / "graph.pbtxt")
        self.run("cnn-bytes", convert_files.rewrite, text)
        self.run("cnn-folded-text", fold_graph.fold, text, text=True)
        folded = Artifact("graph_def", self.root / "cnn-folded" / "graph.pb")
        self.run("cnn-graph_def-onnx", convert_files.to_onnx, folded)
        self.run("cnn-graph_def-openvino", convert_files.graph_def_to_openvino, folded)
        self.run("cnn-graph_def-tflite", convert_files.to_tflite, folded)

    def recurrent(self) -> None:
        """An LSTM: its loops are what conversions stumble over."""
        live = live_model(lstm(), Naming())
        self.answered("lstm", live)
        folder = self.target("lstm-saved_model")
        live.write("saved_model", folder, Task())
        source = Artifact("saved_model", folder)
        for kind in ("onnx", "openvino", "tflite", "graph_def"):
            self.run(f"lstm-saved_model-{kind}", getattr(convert_saved_model, f"to_{kind}"), source)
        self.run("lstm-saved_model-onnx-4", convert_saved_model.to_onnx, source, batch=4)
        frozen = Artifact("graph_def", self.root / "lstm-saved_model-graph_def" / "graph.pb")
        self.run("lstm-folded", fold_graph.fold, frozen)
        self.run("lstm-graph_def-onnx", convert_files.to_onnx, frozen)

    def others(self) -> None:
        """Functions, and code."""
        self.normalized()
        self.functions()
        self.code()

    def normalized(self) -> None:
        """Convolutions with and without a bias, each with fused normalization, which Grappler alone would leave."""
        import tensorflow as tf

        live = live_model(normalized(tf), Naming())
        self.answered("normalized", live)
        folder = self.target("normalized-saved_model")
        live.write("saved_model", folder, Task())
        self.run("normalized-graph_def", convert_saved_model.to_graph_def, Artifact("saved_model", folder))
        frozen = Artifact("graph_def", self.root / "normalized-graph_def" / "graph.pb")
        self.run("normalized-folded", fold_graph.fold, frozen)
        folded = Artifact("graph_def", self.root / "normalized-folded" / "graph.pb")
        self.run("normalized-onnx", convert_files.to_onnx, folded)

    def functions(self) -> None:
        """Modules with two signatures, and with what only TensorFlow can do."""
        import tensorflow as tf

        two = two_signatures(tf)
        folder = self.target("two-saved_model")
        tf.saved_model.save(two, str(folder), signatures={"double": two.double, "sum": two.sum})
        source = Artifact("saved_model", folder)
        self.run("two-onnx", convert_saved_model.to_onnx, source)
        self.run("two-onnx-sum", convert_saved_model.to_onnx, source, signature="sum")
        self.run("two-openvino-sum", convert_saved_model.to_openvino, source, signature="sum")
        self.run("two-tflite", convert_saved_model.to_tflite, source)
        self.run("two-onnx-absent", convert_saved_model.to_onnx, source, signature="absent")

        words = Words(tf)
        folder = self.target("words-saved_model")
        tf.saved_model.save(words.module, str(folder), signatures={"mean": words.mean, "upper": words.upper})
        source = Artifact("saved_model", folder)
        self.run("upper-graph_def", convert_saved_model.to_graph_def, source, signature="upper")
        self.run("upper-onnx", convert_saved_model.to_onnx, source, signature="upper")
        for kind in ("onnx", "openvino", "graph_def"):
            self.run(f"mean-{kind}", getattr(convert_saved_model, f"to_{kind}"), source, signature="mean")
        self.run("mean-tflite", convert_saved_model.to_tflite, source, signature="mean")
        here = {"code": f"{Path(__file__).resolve()}:free_steps", "signature": "predict"}
        self.run("free-tflite", convert_live.to_tflite, Artifact("checkpoint", Path("x")), **here)

        class Jpegs(tf.Module):  # type: ignore[misc]
            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="files")])  # type: ignore[untyped-decorator]
            def __call__(self, files: Any) -> dict[str, Any]:
                sizes = tf.map_fn(lambda one: tf.shape(tf.io.decode_jpeg(one))[0], files, fn_output_signature=tf.int32)
                return {"heights": sizes}

        folder = self.target("jpegs-saved_model")
        live_model(Jpegs(), Naming()).write("saved_model", folder, Task())
        for kind in ("onnx", "openvino", "tflite"):
            self.run(f"jpegs-{kind}", getattr(convert_saved_model, f"to_{kind}"), Artifact("saved_model", folder))

        class Solver(tf.Module):  # type: ignore[misc]
            @tf.function(input_signature=[tf.TensorSpec([None, 2, 2], tf.float32, name="a")])  # type: ignore[untyped-decorator]
            def __call__(self, a: Any) -> dict[str, Any]:
                return {"values": tf.linalg.eigvalsh(a)}

        folder = self.target("solver-saved_model")
        live_model(Solver(), Naming()).write("saved_model", folder, Task())
        for kind in ("onnx", "openvino"):
            self.run(f"solver-{kind}", getattr(convert_saved_model, f"to_{kind}"), Artifact("saved_model", folder))
        broken = self.target("broken-saved_model")
        (broken / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:200])
        self.run("broken-onnx", convert_saved_model.to_onnx, Artifact("saved_model", broken))

    def code(self) -> None:
        """Code and a checkpoint of its weights, in both forms that Keras and TensorFlow write."""
        import tensorflow as tf

        here = str(Path(__file__).resolve())
        model = lstm()
        model.save_weights(self.root / "lstm.weights.h5")
        tf.train.Checkpoint(model=model).write(str(self.root / "lstm_checkpoint"))
        self.answered("code", live_model(model, Naming()))
        source = Artifact("checkpoint", Path("lstm"))
        options = {"code": f"{here}:lstm", "checkpoint": str(self.root / "lstm.weights.h5")}
        self.run("code-saved_model", convert_live.to_saved_model, source, **options)
        options = {"code": f"{here}:lstm", "checkpoint": str(self.root / "lstm_checkpoint")}
        self.run("code-onnx", convert_live.to_onnx, source, **options)
        options = {"code": f"{here}:convolutions", "checkpoint": str(self.root / "lstm.weights.h5")}
        self.run("code-misfit", convert_live.to_saved_model, Artifact("checkpoint", Path("lstm")), **options)
        self.run("code-absent", convert_live.to_saved_model, Artifact("checkpoint", Path("x")), code=f"{here}:absent")
        damaged = self.root / "damaged.keras"
        damaged.write_bytes(b"PK\x03\x04 cut off")
        self.run("damaged-keras", convert_live.to_saved_model, Artifact("keras", damaged))

    def answered(self, name: str, live: LiveModel) -> None:
        """Keep what the model itself answers to random inputs."""
        asked = [_inputs(live.signature, rows) for rows in ROWS]
        arrays.save(self.root / f"{name}-asked.npz", asked)
        arrays.save(self.root / f"{name}-answered.npz", [live.answer(one) for one in asked])

    def run(self, name: str, function: Callable[..., Any], source: Artifact, **options: Any) -> None:
        """Do one conversion and keep its facts, or why there are none."""
        began = time.monotonic()
        target = self.target(name)
        copy_companions(source, target)
        try:
            facts = function(source, target, Task(options=options, report=self.report))
            self.facts[name] = json.loads(json.dumps(facts))
        except ServingError as error:
            self.facts[name] = {"error": error.message, "code": error.code.name}
        self.report(f"{name}: {time.monotonic() - began:.1f} s")

    def target(self, name: str) -> Path:
        """Return a new empty folder."""
        folder = self.root / name
        folder.mkdir()
        return folder


def convolutions() -> Any:
    """Return a functional model with dict outputs and batch normalization that does something."""
    import keras

    layers = keras.layers
    pictures = keras.Input((12, 12, 3), name="pictures")
    maps = layers.Conv2D(8, 3, use_bias=False)(pictures)
    norm = layers.BatchNormalization(name="norm")
    maps = layers.ReLU()(norm(maps))
    maps = layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(pictures, {"probs": layers.Dense(4, activation="softmax")(maps), "features": maps})
    rng = np.random.default_rng(5)
    norm.set_weights([rng.uniform(0.5, 1.5, 8), rng.normal(size=8), rng.normal(size=8), rng.uniform(0.5, 2, 8)])
    return model


def lstm() -> Any:
    """Return two recurrent layers over ten steps."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((10, 6), name="steps"),
            layers.LSTM(8, return_sequences=True),
            layers.LSTM(8),
            layers.Dense(3, name="probs"),
        ]
    )


def free_steps() -> Any:
    """Return a recurrent layer over any number of steps, which TFLite cannot."""
    import keras

    return keras.Sequential([keras.Input((None, 2), name="steps"), keras.layers.LSTM(2)])


class Words:
    """Two signatures: int64 with a free size beside the batch, and strings."""

    def __init__(self, tf: Any) -> None:
        self.module = tf.Module()
        self.module.table = table = tf.Variable(np.arange(20, dtype=np.float32).reshape(10, 2))

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64, name="ids")])  # type: ignore[untyped-decorator]
        def mean(ids: Any) -> dict[str, Any]:
            return {"mean": tf.reduce_mean(tf.gather(table, ids), 1)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="texts")])  # type: ignore[untyped-decorator]
        def upper(texts: Any) -> dict[str, Any]:
            return {"upper": tf.strings.upper(texts), "lengths": tf.strings.length(texts)}

        self.mean, self.upper = mean, upper


def normalized(tf: Any) -> Any:
    """Return two convolutions with fused batch normalization, the second one with a bias and depthwise."""
    rng = np.random.default_rng(4)

    def norm(maps: Any) -> Any:
        gamma, beta, mean, variance = (rng.uniform(0.5, 1.5, 4).astype(np.float32) for _ in range(4))
        return tf.compat.v1.nn.fused_batch_norm(maps, gamma, beta, mean, variance, 1e-3, is_training=False)[0]

    def draw(*shape: int) -> Any:
        return tf.constant(rng.normal(size=shape).astype(np.float32))

    def call(x: Any) -> dict[str, Any]:
        maps = tf.nn.relu(norm(tf.nn.conv2d(x, draw(3, 3, 2, 4), strides=1, padding="SAME")))
        deep = tf.nn.depthwise_conv2d(maps, draw(3, 3, 4, 1), strides=[1, 1, 1, 1], padding="VALID")
        return {"maps": norm(tf.nn.bias_add(deep, draw(4)))}

    function = tf.function(call, input_signature=[tf.TensorSpec([None, 6, 6, 2], tf.float32, name="x")])
    return function.get_concrete_function()


def two_signatures(tf: Any) -> Any:
    """Return a module that computes two things of inputs of two types."""

    class Two(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.factor = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def double(self, x: Any) -> dict[str, Any]:
            return {"twice": x * self.factor}

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec([None], tf.int64, name="a"), tf.TensorSpec([None], tf.int64, name="b")]
        )
        def sum(self, a: Any, b: Any) -> dict[str, Any]:
            return {"total": a + b, "scaled": tf.cast(a, tf.float32) * self.factor}

    return Two()


def _inputs(signature: Signature, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {
        name: rng.normal(size=(rows, *(size or 1 for size in (spec.shape or ())[1:]))).astype(spec.dtype.numpy)
        for name, spec in signature.inputs.items()
    }
