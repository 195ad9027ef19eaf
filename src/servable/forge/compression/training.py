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
from servable.core.progress import Progress, unheard
from servable.core.tensors import Array
from servable.forge.arrays import Tensors
from servable.forge.compression.graph import Graph
from servable.forge.compression.network import Network, Tensor

_MANY = 1_000_000
"""From so many numbers a batch on, a second thread pays."""
_FOLLOWED = 16
"""So many steps take the statistics of normalization along; fewer would only leave them between old and new."""
_LOOKED_AT = 1024
_AT_ONCE = 64
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
    settled: float = 0.0,
    report: Progress = unheard,
) -> float:
    """Train a graph in place and return its loss. Without labels there has to be a ``teacher``.

    What stays is the best state of those after an epoch, and of that before all: few rows can do harm. States before
    the share ``settled`` of the training do not count.
    """
    if rows.labels is None and teacher is None:
        raise failed_precondition("training needs labels (an array 'labels' in the data), or a teacher")
    torch.manual_seed(course.seed)
    torch.set_num_threads(_threads(rows, course.batch))
    logits, activation = head_of(graph)
    network = Network(graph, logits)
    knows = None if teacher is None else Network(teacher, head_of(teacher)[0])
    optimizer = torch.optim.Adam(network.learnt.values(), lr=course.rate)
    steps = max(1, -(-len(rows) // course.batch))
    total = course.epochs * steps
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, course.rate, total_steps=total + 1, pct_start=0.15)
    lesson = _Lesson(rows, network, _answers(knows, rows), _Loss(activation, course.temperature))
    rng = np.random.default_rng(course.seed)
    best = _Best(network, lesson, len(rows))
    if settled == 0:
        best.look()
    began, done = time.monotonic(), 0
    for epoch in range(course.epochs):
        losses = []
        for places in np.array_split(rng.permutation(len(rows)), steps):
            loss = lesson.loss(places, learning=total >= _FOLLOWED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
            done += 1
            with torch.no_grad():
                constrain(done / total, network.learnt)
            losses.append(float(loss.detach()))
        mean = float(np.mean(losses))
        if not np.isfinite(mean):
            raise internal(f"the training ran off (loss {mean}); a smaller --rate may do")
        if done / total >= settled:
            best.look()
        report(f"epoch {epoch + 1} of {course.epochs}: loss {mean:.4f}, {time.monotonic() - began:.0f} s")
    network.restore(best.state)
    network.write_back()
    return best.loss


class _Lesson:
    """Rows, who learns, what was ``taught`` of each row if anybody teaches, and how wrong an answer is."""

    def __init__(self, rows: Rows, network: Network, taught: Tensor | None, loss: _Loss) -> None:
        self._rows = rows
        self._network = network
        self._taught = taught
        self._loss = loss

    def loss(self, places: Array, *, learning: bool) -> Tensor:
        inputs = {name: torch.from_numpy(array[places]) for name, array in self._rows.inputs.items()}
        taught = None if self._taught is None else self._taught[torch.from_numpy(places)]
        labels = self._rows.labels
        known = None if labels is None else torch.from_numpy(labels[places].astype(np.int64))
        return self._loss(self._network(inputs, learning=learning), known, taught)


def _answers(teacher: Network | None, rows: Rows) -> Tensor | None:
    """Ask a teacher about every row, once for all epochs."""
    if teacher is None:
        return None
    with torch.no_grad():
        parts = [
            teacher({name: torch.from_numpy(array[begin : begin + _AT_ONCE]) for name, array in rows.inputs.items()})
            for begin in range(0, len(rows), _AT_ONCE)
        ]
    return torch.cat(parts)


class _Best:
    """The best state that was seen, by rows that are learnt from, as the network answers when it is served."""

    def __init__(self, network: Network, lesson: _Lesson, rows: int) -> None:
        self._network = network
        self._lesson = lesson
        self._places = np.array_split(np.arange(rows)[:_LOOKED_AT], -(-min(rows, _LOOKED_AT) // _AT_ONCE))
        self.loss = float("inf")
        self.state = network.state()

    def look(self) -> None:
        """Compare the network as it is now with the best so far."""
        with torch.no_grad():
            losses = [float(self._lesson.loss(places, learning=False)) for places in self._places]
        loss = float(np.average(losses, weights=[len(places) for places in self._places]))
        if loss <= self.loss or not np.isfinite(self.loss):
            self.loss, self.state = loss, self._network.state()


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
