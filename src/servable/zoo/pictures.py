"""Seeded pictures: a slope of colours with discs and boxes on it, and the grain of a camera. No two are alike."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.tensors import STRING, Array

JPEG_SIZES = ((180, 320), (256, 256), (300, 200), (97, 131))
"""Height and width of encoded pictures, in turn: a model that takes them has to resize."""


def pictures(count: int, height: int, width: int, rng: np.random.Generator) -> Array:
    """Return pictures as uint8 [count, height, width, 3], red first."""
    drawn = np.empty((count, height, width, 3), dtype=np.uint8)
    for picture in drawn:
        picture[:] = _picture(height, width, rng)
    return drawn


def jpegs(count: int, seed: int) -> Array:
    """Return encoded pictures of different sizes: bytes [count]. FAILED_PRECONDITION without Pillow and TensorFlow."""
    encode, rng = _encoder(), np.random.default_rng(seed)
    encoded = np.empty(count, dtype=STRING.numpy)
    for index in range(count):
        encoded[index] = encode(_picture(*JPEG_SIZES[index % len(JPEG_SIZES)], rng))
    return encoded


def _encoder() -> Callable[[Array], bytes]:
    try:
        return partial(_encode_by_pillow, importlib.import_module("PIL.Image"))
    except ImportError:
        pass
    try:
        return partial(_encode_by_tensorflow, importlib.import_module("tensorflow"))
    except ImportError as error:
        raise failed_precondition(
            f"encoding a JPEG needs pillow or TensorFlow: pip install pillow ({error})"
        ) from error


def _encode_by_pillow(library: Any, picture: Array) -> bytes:
    file = io.BytesIO()
    library.fromarray(picture).save(file, format="JPEG", quality=90)
    return file.getvalue()


def _encode_by_tensorflow(library: Any, picture: Array) -> bytes:
    encoded: bytes = library.io.encode_jpeg(picture, quality=90).numpy()
    return encoded


def _picture(height: int, width: int, rng: np.random.Generator) -> Array:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    near, far = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    slope = (y * rng.random() + x * rng.random())[:, :, np.newaxis] / 2
    canvas = near + (far - near) * slope
    for _ in range(int(rng.integers(2, 9))):
        top, left, tall, wide = rng.uniform((0, 0, 0.05, 0.05), (1, 1, 0.4, 0.4))
        away_y, away_x = np.abs(y - top) / tall, np.abs(x - left) / wide
        inside = away_y**2 + away_x**2 < 1 if rng.random() < 0.5 else np.maximum(away_y, away_x) < 1
        canvas[inside] = rng.uniform(0, 255, 3)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(0, 12)
    pixels: Array = np.rint(canvas.clip(0, 255)).astype(np.uint8)
    return pixels
