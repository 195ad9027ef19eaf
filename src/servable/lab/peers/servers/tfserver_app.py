"""tfserver 0.4.11: the SavedModel in a Keras model, because Keras models are what it serves.

It wants a directory of versions, and beside each the names of the classes of every output.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

NAME = os.environ["MODEL_NAME"]
PORT = int(os.environ["PORT"])
EXPORTED = Path(os.environ["FOLDER"], "exported")


def export(saved_model: str, version: Path) -> None:
    """Write the Keras model, in a process of its own: the server imports TensorFlow after it has forked."""
    import tensorflow as tf

    loaded = tf.saved_model.load(saved_model)
    signature = loaded.signatures["serving_default"]
    ((name, spec),) = signature.structured_input_signature[1].items()
    ((output, made),) = signature.structured_outputs.items()

    class Loaded(tf.keras.layers.Layer):  # type: ignore[misc]
        """All of the SavedModel as one layer."""

        def __init__(self) -> None:
            super().__init__(name=output)
            self.loaded = loaded

        def call(self, given: Any) -> Any:
            """Call the default signature."""
            return self.loaded.signatures["serving_default"](**{name: given})[output]

    given = tf.keras.Input(spec.shape[1:], dtype=spec.dtype, name=name)
    tf.keras.Model(given, Loaded()(given)).save(str(version))
    (version / "assets").mkdir(exist_ok=True)
    classes = [str(place) for place in range(made.shape[-1])]
    (version / "assets" / "labels").write_bytes(pickle.dumps([(classes, output)]))


def serve() -> None:
    """Serve until killed."""
    import skitai
    import tfserver

    preference = skitai.preference()
    preference.config.TF_MODELS = {NAME: str(EXPORTED)}
    preference.max_client_body_size = 256 << 20
    skitai.log_off("/models", "/tensorflow.serving.PredictionService")
    skitai.mount("/", tfserver, preference)
    skitai.run(ip="127.0.0.1", port=PORT, workers=1, threads=4, name="servable-peer")


if __name__ == "__main__":
    if not EXPORTED.exists():
        child = os.fork()
        if child == 0:
            export(os.environ["MODEL"], EXPORTED / "1")
            os._exit(0)
        os.waitpid(child, 0)
    serve()
