"""Resizing means the same in every library, and height comes before width in all of them."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
from typing import Any

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.preprocess import images


def backend(name: str) -> object:
    missing = importlib.util.find_spec(images.BACKENDS[name].module.partition(".")[0]) is None
    skip = pytest.mark.skipif(missing, reason=f"{images.BACKENDS[name].package} is not installed")
    return pytest.param(name, marks=[skip] + [pytest.mark.tensorflow] * (name == "tensorflow"))


BACKENDS = [backend(name) for name in images.BACKENDS]


def picture(*shape: int, dtype: str = "float32", seed: int = 1) -> Array:
    values = np.random.default_rng(seed).uniform(0, 255, shape)
    return (np.rint(values) if np.dtype(dtype).kind == "u" else values).astype(dtype)


def by_definition(image: Array, height: int, width: int) -> Array:
    """Bilinear interpolation pixel by pixel, as a sentence would say it."""
    result = np.empty((height, width))
    for y, x in np.ndindex(height, width):
        place_y = min(max((y + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
        place_x = min(max((x + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
        total = weights = 0.0
        for row, column in np.ndindex(*image.shape):
            weight = max(0, 1 - abs(place_y - row)) * max(0, 1 - abs(place_x - column))
            total, weights = total + weight * float(image[row, column]), weights + weight
        result[y, x] = total / weights
    return result


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("size", [(360, 640), (768, 1024), (64, 48)])
def test_height_comes_before_width_in_every_backend(name: str, size: tuple[int, int]) -> None:
    image = picture(768, 1024, 3, dtype="uint8", seed=42)
    resized = images.resize(image, *size, backend=name)
    assert resized.shape == (*size, 3)
    assert resized.dtype == np.uint8
    # Not only the shape: dark above and bright below stays so.
    image[:384], image[384:] = 10, 200
    resized = images.resize(image, *size, backend=name)
    assert resized[0].max() == 10
    assert resized[-1].min() == 200


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("size", [(5, 9), (3, 2), (14, 10), (1, 1), (7, 31), (20, 5)])
def test_every_backend_interpolates_by_the_definition(name: str, size: tuple[int, int]) -> None:
    image = picture(7, 10)
    np.testing.assert_allclose(images.resize(image, *size, backend=name), by_definition(image, *size), atol=255e-4)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
def test_a_batch_is_its_images_one_by_one(name: str, channels: int) -> None:
    batch = picture(3, 40, 30, channels)
    resized = images.resize(batch, 17, 41, backend=name)
    assert resized.shape == (3, 17, 41, channels)
    for one, image in zip(resized, batch, strict=True):
        np.testing.assert_allclose(one, images.resize(image, 17, 41), atol=255e-4)
    for channel in range(channels):
        alone = images.resize(batch[0, :, :, channel], 17, 41, backend=name)
        assert alone.shape == (17, 41)
        np.testing.assert_allclose(alone, resized[0, :, :, channel], atol=255e-4)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", images.TYPES)
def test_the_type_stays_and_integers_are_rounded(name: str, dtype: str) -> None:
    image = picture(12, 10, 3).astype("uint8").astype(dtype) // 2
    resized = images.resize(image, 9, 20, backend=name)
    assert resized.dtype == image.dtype
    exact = images.resize(image.astype(np.float32), 9, 20)
    if np.dtype(dtype).kind in "iu":
        assert np.abs(resized - exact).max() <= 0.5 + 255e-4
    else:
        np.testing.assert_allclose(resized.astype(np.float32), exact, atol=0.07 if dtype == "float16" else 255e-4)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_same_size_is_a_copy(name: str) -> None:
    image = picture(6, 5, 3)
    resized = images.resize(image, 6, 5, backend=name)
    np.testing.assert_array_equal(resized, image)
    assert not np.shares_memory(resized, image)


@pytest.mark.parametrize("name", BACKENDS)
def test_images_may_be_views_read_only_and_none_at_all(name: str) -> None:
    image = picture(20, 16, 3)
    view = image[::2, ::-1].transpose(1, 0, 2)
    view.setflags(write=False)
    expected = images.resize(view.copy(), 5, 6)
    np.testing.assert_allclose(images.resize(view, 5, 6, backend=name), expected, atol=255e-4)
    assert images.resize(np.zeros((0, 8, 8, 3), np.uint8), 5, 6, backend=name).shape == (0, 5, 6, 3)


def test_shrinking_does_not_smooth() -> None:
    stripes = np.zeros((8, 8), np.float32)
    stripes[::4] = 100.0
    # Row 0 of two lies between old rows 1 and 2: a smoothing resizer would let the stripe of row 0 shine through.
    np.testing.assert_array_equal(images.resize(stripes, 2, 2), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("image", "size", "part"),
    [
        (np.zeros(5, np.uint8), (2, 2), "2 or 3 dimensions, a batch of images 4, not 1"),
        (np.zeros((1, 1, 2, 2, 3), np.uint8), (2, 2), "not 5"),
        (np.zeros((4, 4), np.int64), (2, 2), "not int64"),
        (np.zeros((4, 4), object), (2, 2), "not object"),
        (np.zeros((0, 4, 3), np.uint8), (2, 2), r"shape \[0, 4, 3\] has no pixel"),
        (np.zeros((4, 4), np.uint8), (0, 2), "height 0, width 2"),
        (np.zeros((4, 4), np.uint8), (2, -1), "height 2, width -1"),
    ],
)
def test_what_cannot_be_resized_is_named(image: Array, size: tuple[int, int], part: str) -> None:
    with pytest.raises(ServingError, match=part) as caught:
        images.resize(image, *size)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_an_unknown_backend_is_refused_with_the_list() -> None:
    with pytest.raises(ServingError, match="numpy, pillow, opencv, scikit-image, tensorflow, not by 'cv2'") as caught:
        images.resize(np.zeros((2, 2), np.uint8), 1, 1, backend="cv2")
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("name", [name for name in images.BACKENDS if name != "numpy"])
def test_a_backend_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, images.BACKENDS[name].module, None)
    with pytest.raises(ServingError, match=f"{name} needs {images.BACKENDS[name].package}, which is not") as caught:
        images.resize(np.zeros((2, 2), np.uint8), 1, 1, backend=name)
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_installed_backends_are_those_that_can_be_imported() -> None:
    installed = images.installed()
    assert "numpy" in installed
    for name, found in images.BACKENDS.items():
        assert (name in installed) == (importlib.util.find_spec(found.module.partition(".")[0]) is not None)


def encoded(image: Array, **options: Any) -> bytes:
    library = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    file = io.BytesIO()
    library.fromarray(image).save(file, **options)
    return file.getvalue()


def test_files_are_decoded_to_three_channels() -> None:
    image = picture(9, 14, 3, dtype="uint8")
    np.testing.assert_array_equal(images.decode(encoded(image, format="PNG")), image)
    grey = images.decode(encoded(image[:, :, 0], format="JPEG", quality=95))
    assert grey.shape == (9, 14, 3)
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey[:, :, 0], grey[:, :, 2])


def test_what_is_no_image_is_refused() -> None:
    pytest.importorskip("PIL.Image", reason="pillow is not installed")
    whole = encoded(picture(64, 64, 3, dtype="uint8"), format="JPEG")
    for data in (b"", b"not an image", whole[: len(whole) // 2]):
        with pytest.raises(ServingError, match=f"{len(data)} bytes are not an image") as caught:
            images.decode(data)
        assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_small_file_that_unfolds_to_gigabytes_is_refused() -> None:
    library = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    file = io.BytesIO()
    library.new("1", (12_000, 12_000)).save(file, format="PNG")
    with pytest.raises(ServingError, match="exceeds limit"):
        images.decode(file.getvalue())


def test_decoding_without_pillow_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ServingError, match="decoding an image needs pillow") as caught:
        images.decode(b"")
    assert caught.value.code is Code.FAILED_PRECONDITION
