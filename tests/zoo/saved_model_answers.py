"""Build example models as SavedModels, ask TensorFlow for their answers, and write both down. Run as a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from servable.zoo import catalog


def record(root: Path, name: str, rows: tuple[int, ...], seed: int, version: int) -> dict[str, Any]:
    built = catalog.build(name, root, kind="saved_model", seed=seed, version=version)
    import tensorflow as tf

    loaded = tf.saved_model.load(str(built))
    call = loaded.signatures["serving_default"]
    for count in rows:
        inputs = catalog.sample_inputs(name, count, seed=count)
        outputs = call(**{key: tf.constant(value) for key, value in inputs.items()})
        np.savez(root / f"{name}-{version}-{count}.npz", **{key: value.numpy() for key, value in outputs.items()})
    return {
        "signatures": list(loaded.signatures),
        "inputs": {
            key: [spec.dtype.name, list(spec.shape)] for key, spec in call.structured_input_signature[1].items()
        },
        "outputs": {key: [spec.dtype.name, list(spec.shape)] for key, spec in call.structured_outputs.items()},
        "main": (built / "saved_model.pb").is_file(),
    }


def main(root: Path, rows: tuple[int, ...]) -> None:
    found = {name: record(root, name, rows, catalog.DEFAULT_SEED, 1) for name in catalog.names(quick=True)}
    record(root, "text_cnn_small", rows, 2, 2)
    (root / "signatures.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])))
