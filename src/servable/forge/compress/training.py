"""Training of an ONNX graph in torch: on labels, on what a teacher answers, or on both. Runs in a worker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from servable.core.errors import failed_precondition, internal
from servable.core.tensors import Array
from servable.forge.arrays import Tensors
from servable.forge.compress.graph import Graph
from servable.forge.compress.network import Network, Tensor

Report = Callable[[str], None]
_MANY = 1_000_000
"""From so many numbers a batch on, a second thread pays."""
_SURE = 0.5
"""Share of the teacher in the loss where there are labels too."""


@dataclass(frozen=True, slots=True)
class Course:
    """How to train. ``temperature`` softens what teacher and student answer, so that the small scores count."""

    epochs: int = 8
    rate: float = 1e-3
    batch: int = 64
    temperature: float = 3.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """What to learn from: inputs, and the right class of each row if it is known."""

    inputs: Tensors
    labels: Array | None = None

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(next(iter(self.inputs.values())))


Constrain = Callable[[float, Mapping[str, Tensor]], None]
"""Called after each step with the share of the training that is done: puts weights back where they have to be."""


def train(
    graph: Graph,
    rows: Rows,
    course: Course,
    *,
    teacher: Graph | None = None,
    constrain: Constrain = lambda _done, _weights: None,
    report: Report = lambda _line: None,
) -> float:
    """Train a graph in place and return its last mean loss. Without labels there has to be a ``teacher``."""
    if rows.labels is None and teacher is None:
        raise failed_precondition("training needs labels (an array 'labels' in the data), or a teacher")
    torch.manual_seed(course.seed)
    torch.set_num_threads(_threads(rows, course.batch))
    logits, activation = head_of(graph)
    network = Network(graph, logits)
    knows = None if teacher is None else Network(teacher, head_of(teacher)[0])
    optimizer = torch.optim.Adam(network.learnt.values(), lr=course.rate)
    steps = max(1, -(-len(rows) // course.batch))
    plan = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, course.rate, total_steps=course.epochs * steps + 1, pct_start=0.15
    )
    loss_of = _Loss(activation, course.temperature)
    rng = np.random.default_rng(course.seed)
    began, mean, done = time.monotonic(), 0.0, 0
    for epoch in range(course.epochs):
        losses = []
        for places in np.array_split(rng.permutation(len(rows)), steps):
            inputs = {name: torch.from_numpy(array[places]) for name, array in rows.inputs.items()}
            taught = None
            if knows is not None:
                with torch.no_grad():
                    taught = knows(inputs)
            labels = None if rows.labels is None else torch.from_numpy(rows.labels[places].astype(np.int64))
            loss = loss_of(network(inputs, learning=True), labels, taught)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
            done += 1
            with torch.no_grad():
                constrain(done / (course.epochs * steps), network.learnt)
            losses.append(float(loss.detach()))
        mean = float(np.mean(losses))
        if not np.isfinite(mean):
            raise internal(f"the training ran off (loss {mean}); a smaller --rate may do")
        report(f"epoch {epoch + 1} of {course.epochs}: loss {mean:.4f}, {time.monotonic() - began:.0f} s")
    network.write_back()
    return mean


def _threads(rows: Rows, batch: int) -> int:
    """Return how many threads compute: over small operations they would wait for each other most of the time."""
    numbers = batch * sum(array[:1].size for array in rows.inputs.values())
    return len(os.sched_getaffinity(0)) if numbers >= _MANY else 1


def head_of(graph: Graph) -> tuple[str, str]:
    """Return the tensor that the classes are told by, before its softmax or sigmoid, and that one's name or ""."""
    for output in graph.outputs:
        maker = graph.maker(output)
        if maker is not None and maker.op_type in {"Softmax", "Sigmoid"}:
            return maker.input[0], maker.op_type
    return graph.outputs[0], ""


class _Loss:
    def __init__(self, activation: str, temperature: float) -> None:
        self._many = activation == "Sigmoid"
        self._temperature = temperature

    def __call__(self, scores: Tensor, labels: Tensor | None, taught: Tensor | None) -> Tensor:
        if labels is None:
            assert taught is not None
            return self._taught(scores, taught)
        loss = self._told(scores, labels)
        return loss if taught is None else (1 - _SURE) * loss + _SURE * self._taught(scores, taught)

    def _told(self, scores: Tensor, labels: Tensor) -> Tensor:
        if int(labels.min()) < 0 or int(labels.max()) >= scores.shape[-1]:
            raise failed_precondition(
                f"labels go from {int(labels.min())} to {int(labels.max())}, "
                f"and the model has {scores.shape[-1]} classes"
            )
        if self._many:
            wanted = functional.one_hot(labels, scores.shape[-1]).to(scores.dtype)
            return functional.binary_cross_entropy_with_logits(scores, wanted) * scores.shape[-1]
        return functional.cross_entropy(scores, labels)

    def _taught(self, scores: Tensor, taught: Tensor) -> Tensor:
        heat = self._temperature
        if self._many:
            wanted = torch.sigmoid(taught)
            return functional.binary_cross_entropy_with_logits(scores, wanted) * scores.shape[-1]
        return heat**2 * functional.kl_div(
            functional.log_softmax(scores / heat, dim=-1),
            functional.log_softmax(taught / heat, dim=-1),
            reduction="batchmean",
            log_target=True,
        )


def course_of(options: Mapping[str, Any]) -> Course:
    """Return the course that a step's options ask for."""
    known = {name: options[name] for name in ("epochs", "rate", "batch", "temperature", "seed") if name in options}
    return Course(**known)
