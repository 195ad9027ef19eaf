"""What each step of compression does, in the worker: an ONNX graph in, another one out, trained if there is data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from servable.core.errors import failed_precondition, internal
from servable.core.tensors import Array
from servable.engines import onnx_model
from servable.engines.base import Artifact
from servable.forge import arrays
from servable.forge.compression import binary, binary_openvino, packed
from servable.forge.compression.channels import cut_channels
from servable.forge.compression.coding import gzipped_bytes, huffman_bytes
from servable.forge.compression.graph import Graph
from servable.forge.compression.magnitude import ramp, smallest_masked, sparsity_of
from servable.forge.compression.packed_network import PackedNetwork
from servable.forge.compression.rewrites import cluster as share_weights
from servable.forge.compression.rewrites import factorize
from servable.forge.steps import Facts, Task
from servable.forge.workshop import open_model

if TYPE_CHECKING:
    from servable.forge.compression.training import Constrain, Rows

_RAMP: Final = 0.6
"""Share of a training in which weights go; in the rest those that stay make up for it."""
_LEVELS: Final = 20
_EXACT_ROWS: Final = 16
_ROUNDED: Final = 1e-3
_SIGNS_RATE: Final = 5e-3
_SIGNS_EPOCHS: Final = 16
_SIGNS_SETTLED: Final = 0.5
"""Of the training's states those of its second half count: signs that were not learnt say nothing."""


def prune(source: Artifact, target: Path, task: Task) -> Facts:
    """Set the smallest weights to zero: at once, or little by little while the others learn."""
    graph, sparsity = _graph(source, task), float(task.options["sparsity"])
    before = graph.kernels()
    masks = smallest_masked(before, sparsity)
    rows = _rows(task)
    facts: Facts = {}
    if rows is not None:
        fall = _Fall(before, sparsity)
        facts = _train(graph, rows, task, teacher=Graph.read(source.path), constrain=fall, settled=_RAMP)
        masks = fall.masks
    for name, mask in masks.items():
        graph.set(name, graph.array(name) * mask)
    graph.save(target)
    zero = {name: round(1 - float(mask.mean()), 3) for name, mask in masks.items()}
    return facts | _stored(graph, target) | {"sparsity": sparsity_of(graph.kernels()), "sparsity of": zero}


def prune_channels(source: Artifact, target: Path, task: Task) -> Facts:
    """Cut the weakest channels out of every layer where nothing else needs them."""
    graph = _graph(source, task)
    before = _count(graph)
    cuts = cut_channels(graph, float(task.options["share"]))
    if not any(cut.after < cut.before for cut in cuts):
        reasons = "; ".join(f"{cut.layer}: {cut.reason or 'too few channels'}" for cut in cuts)
        raise failed_precondition(f"no channel can be cut out of {source.path}: {reasons}")
    facts = _train_if_asked(graph, source, task)
    graph.save(target)
    return (
        facts
        | _stored(graph, target)
        | {
            "weights": f"{before} -> {_count(graph)}",
            "channels": {cut.layer: f"{cut.before} -> {cut.after}" for cut in cuts if cut.after < cut.before},
            "kept whole": {cut.layer: cut.reason for cut in cuts if cut.reason},
        }
    )


def cluster(source: Artifact, target: Path, task: Task) -> Facts:
    """Store each kernel as indices into a codebook; with data, the codebooks learn."""
    graph = _graph(source, task)
    values = share_weights(graph, int(task.options["clusters"]))
    books = [f"{name}/codebook" for name in values]
    zeros = {name: graph.array(name) == 0 for name in books}

    def keep_zeros(_done: float, weights: Mapping[str, Any]) -> None:
        for name, places in zeros.items():
            weights[name][places] = 0

    # A value is moved for all of its weights at once: small steps go far.
    task = replace(task, options={"rate": 1e-4, **task.options})
    facts = _train_if_asked(graph, source, task, keep_zeros)
    graph.save(target)
    return facts | _stored(graph, target) | {"values": values}


def lowrank(source: Artifact, target: Path, task: Task) -> Facts:
    """Split layers by their singular values where that saves weights."""
    graph = _graph(source, task)
    before = _count(graph)
    splits = factorize(graph, float(task.options["energy"]))
    if not splits:
        raise failed_precondition(
            f"no layer of {source.path} becomes smaller as a product of two at energy {task.options['energy']}; "
            "less --energy splits more"
        )
    facts = _train_if_asked(graph, source, task)
    graph.save(target)
    ranks = {one.kernel: f"rank {one.rank}, {one.before} -> {one.after}" for one in splits}
    return facts | _stored(graph, target) | {"weights": f"{before} -> {_count(graph)}", "layers": ranks}


def distill(source: Artifact, target: Path, task: Task) -> Facts:
    """Train a student on what the source answers, and on labels if there are any."""
    teacher, student = Graph.read(source.path), Graph.read(Path(task.options["student"]))
    for words, one, other in (
        ("inputs", teacher.inputs, student.inputs),
        ("outputs", teacher.outputs, student.outputs),
    ):
        if one != other:
            raise failed_precondition(
                f"the student's {words} are {', '.join(other)}, the teacher's {', '.join(one)}: they have to be alike"
            )
    rows = _rows(task)
    if rows is None:
        raise failed_precondition("a student learns from data: --data FILE")
    facts = _train(student, rows, task, teacher=teacher)
    student.save(target)
    return facts | _stored(student, target) | {"weights": f"{_count(teacher)} -> {_count(student)}"}


def xnor(source: Artifact, target: Path, task: Task) -> Facts:
    """Train a network of signs and write it as an OpenVINO model that counts bits."""
    graph, rows, facts = _signs(source, task, binary_openvino.check)
    inputs = {name: array[:_EXACT_ROWS] for name, array in rows.inputs.items()}
    expected = _answers(graph, inputs)
    facts |= binary_openvino.write_ir(graph, target)
    path = target / "model.xml"
    model = open_model(Artifact("openvino", path))
    try:
        found = model.run(next(iter(model.signatures)), inputs, list(expected))
    finally:
        model.close()
    for name, value in expected.items():
        # Rounding may turn a sign that is next to zero, in a row or two.
        gap = float(np.median(np.abs(found[name] - value).reshape(len(value), -1).max(axis=1)))
        if gap > _ROUNDED:
            raise internal(
                f"OpenVINO counts the bits of {name} in another way on this machine: it differs by {gap:.3g}"
            )
    weights = path.with_suffix(".bin")
    sizes = [path.stat().st_size + weights.stat().st_size, gzipped_bytes(path) + gzipped_bytes(weights)]
    stored = {"bytes": sizes[0], "gzip": sizes[1], "huffman": huffman_bytes([np.fromfile(weights, np.uint8)])}
    return facts | {"stored": stored}


def xnor_packed(source: Artifact, target: Path, task: Task) -> Facts:
    """Train the same network and write it as a Python model that counts bits; it answers exactly as the signs do."""
    graph, rows, facts = _signs(source, task)
    path = packed.write_packed(graph, onnx_model.signature(onnx_model.read(source.path)), target)
    inputs = {name: array[:_EXACT_ROWS] for name, array in rows.inputs.items()}
    counted, multiplied = (PackedNetwork(path, packed=counts).run(inputs) for counts in (True, False))
    for name, value in counted.items():
        if not np.array_equal(value, multiplied[name]):
            gap = float(np.abs(value - multiplied[name]).max())
            raise internal(f"counting bits gives another {name} than multiplying signs: it differs by up to {gap:.3g}")
    with np.load(path) as stored:
        constants = [stored[name] for name in stored.files]
    sizes = {"bytes": path.stat().st_size, "gzip": gzipped_bytes(path), "huffman": huffman_bytes(constants)}
    return facts | {"stored": sizes, "counted as multiplied": f"exactly, in {len(next(iter(inputs.values())))} rows"}


def xnor_signs(source: Artifact, target: Path, task: Task) -> Facts:
    """Train the same network and write it as ONNX that multiplies signs, for every engine."""
    graph, _, facts = _signs(source, task)
    binary.lower(graph)
    graph.save(target)
    return facts | _stored(graph, target)


def _signs(
    source: Artifact, task: Task, check: Callable[[Graph, list[str]], None] = lambda _graph, _names: None
) -> tuple[Graph, Rows, Facts]:
    """Return a marked graph that has learnt; ``check`` refuses one before that.

    The option ``learnt`` is a file that keeps what was learnt, for other forms of the same network.
    """
    rows = _rows(task)
    if rows is None:
        raise failed_precondition("a network of signs has to be trained: --data FILE")
    graph = _graph(source, task)
    names = binary.binarize(graph)
    check(graph, names)
    kept = Path(task.options["learnt"]) if task.options.get("learnt") else None
    if kept is not None and kept.exists():
        (arrays_of,) = arrays.load(kept)
        for name, value in arrays_of.items():
            graph.set(name, value)
        return graph, rows, {"binary": names}

    def within_bounds(_done: float, weights: Mapping[str, Any]) -> None:
        # Beyond 1 a sign's gradient is zero: a weight there would never come back.
        for name in names:
            weights[name].clamp_(-1, 1)

    # A sign turns only when its weight crosses zero: it takes larger steps than a number that is fitted, and more.
    task = replace(task, options={"rate": _SIGNS_RATE, "epochs": _SIGNS_EPOCHS, **task.options})
    teacher = Graph.read(source.path)
    facts = _train(graph, rows, task, teacher=teacher, constrain=within_bounds, settled=_SIGNS_SETTLED)
    if kept is not None:
        arrays.save(kept, [{name: graph.array(name) for name in graph.constants()}])
    return graph, rows, facts | {"binary": names}


def _answers(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Compute a marked graph in torch."""
    import torch

    from servable.forge.compression.network import Network

    with torch.no_grad():
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return {name: Network(graph, name)(given).numpy() for name in graph.outputs}


class _Fall:
    """Keeps masked weights at zero during a training, and masks more as it goes on."""

    def __init__(self, kernels: Mapping[str, Array], sparsity: float) -> None:
        self._names = list(kernels)
        self._sparsity = sparsity
        self._level = -1
        self.masks: dict[str, Array] = {}

    def __call__(self, done: float, weights: Mapping[str, Any]) -> None:
        import torch

        level = min(_LEVELS, int(_LEVELS * done / _RAMP))
        if level != self._level:
            self._level = level
            found = {name: weights[name].detach().numpy() for name in self._names}
            self.masks = smallest_masked(found, ramp(self._sparsity, level / _LEVELS))
        for name, mask in self.masks.items():
            weights[name].mul_(torch.from_numpy(mask))


def _graph(source: Artifact, task: Task) -> Graph:
    """Read the source; layers that the option ``keep`` names stay as they are."""
    graph = Graph.read(source.path)
    graph.keep(task.options.get("keep", ()))
    return graph


def _rows(task: Task) -> Rows | None:
    """Return what to learn from, if there is data."""
    if not task.options.get("rows"):
        return None
    from servable.forge.compression.training import Rows

    inputs, labels = arrays.load(Path(task.options["rows"]))
    return Rows(inputs, labels.get("labels"))


def _train_if_asked(graph: Graph, source: Artifact, task: Task, constrain: Constrain | None = None) -> Facts:
    rows = _rows(task)
    return {} if rows is None else _train(graph, rows, task, teacher=Graph.read(source.path), constrain=constrain)


def _train(
    graph: Graph, rows: Rows, task: Task, *, teacher: Graph, constrain: Constrain | None = None, settled: float = 0.0
) -> Facts:
    from servable.forge.compression.training import course_of, train

    course = course_of(task.options)
    more = {} if constrain is None else {"constrain": constrain}
    loss = train(graph, rows, course, teacher=teacher, settled=settled, report=task.report, **more)
    learnt = "labels and the source's answers" if rows.labels is not None else "the source's answers"
    return {"trained": f"{course.epochs} epochs of {len(rows)} rows, on {learnt}; loss {loss:.4f}"}


def _count(graph: Graph) -> int:
    """Count the weights that layers multiply with, those of split and shared ones too."""
    return sum(graph.array(name).size for name in graph.constants() if graph.array(name).dtype.kind == "f")


def _stored(graph: Graph, target: Path) -> Facts:
    """Return what the result takes as a file, after gzip, and with each array in Huffman's code."""
    path = target / "model.onnx"
    constants = [graph.array(name) for name in graph.constants()]
    sizes = {"bytes": path.stat().st_size, "gzip": gzipped_bytes(path), "huffman": huffman_bytes(constants)}
    return {"stored": sizes}


def learn(source: str, target: str, rows: str, options: Mapping[str, Any], report: Any) -> Facts:
    """Train a graph on labels alone, from the weights that are in it, and write it to a file."""
    graph = Graph.read(Path(source))
    from servable.forge.compression.training import Rows, course_of, train

    inputs, labels = arrays.load(Path(rows))
    loss = train(graph, Rows(inputs, labels.get("labels")), course_of(options), report=report)
    graph.save(Path(target).parent, Path(target).name)
    return {"loss": loss}
