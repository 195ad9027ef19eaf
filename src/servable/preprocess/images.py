"""Images as arrays: decoded from files, and resized to one meaning by whichever library is at hand.

That meaning is bilinear interpolation with half-pixel centres, without smoothing before an image shrinks, edges
repeated: what ``tf.image.resize`` does. Height comes first everywhere; libraries that want it second are told here.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from servable.core.errors import ServingError, failed_precondition, invalid_argument
from servable.core.tensors import Array

TYPES = ("uint8", "int8", "uint16", "int16", "float16", "float32", "float64")
"""Element types of images: float32, in which every backend computes, holds the values of all but the last exactly."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A way to resize: the module it imports, the package that brings it, and what it does with float32 [n,h,w,c]."""

    module: str
    package: str
    resize: Callable[[Any, Array, int, int], Array]


def resize(image: Array, height: int, width: int, backend: str = "numpy") -> Array:
    """Resize an image [height, width], [height, width, channels] or a batch [n, height, width, channels].

    The result has the type of the image; integers are rounded, so give floats to keep fractions. Backends agree within
    1e-4 of the largest value. INVALID_ARGUMENT says what is wrong with the image or the size; FAILED_PRECONDITION
    names the package that the backend needs and that is not installed.
    """
    found = BACKENDS.get(backend)
    if found is None:
        raise invalid_argument(f"images are resized by {', '.join(BACKENDS)}, not by {backend!r}")
    batch = _as_batch(image)
    _check(image, batch, height, width)
    if batch.shape[1:3] == (height, width):
        return image.copy()
    try:
        library = importlib.import_module(found.module)
    except ImportError as error:
        raise _not_installed(f"resizing with {backend}", found.package, error) from error
    if 0 in batch.shape:
        resized = np.zeros((len(batch), height, width, batch.shape[3]), dtype=np.float32)
    else:
        resized = found.resize(library, np.ascontiguousarray(batch, dtype=np.float32), height, width)
    if image.dtype.kind in "iu":
        resized = np.rint(resized)
    shape = {2: (height, width), 3: resized.shape[1:], 4: resized.shape}[image.ndim]
    return resized.reshape(shape).astype(image.dtype)


def installed() -> tuple[str, ...]:
    """Return the backends whose libraries are here."""
    packages = {name: backend.module.partition(".")[0] for name, backend in BACKENDS.items()}
    return tuple(name for name, package in packages.items() if importlib.util.find_spec(package) is not None)


def decode(data: bytes) -> Array:
    """Decode an image file (JPEG, PNG, what else Pillow reads) to uint8 [height, width, 3], red first. Needs Pillow.

    INVALID_ARGUMENT for bytes that are no image, end too early, or would take hundreds of megabytes.
    """
    try:
        library = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise _not_installed("decoding an image", "pillow", error) from error
    try:
        with warnings.catch_warnings():
            # Pillow warns of a picture with more pixels than a sender can mean well with, and refuses twice that.
            warnings.simplefilter("error", library.DecompressionBombWarning)
            with library.open(io.BytesIO(data)) as picture:
                pixels: Array = np.asarray(picture.convert("RGB"))
                return pixels
    except (OSError, SyntaxError, ValueError, library.DecompressionBombError, Warning) as error:
        raise invalid_argument(f"{len(data)} bytes are not an image that can be decoded: {error}") from error


def _as_batch(image: Array) -> Array:
    if image.ndim == 2:
        return image[np.newaxis, :, :, np.newaxis]
    return image[np.newaxis] if image.ndim == 3 else image


def _check(image: Array, batch: Array, height: int, width: int) -> None:
    if batch.ndim != 4:
        raise invalid_argument(f"an image has 2 or 3 dimensions, a batch of images 4, not {image.ndim}")
    if image.dtype.name not in TYPES:
        raise invalid_argument(f"an image is of type {', '.join(TYPES)}, not {image.dtype}")
    if 0 in batch.shape[1:3]:
        raise invalid_argument(f"an image of shape {list(image.shape)} has no pixel to resize")
    if height < 1 or width < 1:
        raise invalid_argument(f"an image is resized to 1 x 1 or more, not to height {height}, width {width}")


def _not_installed(what: str, package: str, error: ImportError) -> ServingError:
    return failed_precondition(f"{what} needs {package}, which is not installed: pip install {package} ({error})")


def _numpy(_library: Any, batch: Array, height: int, width: int) -> Array:
    above, below, share = _neighbours(batch.shape[1], height)
    share = share[:, np.newaxis, np.newaxis]
    rows = batch[:, above]
    rows += (batch[:, below] - rows) * share
    left, right, share = _neighbours(rows.shape[2], width)
    columns = rows[:, :, left]
    columns += (rows[:, :, right] - columns) * share[:, np.newaxis]
    return columns


def _neighbours(size: int, count: int) -> tuple[Array, Array, Array]:
    """Return for each of ``count`` new places the old ones before and after it, and the share of the latter."""
    place = (np.arange(count) + 0.5) * (size / count) - 0.5
    place = place.clip(0, size - 1)
    before = place.astype(np.intp)
    return before, np.minimum(before + 1, size - 1), (place - before).astype(np.float32)


def _pillow(library: Any, batch: Array, height: int, width: int) -> Array:
    # Image.resize would smooth what shrinks. An affine transform only interpolates; it counts from pixel centres.
    # Its pixels of type float have one channel.
    affine = (batch.shape[2] / width, 0.0, 0.0, 0.0, batch.shape[1] / height, 0.0)
    resized = np.empty((len(batch), height, width, batch.shape[3]), dtype=np.float32)
    for source, target in zip(batch, resized, strict=True):
        for channel in range(batch.shape[3]):
            plane = library.fromarray(np.ascontiguousarray(source[:, :, channel]))
            target[:, :, channel] = plane.transform(
                (width, height), library.Transform.AFFINE, affine, resample=library.Resampling.BILINEAR
            )
    return resized


def _opencv(library: Any, batch: Array, height: int, width: int) -> Array:
    resized = np.empty((len(batch), height, width, batch.shape[3]), dtype=np.float32)
    for source, target in zip(batch, resized, strict=True):
        # More than four channels at once are not promised.
        for first in range(0, batch.shape[3], 4):
            channels = np.ascontiguousarray(source[:, :, first : first + 4])
            found = library.resize(channels, (width, height), interpolation=library.INTER_LINEAR)
            target[:, :, first : first + 4] = found.reshape(height, width, -1)
    return resized


def _scikit_image(library: Any, batch: Array, height: int, width: int) -> Array:
    options = {"order": 1, "mode": "edge", "anti_aliasing": False, "preserve_range": True, "clip": False}
    return np.stack([library.resize(image, (height, width), **options) for image in batch])


def _tensorflow(library: Any, batch: Array, height: int, width: int) -> Array:
    resized: Array = library.image.resize(batch, (height, width), method="bilinear", antialias=False).numpy()
    return resized


BACKENDS = MappingProxyType(
    {
        "numpy": Backend("numpy", "numpy", _numpy),
        "pillow": Backend("PIL.Image", "pillow", _pillow),
        "opencv": Backend("cv2", "opencv-python-headless", _opencv),
        "scikit-image": Backend("skimage.transform", "scikit-image", _scikit_image),
        "tensorflow": Backend("tensorflow", "tensorflow-cpu", _tensorflow),
    }
)
"""The backends by name. All but numpy are optional."""
