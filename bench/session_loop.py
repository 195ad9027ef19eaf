"""The baseline: a SavedModel run by ``tf.compat.v1.Session.make_callable`` in a loop. DIRECTORY MODEL SECONDS"""

from __future__ import annotations

import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

from servable.zoo import catalog

ROWS = 32


def main() -> None:
    directory, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    inputs = catalog.sample_inputs(model, rows=ROWS, seed=0)
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)
        signature = graph.signature_def["serving_default"]
        names = sorted(signature.inputs)
        call = session.make_callable(
            [info.name for info in signature.outputs.values()], [signature.inputs[name].name for name in names]
        )
        feed = [inputs[name] for name in names]
        for _ in range(10):
            call(*feed)
        runs, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            call(*feed)
            runs += 1
        print(runs * ROWS / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
