"""The training of ``sentiment``: three LSTM layers on word vectors, until they understand reviews they never saw.

The part of a bias that would move an LSTM's state without input stays zero. So zeros before a text change nothing at
all, and a network trained on short texts without padding is right on rows of any length.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from servable.core.errors import internal
from servable.core.progress import Progress
from servable.core.tensors import Array
from servable.zoo import corpus
from servable.zoo.corpus import Corpus
from servable.zoo.frameworks import check_backend, tensorflow_and_keras

LAYERS = 3
CLASSES = len(corpus.LABELS)
"""Takes a line about how far the training is."""


@dataclass(frozen=True, slots=True)
class Course:
    """How long and on what to train. It ends early once ``enough`` of the held-out reviews are understood."""

    units: int = 256
    reviews: int = 4000
    held_out: int = 1000
    epochs: int = 12
    short_epochs: int = 3
    batch: int = 80
    rate: float = 2e-3
    enough: float = 0.98
    least: float = 0.75
    """Below this the training has failed: weights that answer at random are no example."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights in TensorFlow's layout, the word vectors among them, and the share of held-out reviews understood."""

    weights: dict[str, Array]
    held_out: Corpus
    accuracy: float


def train(rng: np.random.Generator, report: Progress, course: Course | None = None) -> Trained:
    """Train from drawn weights. FAILED_PRECONDITION without TensorFlow, INTERNAL if nothing was learnt."""
    course = course or Course()
    _, keras = tensorflow_and_keras("training sentiment")
    check_backend(keras, "training sentiment")
    seeds = [int(seed) for seed in rng.integers(2**31, size=3)]
    seen, held_out = corpus.reviews(course.reviews, seeds[0]), corpus.reviews(course.held_out, seeds[1])
    vectors = corpus.word_vectors(seeds[2])
    report(f"counting words understands {counting_words(seen, held_out):.1%} of the reviews held out")
    model = _model(keras, rng, course)
    started, accuracy = time.monotonic(), 0.0
    for epoch in range(course.epochs):
        model.reset_metrics()
        # The shorter half alone at first: what "not" means is plainest there.
        batches = _batches(seen, course.batch, rng, 0.5 if epoch < course.short_epochs else 1.0)
        steps = [model.train_on_batch(corpus.embed_rows(seen, rows, vectors), seen.labels[rows]) for rows in batches]
        loss, learnt = np.mean(steps, axis=0)
        accuracy = _accuracy(model, held_out, vectors)
        report(
            f"epoch {epoch + 1} of at most {course.epochs}: loss {loss:.4f}, accuracy {learnt:.1%}, "
            f"held out {accuracy:.1%}, {time.monotonic() - started:.0f} s"
        )
        if accuracy >= course.enough:
            break
    if accuracy < course.least:
        raise internal(f"training learnt little: {accuracy:.1%} of the reviews held out; another seed may do better")
    return Trained(_weights(model) | {"word_vectors": vectors}, held_out, accuracy)


def counting_words(seen: Corpus, held_out: Corpus, steps: int = 300) -> float:
    """Return the share of held-out reviews that a logistic regression on counts of words understands."""
    counts, signs = corpus.counts(seen.texts), seen.labels * 2.0 - 1.0
    factors = np.zeros(counts.shape[1])
    for _ in range(steps):
        # The gradient of log(1 + exp(-margin)), by tanh so that no power overflows.
        pull = signs * 0.5 * (1.0 - np.tanh(0.5 * signs * (counts @ factors)))
        factors += 0.5 * (counts.T @ pull / len(counts) - 1e-4 * factors)
    right = (corpus.counts(held_out.texts) @ factors > 0) == held_out.labels.astype(bool)
    return float(right.mean())


def _model(keras: Any, rng: np.random.Generator, course: Course) -> Any:
    """Return a compiled Keras model whose first weights are drawn here, so that nothing depends on a global seed."""
    units = course.units
    free = np.repeat(np.array([1, 1, 0, 1], np.float32), units)
    recurrent = [
        keras.layers.LSTM(
            units, return_sequences=layer < LAYERS - 1, bias_constraint=lambda bias: bias * free, name=f"lstm{layer}"
        )
        for layer in range(LAYERS)
    ]
    head = keras.layers.Dense(CLASSES, name="head")
    model = keras.Sequential([keras.Input((None, corpus.VECTOR)), *recurrent, head])
    before = corpus.VECTOR
    for layer in recurrent:
        # The forget gate begins open.
        bias = np.repeat(np.array([0, 1, 0, 0], np.float32), units)
        turns = [np.linalg.qr(rng.standard_normal((units, units)))[0] for _ in range(4)]
        layer.set_weights([_uniform(rng, before, 4 * units), np.concatenate(turns, axis=1), bias])
        before = units
    head.set_weights([_uniform(rng, units, CLASSES), np.zeros(CLASSES, np.float32)])
    model.compile(
        keras.optimizers.Adam(course.rate, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _uniform(rng: np.random.Generator, before: int, after: int) -> Array:
    limit = np.sqrt(6.0 / (before + after))
    drawn: Array = rng.uniform(-limit, limit, (before, after)).astype(np.float32)
    return drawn


def _batches(reviews: Corpus, size: int, rng: np.random.Generator, part: float = 1.0) -> Iterator[Array]:
    """Yield rows of texts of like length, in random order; with ``part`` only of that share, the shortest."""
    lengths = np.array([len(text.split()) for text in reviews.texts]) + rng.random(len(reviews.texts))
    order = np.argsort(lengths)[: int(len(lengths) * part)]
    for start in rng.permutation(np.arange(0, len(order), size)):
        yield order[start : start + size]


def _accuracy(model: Any, reviews: Corpus, vectors: Array) -> float:
    right = 0
    for rows in _batches(reviews, 250, np.random.default_rng(0)):
        logits = model.predict_on_batch(corpus.embed_rows(reviews, rows, vectors))
        right += int((logits.argmax(axis=1) == reviews.labels[rows]).sum())
    return right / len(reviews.texts)


def _weights(model: Any) -> dict[str, Array]:
    weights: dict[str, Array] = {}
    for layer in range(LAYERS):
        parts = zip(("kernel", "recurrent", "bias"), model.get_layer(f"lstm{layer}").get_weights(), strict=True)
        weights |= {f"lstm{layer}_{part}": value for part, value in parts}
    parts = zip(("kernel", "bias"), model.get_layer("head").get_weights(), strict=True)
    return weights | {f"head_{part}": value for part, value in parts}
