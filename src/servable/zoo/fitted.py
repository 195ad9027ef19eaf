"""Image models that understand something: their last layer is fitted, on random layers before it that stay as drawn.

A random network knows no classes: two forms of it can agree on nothing that matters. These tell patterns of
``labelled_pictures`` apart, most of the time. What a fit found is kept in the user's cache directory.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from servable.core.cache import cache_dir
from servable.core.errors import ServingError, internal
from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import FLOAT32, Array
from servable.zoo import image_plans as plans
from servable.zoo import labelled_pictures as data
from servable.zoo.onnx_builders import onnx_bytes

Weights = Mapping[str, Array]
_SEEN = 0x5EE9
"""Begins the seeds of the pictures that are learnt from: no seed that is one number gives these."""
_PICTURES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Course:
    """How one model is fitted: on the tensor ``features`` of the random model ``base``, for its layer ``head``.

    ``brightest`` is the value of a white pixel. ``decay`` keeps the factors of the fit small.
    """

    base: str
    input: str
    features: str
    width: int
    head: str
    size: int
    brightest: float
    classes: int
    pictures: int
    held_out: int
    decay: float
    steps: int = 300
    least: float = 0.75
    """Below this share of the held-out pictures the fit has failed."""


COURSES: Mapping[str, Course] = MappingProxyType(
    {
        "resnet50_fitted": Course(
            base="resnet50",
            input="images",
            features="features",
            width=plans.RESNET_FEATURES,
            head="dense_1",
            size=plans.RESNET_SIZE,
            brightest=255,
            classes=4,
            pictures=300,
            held_out=150,
            decay=0.3,
        ),
        "simple_cnn_fitted": Course(
            base="simple_cnn",
            input="input",
            features="hidden_active",
            width=plans.SIMPLE_HIDDEN,
            head="head",
            size=plans.SIMPLE_SIZE,
            brightest=1,
            classes=5,
            pictures=600,
            held_out=200,
            decay=0.1,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The layer that was fitted, and the share of held-out pictures that it is right about."""

    kernel: Array
    bias: Array
    accuracy: float


def fitted_weights(name: str, base: Weights, seed: int, report: Progress) -> dict[str, Array]:
    """Return the weights of a fitted model: those of its random base, and a last layer from the cache or a fit."""
    course = COURSES[name]
    kept = _kept(name, course, base, seed)
    found = _read(kept)
    if found is None:
        found = fit(course, base, seed, report)
        _keep(kept, found, report)
    else:
        report(f"fitted before, right about {found.accuracy:.1%} of the pictures held out: {kept}")
    return dict(base) | {f"{course.head}_kernel": found.kernel, f"{course.head}_bias": found.bias}


def fit(course: Course, base: Weights, seed: int, report: Progress = unheard) -> Fitted:
    """Fit the last layer: a logistic regression for each class. INTERNAL if it is right about too little."""
    began = time.monotonic()
    total = course.pictures + course.held_out
    pixels, labels = labelled(course, total, (_SEEN, seed))
    found = np.empty((total, course.width), np.float32)
    done = 0
    for features in _features(course, base, pixels):
        found[done : done + len(features)] = features
        done += len(features)
        if done % (10 * _PICTURES_AT_ONCE) == 0:
            report(f"looked at {done} of {total} pictures, {time.monotonic() - began:.0f} s")
    seen = slice(0, course.pictures)
    kernel, bias = regress(found[seen].astype(np.float64), labels[seen], course.decay, course.steps)
    right = (found[course.pictures :] @ kernel + bias).argmax(axis=1) == labels[course.pictures :]
    accuracy = float(right.mean())
    report(
        f"right about {_share(found[seen], labels[seen], kernel, bias):.1%} of {course.pictures} pictures seen and "
        f"{accuracy:.1%} of {course.held_out} held out, {time.monotonic() - began:.0f} s"
    )
    if accuracy < course.least:
        raise internal(f"the fit learnt little: {accuracy:.1%} of the pictures held out; another seed may do better")
    return Fitted(kernel, bias, accuracy)


def regress(features: Array, labels: Array, decay: float, steps: int) -> tuple[Array, Array]:
    """Return kernel [features, classes] and bias of one logistic regression for each class, as float32.

    Features are brought to one scale first; the kernel has that in it.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    rows = np.concatenate([(features - mean) / scale, np.ones((len(features), 1))], axis=1)
    signs = np.where(labels[:, np.newaxis] == np.arange(labels.max() + 1), 1.0, -1.0)
    kept = np.full((rows.shape[1], 1), decay)
    kept[-1] = 0.0  # the bias is free
    # The losses curve at most a quarter as much as the squares of the features: steps that long never overshoot.
    step = 1.0 / (0.25 * np.linalg.norm(rows, 2) ** 2 / len(rows) + decay)
    factors = np.zeros((rows.shape[1], signs.shape[1]))
    ahead, before = factors, factors
    for number in range(steps):
        # The gradient of log(1 + exp(-margin)), by tanh so that no power overflows.
        pull = signs * 0.5 * (1.0 - np.tanh(0.5 * signs * (rows @ ahead)))
        factors = ahead + step * (rows.T @ pull / len(rows) - kept * ahead)
        ahead = factors + number / (number + 3.0) * (factors - before)
        before = factors
    kernel = factors[:-1] / scale[:, np.newaxis]
    return kernel.astype(np.float32), (factors[-1] - mean @ kernel).astype(np.float32)


def labelled(course: Course, rows: int, seed: data.Seed) -> tuple[Array, Array]:
    """Return pictures uint8 of the model's size, and their classes."""
    return data.labelled_pictures(rows, course.size, seed, data.PLAIN, course.classes)


def as_input(course: Course, pixels: Array) -> Array:
    """Return pictures as the model takes them."""
    scaled: Array = pixels.astype(np.float32) * np.float32(course.brightest / 255)
    return scaled


def _share(features: Array, labels: Array, kernel: Array, bias: Array) -> float:
    return float(((features @ kernel + bias).argmax(axis=1) == labels).mean())


def _features(course: Course, base: Weights, pixels: Array) -> Iterator[Array]:
    """Yield what the last layer sees of each batch of pictures: the random network, up to there."""
    import onnxruntime

    shape = (None, course.size, course.size, plans.CHANNELS)
    signature = Signature(
        DEFAULT_SIGNATURE,
        {course.input: TensorSpec(course.input, FLOAT32, shape)},
        {course.features: TensorSpec(course.features, FLOAT32, (None, course.width))},
    )
    session = onnxruntime.InferenceSession(onnx_bytes(course.base, signature, base))
    for begin in range(0, len(pixels), _PICTURES_AT_ONCE):
        batch = as_input(course, pixels[begin : begin + _PICTURES_AT_ONCE])
        (features,) = session.run([course.features], {course.input: batch})
        yield features


def _kept(name: str, course: Course, base: Weights, seed: int) -> Path:
    """Return where a fit is kept: its name tells all that went in, this code too."""
    digest = hashlib.sha256(repr(course).encode())
    for module in (__file__, data.__file__):
        digest.update(Path(module).read_bytes())
    for key in sorted(base):
        digest.update(key.encode() + np.ascontiguousarray(base[key]).tobytes())
    return cache_dir() / "fitted" / f"{name}-{seed}-{digest.hexdigest()[:16]}.npz"


def _read(path: Path) -> Fitted | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return Fitted(kept["kernel"], kept["bias"], float(kept["accuracy"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(path: Path, found: Fitted, report: Progress) -> None:
    """Write the cache by a rename, so that no reader sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch(path.parent, ".fit-") as folder:
            np.savez(folder / path.name, kernel=found.kernel, bias=found.bias, accuracy=np.array(found.accuracy))
            (folder / path.name).replace(path)
    except (OSError, ServingError) as error:
        report(f"what was fitted is not kept for another time: {error}")
