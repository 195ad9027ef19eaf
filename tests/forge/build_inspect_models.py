"""Builds the small models that lie in ``inspect_models``: ``build_inspect_models.py FOLDER``.

A program of its own, because neither TensorFlow nor torch is to be imported where the tests run. What it makes is
committed, so that reading is tested where neither is installed. What says where a file was made is dropped.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
import torch
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

PICTURE = (16, 16, 3)


def picture_model() -> Any:
    layers = keras.layers
    image = keras.Input(PICTURE, name="image")
    maps = layers.Conv2D(8, 3, padding="same", name="first")(image)
    maps = layers.ReLU(name="active")(layers.BatchNormalization(name="norm")(maps))
    beside = layers.Conv2D(8, 1, activation="relu", name="second")(maps)
    maps = layers.MaxPooling2D(name="pool")(layers.Add(name="sum")([maps, beside]))
    maps = layers.DepthwiseConv2D(3, name="third")(maps)
    features = layers.Dropout(0.1, name="drop")(layers.GlobalAveragePooling2D(name="mean")(maps))
    return keras.Model(image, layers.Dense(10, activation="softmax", name="probs")(features), name="pictures")


def token_model() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((20,), dtype="int32", name="tokens"),
            layers.Embedding(50, 16, name="table"),
            layers.LSTM(8, return_sequences=True, name="states"),
            layers.Bidirectional(layers.LSTM(4), name="both"),
            layers.Dense(2, name="head"),
        ]
    )


class Pictures(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.block = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, stride=2), torch.nn.ReLU())
        self.head = torch.nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.block(torch.relu(self.norm(self.first(x))))
        return torch.softmax(self.head(torch.nn.functional.max_pool2d(maps, 2).mean((2, 3))), 1)


class Tokens(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(50, 16)
        self.states = torch.nn.LSTM(16, 8, 2, batch_first=True)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.states(self.table(tokens))
        states, _ = self.attention(states, states, states, need_weights=False)
        return self.head(states[:, -1])


def frozen(model: Any, spec: Any) -> Any:
    function = tf.function(lambda given: model(given, training=False)).get_concrete_function(spec)
    return convert_variables_to_constants_v2(function, lower_control_flow=False).graph.as_graph_def()


def rewrite(path: Path, *, skip: str) -> None:
    """Write a zip again without files that name paths, and without stack traces in its JSON."""
    fresh = path.with_suffix(".fresh")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(fresh, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if skip and skip in name:
                continue
            if name.endswith("models/model.json"):
                program = json.loads(data)
                for node in program["graph_module"]["graph"]["nodes"]:
                    node["metadata"].pop("stack_trace", None)
                data = json.dumps(program, separators=(",", ":")).encode()
            new.writestr(name, data)
    fresh.replace(path)


def build(folder: Path) -> None:
    keras.utils.set_random_seed(1)
    pictures, tokens = picture_model(), token_model()
    pictures.save(folder / "pictures.keras")
    pictures.save(folder / "pictures.h5")
    tokens.save(folder / "tokens.keras")
    (folder / "pictures.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(pictures).convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(pictures)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    rng = np.random.default_rng(1)
    converter.representative_dataset = lambda: ([rng.random((1, *PICTURE), np.float32)] for _ in range(4))
    (folder / "pictures_int8.tflite").write_bytes(converter.convert())
    graph = frozen(pictures, tf.TensorSpec((None, *PICTURE), tf.float32, name="image"))
    (folder / "pictures.pb").write_bytes(graph.SerializeToString())
    tf.io.write_graph(graph, str(folder), "pictures.pbtxt", as_text=True)
    archive = keras.export.ExportArchive()
    archive.track(tokens)
    spec = tf.TensorSpec((None, 20), tf.int32, name="tokens")
    archive.add_endpoint("classify", lambda given: {"scores": tokens(given, training=False)}, input_signature=[spec])
    archive.write_out(str(folder / "tokens"), verbose=False)
    states = keras.Sequential([keras.Input((20, 8), batch_size=1, name="x"), keras.layers.LSTM(8)])
    archive = keras.export.ExportArchive()
    archive.track(states)
    spec = tf.TensorSpec((1, 20, 8), tf.float32, name="x")
    archive.add_endpoint("serve", lambda given: states(given, training=False), input_signature=[spec])
    archive.write_out(str(folder / "states"), verbose=False)
    (folder / "states.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "states")).convert())
    shutil.rmtree(folder / "states")
    (folder / "states.pb").write_bytes(frozen(states, spec).SerializeToString())
    torch.manual_seed(1)
    batch = torch.export.Dim("batch")
    picture, text = torch.zeros(2, 3, 16, 16), torch.zeros(2, 20, dtype=torch.long)
    models: list[tuple[str, Any, Any]] = [("pictures", Pictures().eval(), picture), ("tokens", Tokens().eval(), text)]
    for name, model, given in models:
        torch.export.save(torch.export.export(model, (given,), dynamic_shapes=({0: batch},)), folder / f"{name}.pt2")
        rewrite(folder / f"{name}.pt2", skip="sample_inputs")
    torch.jit.trace(models[0][1], picture).save(folder / "pictures.pt")
    rewrite(folder / "pictures.pt", skip="debug_pkl")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
