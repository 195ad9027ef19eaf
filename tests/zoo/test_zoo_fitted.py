"""Labelled pictures, and the models that are fitted to tell them apart: on few pictures here, to be quick."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.preprocess.labels import Labels
from servable.zoo import catalog, fitted
from servable.zoo.labelled_pictures import CLASSES, labelled_pictures
from servable.zoo.weights import weights_of

NAME = "simple_cnn_fitted"
FEW = replace(fitted.COURSES[NAME], pictures=60, held_out=20, steps=200, least=0.2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("servable.zoo.fitted.COURSES", {**fitted.COURSES, NAME: FEW})
    monkeypatch.setattr("servable.zoo.weights._RECENT", {})
    return tmp_path / "cache" / "servable" / "fitted"


def test_pictures_repeat_by_seed_and_their_first_ones_do_not_depend_on_how_many_there_are() -> None:
    pixels, labels = labelled_pictures(25, 32, 3)
    fewer, _ = labelled_pictures(7, 32, 3)
    other, _ = labelled_pictures(7, 32, 4)
    assert pixels.shape == (25, 32, 32, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:7], fewer)
    assert float(np.abs(fewer.astype(int) - other).mean()) > 10
    np.testing.assert_array_equal(np.bincount(labels, minlength=len(CLASSES)), [3] * 5 + [2] * 5)


def test_stripes_across_change_from_line_to_line_and_stripes_down_do_not() -> None:
    pixels, labels = labelled_pictures(400, 32, 1)
    change = [np.abs(np.diff(pixels.astype(float), axis=axis)).mean(axis=(1, 2, 3)) for axis in (1, 2)]
    lean = change[0] - change[1]
    across, down = (lean[labels == CLASSES.index(f"stripes {word}")].mean() for word in ("across", "down"))
    assert across > 3
    assert down < -3


def test_the_regression_finds_what_tells_classes_apart() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(len(CLASSES), size=600)
    features = rng.standard_normal((600, 12)) * 40 + 100
    features[:, : len(CLASSES)] += 250 * np.eye(len(CLASSES))[labels]  # one feature tells each class
    kernel, bias = fitted.regress(features, labels, decay=1e-3, steps=300)
    assert kernel.shape == (12, len(CLASSES))
    assert float(((features @ kernel + bias).argmax(axis=1) == labels).mean()) > 0.97


def test_a_fit_repeats_by_seed_and_is_kept_for_another_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    base = weights_of("simple_cnn", 1)
    first = fitted.fitted_weights(NAME, base, 1, said.append)
    assert "20 held out" in said[-1]
    (kept,) = cache.iterdir()
    again = fitted.fit(FEW, base, 1)
    np.testing.assert_array_equal(first["head_kernel"], again.kernel)
    assert again.accuracy >= 0.3, "five classes, and few pictures to learn from"
    assert first["conv1_1_kernel"] is base["conv1_1_kernel"], "all layers but the last are those of the base"
    monkeypatch.setattr("servable.zoo.fitted.fit", None)
    from_cache = fitted.fitted_weights(NAME, base, 1, said.append)
    assert str(kept) in said[-1]
    np.testing.assert_array_equal(first["head_kernel"], from_cache["head_kernel"])


@pytest.mark.parametrize("length", [0, 100, -1])
def test_half_a_cache_file_is_no_cache(tmp_path: Path, length: int) -> None:
    kept = tmp_path / "kept.npz"
    fitted._keep(kept, fitted.Fitted(np.ones((3, 2)), np.ones(2), 0.9), print)
    found = fitted._read(kept)
    assert found is not None
    assert found.accuracy == 0.9
    kept.write_bytes(kept.read_bytes()[:length])
    assert fitted._read(kept) is None


def test_a_fit_that_learns_nothing_is_refused() -> None:
    hopeless = replace(FEW, pictures=12, held_out=20, least=0.99)
    with pytest.raises(ServingError, match="learnt little") as caught:
        fitted.fit(hopeless, weights_of("simple_cnn", 1), 1)
    assert caught.value.code is Code.INTERNAL


@pytest.mark.usefixtures("cache")
def test_a_fitted_model_is_built_with_its_labels_and_answers_as_the_reference(tmp_path: Path) -> None:
    import onnxruntime

    version = catalog.build(NAME, tmp_path)
    known = CLASSES[: fitted.COURSES[NAME].classes]
    assert Labels.load(version / "labels.txt").names == known
    inputs, labels = catalog.labelled(NAME, 30, 5)
    (scores,) = onnxruntime.InferenceSession(version / "model.onnx").run(["output"], inputs)
    assert scores.shape == (30, len(known))
    assert float((scores.argmax(axis=1) == labels).mean()) > 0.3
    few = {key: value[:3] for key, value in inputs.items()}
    np.testing.assert_allclose(scores[:3], catalog.reference(NAME, few)["output"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(catalog.sample_inputs(NAME, 30, 5)["input"], inputs["input"])


def test_a_model_without_labelled_data_is_refused_with_those_that_have() -> None:
    with pytest.raises(ServingError, match="resnet50_fitted, simple_cnn_fitted") as caught:
        catalog.labelled("simple_cnn", 3, 1)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_fitted_models_take_what_their_signatures_say() -> None:
    for name in fitted.COURSES:
        inputs, labels = catalog.labelled(name, 2, 1)
        ((key, spec),) = catalog.describe(name).signature.inputs.items()
        assert inputs[key].shape == (2, *(spec.shape or ())[1:])
        assert inputs[key].dtype == spec.dtype.numpy
        assert float(inputs[key].max()) > 0.5 * fitted.COURSES[name].brightest
        assert labels.tolist() == [0, 1]
