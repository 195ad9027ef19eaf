"""How long libraries take to resize one image, each in its own way and all with one meaning (``images.resize``).

Sizes are width x height for people and (height, width) in code; each result's shape is checked, so that a size that was
never made, or made the wrong way round, cannot be measured.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from servable.core.errors import internal, invalid_argument
from servable.core.progress import Progress, unheard
from servable.core.tensors import Array
from servable.preprocess.images import BACKENDS, resize

SEED: Final = 42
RUNS: Final = 10
IMAGE: Final = (768, 1024)
"""Height and width of the image."""
VARIED: Final = (360, 640)
OWN, ONE_MEANING = "its own", "one meaning"

Native = Callable[[Any, Array, int, int], Array]


class Timing(NamedTuple):
    """One library at one size. ``manner``: its own call, or ``images.resize``.

    ``difference`` is the mean distance of its pixels from bilinear interpolation as ``images`` defines it, in grey
    levels of 255.
    """

    library: str
    manner: str
    size: str
    width: int
    height: int
    seconds: tuple[float, ...]
    difference: float


def random_image(height: int, width: int, seed: int = SEED) -> Array:
    """Return uint8 [height, width, 3], every pixel drawn by itself."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def installed() -> tuple[str, ...]:
    """Return the libraries that are here."""
    return tuple(name for name, (module, _) in NATIVE.items() if importlib.util.find_spec(module.partition(".")[0]))


def measure(
    library: str,
    image: Sequence[int] = IMAGE,
    varied: Sequence[int] = VARIED,
    runs: int = RUNS,
    seed: int = SEED,
    report: Progress = unheard,
) -> list[Timing]:
    """Time one library at both sizes, (height, width) each. INVALID_ARGUMENT names the libraries there are."""
    if library not in NATIVE:
        raise invalid_argument(f"images are resized by {', '.join(NATIVE)}, not by {library!r}")
    report(library)
    pixels = random_image(image[0], image[1], seed)
    found = []
    for name, (height, width) in (("var size", varied), ("same size", image)):
        reference = resize(pixels.astype(np.float32), height, width)
        for manner, call in _ways(library, pixels, height, width):
            resized, *seconds = _timed(call, runs)
            if resized.shape != (height, width, 3):
                raise internal(f"{library} made {list(resized.shape)} of what was to be [{height}, {width}, 3]")
            difference = float(np.abs(resized - reference).mean())
            found.append(Timing(library, manner, name, width, height, tuple(seconds), difference))
    return found


def _ways(library: str, pixels: Array, height: int, width: int) -> list[tuple[str, Callable[[], Array]]]:
    module, native = NATIVE[library]
    if library == "keras":
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    loaded = importlib.import_module(module)
    ways: list[tuple[str, Callable[[], Array]]] = [(OWN, lambda: native(loaded, pixels, height, width))]
    if library in BACKENDS:
        ways.append((ONE_MEANING, lambda: resize(pixels, height, width, library)))
    return ways[1:] if library == "numpy" else ways


def _timed(call: Callable[[], Array], runs: int) -> tuple[Any, ...]:
    """Return the result of a first call, which loads what is loaded late, and the seconds of the others."""
    resized = call().astype(np.float32)
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return resized, *seconds


def _numpy(_library: Any, image: Array, height: int, width: int) -> Array:
    return resize(image, height, width)


def _pillow(library: Any, image: Array, height: int, width: int) -> Array:
    # Width comes first; what shrinks is smoothed.
    return np.asarray(library.fromarray(image).resize((width, height), library.Resampling.BILINEAR))


def _opencv(library: Any, image: Array, height: int, width: int) -> Array:
    # Width comes first.
    resized: Array = library.resize(image, (width, height), interpolation=library.INTER_LINEAR)
    return resized


def _scikit_image(library: Any, image: Array, height: int, width: int) -> Array:
    # Height comes first; values become 0 to 1 and are brought back, what shrinks is smoothed.
    resized: Array = library.resize(image, (height, width)) * 255
    return resized


def _tensorflow(library: Any, image: Array, height: int, width: int) -> Array:
    resized: Array = library.image.resize(image, (height, width)).numpy()
    return resized


def _keras(library: Any, image: Array, height: int, width: int) -> Array:
    return np.asarray(library.ops.image.resize(image.astype(np.float32), (height, width), interpolation="bilinear"))


NATIVE: Final = MappingProxyType[str, tuple[str, Native]](
    {
        "numpy": ("numpy", _numpy),
        "pillow": ("PIL.Image", _pillow),
        "opencv": ("cv2", _opencv),
        "scikit-image": ("skimage.transform", _scikit_image),
        "tensorflow": ("tensorflow", _tensorflow),
        "keras": ("keras", _keras),
    }
)
"""Library -> the module it is imported as, and how it resizes when nobody tells it what to mean."""
