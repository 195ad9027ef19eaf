"""A frozen TensorFlow graph folded by Grappler, pass by pass where all at once fail. Runs in a worker.

The passes leave out the one that fuses operations (``remap``): what it makes, such as ``_FusedConv2D``, is private to
the TensorFlow that made it, and no converter reads it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from servable.core.errors import internal
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.base import Artifact
from servable.engines.signature_settings import read_signature_settings
from servable.forge.conversion import tensorflow_graphs as graphs
from servable.forge.conversion.batch_norms import fold_batch_norms
from servable.forge.conversion.files import read_graph, store_graph
from servable.forge.steps import Facts, Task

PASSES: Final = ("pruning", "function", "constfold", "shape", "arithmetic", "layout", "dependency", "loop")
NORMS: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_LISTED: Final = 12


def fold(source: Artifact, target: Path, task: Task) -> Facts:
    """Write the folded graph; names of tensors and signatures stay as they are."""
    graph = read_graph(source.path)
    signatures = read_signature_settings(source.path.parent / SETTINGS_FILE)
    kept = sorted(
        {
            spec.node.partition(":")[0]
            for one in signatures.values()
            for specs in (one.inputs, one.outputs)
            for spec in specs.values()
        }
    )
    before = graphs.operations(graph)
    task.report(f"Grappler: {', '.join(PASSES)}")
    folded, failed = optimize(graph, kept, PASSES)
    folded, count = fold_batch_norms(folded, frozenset(kept))
    if count:
        folded, more = optimize(folded, kept, PASSES)
        failed = {**failed, **more}
    lost = set(kept) - {node.name for node in folded.node}
    if lost:
        raise internal(f"Grappler removed {', '.join(sorted(lost))}, which the signatures name")
    store_graph(folded, target, task)
    after = graphs.operations(folded)
    facts = removed(before, after)
    facts["batch_norms_folded"] = _norms(before) - _norms(after)
    facts["passes"] = [name for name in PASSES if name not in failed]
    if failed:
        facts["notes"] = [f"Grappler's pass {name} was left out: {why}" for name, why in failed.items()]
    return facts


def optimize(graph: Any, kept: Sequence[str], passes: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """Return the optimized graph, and the passes that failed with why: all at once, or one by one without those."""
    try:
        return _run(graph, kept, passes), {}
    except Exception:  # noqa: BLE001  # Grappler raises what its passes do
        failed: dict[str, str] = {}
        for one in passes:
            try:
                graph = _run(graph, kept, [one])
            except Exception as error:  # noqa: BLE001  # see above
                failed[one] = graphs.one_line(error)[:160]
        return graph, failed


def removed(before: Counter[str], after: Counter[str]) -> Facts:
    """Return what a fold did to the nodes of a model, by type: those that changed most first."""
    changed = {name: after[name] - before[name] for name in before.keys() | after.keys() if after[name] != before[name]}
    most = sorted(changed.items(), key=lambda one: (-abs(one[1]), one[0]))
    return {
        "nodes_before": sum(before.values()),
        "nodes_after": sum(after.values()),
        "changed": {name: f"{count:+d}" for name, count in most[:_LISTED]},
    }


def _norms(operations: Counter[str]) -> int:
    """Return how many batch normalizations there are: fused ones, and those that Keras writes as arithmetic."""
    return sum(operations[name] for name in NORMS) + operations["Rsqrt"]


def _run(graph: Any, kept: Sequence[str], passes: Sequence[str]) -> Any:
    tf: Any = importlib.import_module("tensorflow")
    config_pb2: Any = importlib.import_module("tensorflow.core.protobuf.config_pb2")
    meta_graph_pb2: Any = importlib.import_module("tensorflow.core.protobuf.meta_graph_pb2")
    grappler: Any = importlib.import_module("tensorflow.python.grappler.tf_optimizer")
    with tf.Graph().as_default():
        graphs.import_graph(graph)
        meta = tf.compat.v1.train.export_meta_graph(graph_def=graph)
    fetched = meta_graph_pb2.CollectionDef()
    fetched.node_list.value.extend(kept)
    # What is in this collection stays: Grappler was made for graphs that train.
    meta.collection_def["train_op"].CopyFrom(fetched)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.optimizers.extend(passes)
    options.min_graph_nodes = -1
    options.meta_optimizer_iterations = 2
    return grappler.OptimizeGraph(config, meta)
