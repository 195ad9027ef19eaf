"""A seeded data set with labels: pictures of one of ten patterns, plain, or in any colour and among clutter.

How faint the pattern is, how far it is turned and how coarse the grain on it varies from picture to picture. So some
cannot be told, by nobody: a good model is right on nine of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from servable.core.tensors import Array

Seed = int | tuple[int, ...]
_SMALLEST = 32
"""Height and width at which a pattern's period is counted; it grows with the square root of a larger size."""
_TURN = 0.14
"""Deviation of what a pattern with an angle of its own is turned by, in radians: neighbours are 0.79 apart."""


@dataclass(frozen=True, slots=True)
class Look:
    """How hard pictures are: bounds of what is drawn for each. Strength and grain are in steps of 255."""

    period: tuple[float, float]
    strength: tuple[float, float]
    grain: tuple[float, float]
    cluttered: bool
    """Whether the pattern covers a part only, in any colour, and discs and boxes lie around it."""


PLAIN = Look(period=(5.5, 8.0), strength=(20.0, 90.0), grain=(2.0, 14.0), cluttered=False)
"""For networks that hardly learn: all over the picture, nearly grey."""
CLUTTERED = Look(period=(4.5, 9.0), strength=(8.0, 90.0), grain=(2.0, 25.0), cluttered=True)
"""For networks that are trained whole."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """Coordinates of all pixels along and across a pattern's angle, and how it repeats there."""

    along: Array
    across: Array
    phase: float
    period: float
    rng: np.random.Generator

    def wave(self, place: Array) -> Array:
        turns: Array = np.sin(place * np.float32(2 * np.pi / self.period) + np.float32(self.phase))
        return turns


def _stripes(plane: _Plane) -> Array:
    return plane.wave(plane.along)


def _checks(plane: _Plane) -> Array:
    field: Array = np.tanh(4 * plane.wave(plane.along) * plane.wave(plane.across))
    return field


def _dots(plane: _Plane) -> Array:
    field: Array = np.tanh(4 * (plane.wave(plane.along) + plane.wave(plane.across) - 0.9))
    return field


def _rings(plane: _Plane) -> Array:
    return plane.wave(np.sqrt(plane.along**2 + plane.across**2))


def _rays(plane: _Plane) -> Array:
    field: Array = np.sin(np.arctan2(plane.across, plane.along) * float(plane.rng.integers(7, 14)))
    return field


def _blobs(plane: _Plane) -> Array:
    field = np.zeros_like(plane.along)
    for angle, phase in plane.rng.uniform(0, 2 * np.pi, (6, 2)):
        place = plane.along * np.float32(np.cos(angle)) + plane.across * np.float32(np.sin(angle))
        field += np.sin(place * np.float32(2 * np.pi / plane.period) + np.float32(phase))
    return field / np.float32(np.sqrt(3.0))


def _waves(plane: _Plane) -> Array:
    bent = np.sin(plane.across * np.float32(2 * np.pi / (1.8 * plane.period)))
    return plane.wave(plane.along + bent * np.float32(0.45 * plane.period))


_ANY = None
_PATTERNS: Mapping[str, tuple[Callable[[_Plane], Array], float | None]] = MappingProxyType(
    {
        "stripes across": (_stripes, 0.5 * np.pi),
        "stripes down": (_stripes, 0.0),
        "stripes rising": (_stripes, 0.25 * np.pi),
        "stripes falling": (_stripes, 0.75 * np.pi),
        "checks": (_checks, _ANY),
        "dots": (_dots, _ANY),
        "rings": (_rings, _ANY),
        "rays": (_rays, _ANY),
        "blobs": (_blobs, _ANY),
        "waves": (_waves, _ANY),
    }
)
"""Name -> how it is drawn, and at which angle; those that have none are turned anyhow."""
CLASSES = tuple(_PATTERNS)
"""Names of the classes, in the order of their numbers."""


def labelled_pictures(
    count: int, size: int, seed: Seed, look: Look = CLUTTERED, classes: int = len(CLASSES)
) -> tuple[Array, Array]:
    """Return pictures uint8 [count, size, size, 3], red first, and their classes int64 [count].

    The first ``classes`` of all take turns. The first pictures of a seed are the same however many are asked for.
    """
    labels = np.arange(count, dtype=np.int64) % classes
    drawn = np.empty((count, size, size, 3), dtype=np.uint8)
    key = (seed,) if isinstance(seed, int) else seed
    for index, label in enumerate(labels):
        drawn[index] = _picture(CLASSES[label], size, look, np.random.default_rng((*key, index)))
    return drawn, labels


def _picture(name: str, size: int, look: Look, rng: np.random.Generator) -> Array:
    x = np.arange(size, dtype=np.float32)[np.newaxis, :]
    y = np.arange(size, dtype=np.float32)[:, np.newaxis]
    field = _field(name, x, y, size, rng.uniform(*look.period), rng)[:, :, np.newaxis]
    strength = rng.uniform(*look.strength)
    canvas = (_in_clutter if look.cluttered else _alone)(field, x, y, strength, rng)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(*look.grain))
    pixels: Array = np.rint(canvas.clip(0, 255)).astype(np.uint8)
    return pixels


def _alone(field: Array, _x: Array, _y: Array, strength: float, rng: np.random.Generator) -> Array:
    """Return a field all over, on one colour that is nearly grey."""
    colour = strength * rng.choice((-1, 1)) * (1 + rng.uniform(-0.2, 0.2, 3))
    ground = rng.uniform(100, 155) + rng.uniform(-10, 10, 3)
    canvas: Array = field * colour.astype(np.float32) + ground.astype(np.float32)
    return canvas


def _in_clutter(field: Array, x: Array, y: Array, strength: float, rng: np.random.Generator) -> Array:
    """Return a field on a part of a slope of colours, over discs and boxes."""
    size = len(field)
    near, far = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    slope = (y * np.float32(rng.random()) + x * np.float32(rng.random())) / np.float32(2 * size)
    canvas: Array = near + (far - near) * slope[:, :, np.newaxis]
    for _ in range(int(rng.integers(0, 4))):
        canvas[_patch(x, y, size, rng, 0.05, 0.3)] = rng.uniform(0, 255, 3)
    colour = rng.uniform(-1, 1, 3)
    colour *= strength / np.abs(colour).max()
    shown = _patch(x, y, size, rng, 0.3, 0.7)[:, :, np.newaxis]
    canvas += np.where(shown, field, 0) * colour.astype(np.float32)
    return canvas


def _field(name: str, x: Array, y: Array, size: int, period: float, rng: np.random.Generator) -> Array:
    """Return a pattern's height at each pixel, about -1 to 1."""
    draw, angle = _PATTERNS[name]
    turned = rng.uniform(0, np.pi) if angle is None else angle + rng.normal(0, _TURN)
    cosine, sine = np.float32(np.cos(turned)), np.float32(np.sin(turned))
    middle = rng.uniform(0.35, 0.65, 2).astype(np.float32) * size
    x, y = x - middle[0], y - middle[1]
    period *= (size / _SMALLEST) ** 0.5
    return draw(_Plane(x * cosine + y * sine, y * cosine - x * sine, rng.uniform(0, 2 * np.pi), period, rng))


def _patch(x: Array, y: Array, size: int, rng: np.random.Generator, least: float, most: float) -> Array:
    """Return where a disc or box of that half height and width lies, as shares of the size."""
    tall, wide = rng.uniform(least, most, 2) * size
    top, left = rng.uniform(0.3, 0.7, 2) * size if least > 0.2 else rng.uniform(0, 1, 2) * size
    away_y, away_x = np.abs(y - np.float32(top)) / np.float32(tall), np.abs(x - np.float32(left)) / np.float32(wide)
    inside: Array = away_y**2 + away_x**2 < 1 if rng.random() < 0.5 else np.maximum(away_y, away_x) < 1
    return inside
