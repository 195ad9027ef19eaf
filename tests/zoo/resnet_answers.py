"""Build ``resnet50`` as a SavedModel, ask TensorFlow for its answers to files, write both down. Run as a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from servable.zoo import catalog


def main(root: Path, rows: int) -> None:
    built = catalog.build("resnet50", root, kind="saved_model")
    import tensorflow as tf

    files = catalog.sample_inputs("resnet50", rows, seed=3, kind="saved_model")["images"]
    loaded = tf.saved_model.load(str(built))
    found = {}
    for name, call in loaded.signatures.items():
        outputs = {key: value.numpy() for key, value in call(images=tf.constant(files)).items()}
        found[name] = {
            "inputs": {
                key: [spec.dtype.name, list(spec.shape)] for key, spec in call.structured_input_signature[1].items()
            },
            "outputs": {key: [spec.dtype.name, list(spec.shape)] for key, spec in call.structured_outputs.items()},
            "classes": outputs["classes"].astype(str).tolist(),
            "scores": outputs["scores"].tolist(),
        }
    try:
        call(images=tf.constant([files[0], b"no picture"]))
    except tf.errors.InvalidArgumentError as error:
        found["refused"] = error.message
    (root / "answers.json").write_text(json.dumps(found))
    pixels = {
        str(row): tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE").numpy()
        for row, file in enumerate(files)
    }
    np.savez(root / "pixels.npz", **pixels)
    for row, file in enumerate(files):
        (root / f"{row}.jpg").write_bytes(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
