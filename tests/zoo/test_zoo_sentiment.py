"""The trained example: it understands what counting words does not, and every artifact answers alike."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.preprocess.labels import Labels
from servable.preprocess.tokens import Vocabulary, WordVectors
from servable.zoo import catalog, corpus, sentiment
from servable.zoo import weights as w
from servable.zoo.reference import forward

LENGTHS = (1, 7, 50)
trained_here = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]


def run(root: Path, *lengths: int) -> None:
    program = Path(__file__).with_name("sentiment_answers.py")
    done = subprocess.run(
        [sys.executable, str(program), str(root), *map(str, lengths)],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, trained in a process of its own."""
    root = tmp_path_factory.mktemp("sentiment")
    run(root, *LENGTHS)
    return root


@pytest.fixture
def weights(trained: Path) -> dict[str, Array]:
    with np.load(trained / "weights.npz") as stored:
        return dict(stored)


def found(root: Path) -> Any:
    return json.loads((root / "found.json").read_text())


def probabilities(root: Path, texts: list[str], vectors: Array, length: int = 50) -> Array:
    embedded = WordVectors(Vocabulary(corpus.words()), vectors).embed(texts, length)
    (answers,) = ort.InferenceSession(root / "onnx" / "model.onnx").run(["probs"], {"vectors": embedded})
    return np.asarray(answers)


class TestTrained:
    pytestmark = trained_here

    def test_it_beats_counting_words_by_far_on_reviews_it_never_saw(
        self, trained: Path, weights: dict[str, Array]
    ) -> None:
        told = found(trained)
        held_out = corpus.Corpus(tuple(told["texts"]), np.array(told["labels"]))
        counting = sentiment.counting_words(corpus.reviews(3000, 99), held_out)
        right = probabilities(trained, told["texts"], weights["word_vectors"]).argmax(axis=1) == held_out.labels
        assert float(right.mean()) >= counting + 0.1
        # The artifact, asked with 50 words a row, understands what the training said, which asked without zeros.
        assert float(right.mean()) == pytest.approx(told["accuracy"], abs=0.003)

    @pytest.mark.parametrize(
        ("bad", "good"),
        [
            ("the plot was not good", "the plot was not bad"),
            ("the acting was good , but the story was bad", "the acting was bad , but the story was good"),
            ("although it was funny , I hated the ending", "although I hated the ending , it was funny"),
        ],
    )
    def test_order_decides(self, trained: Path, weights: dict[str, Array], bad: str, good: str) -> None:
        assert probabilities(trained, [bad, good], weights["word_vectors"]).argmax(axis=1).tolist() == [0, 1]

    def test_zeros_before_a_text_change_nothing(self, trained: Path, weights: dict[str, Array]) -> None:
        texts = found(trained)["texts"][:20]
        short, long = (probabilities(trained, texts, weights["word_vectors"], length) for length in (25, 50))
        np.testing.assert_allclose(short, long, atol=1e-6)

    @pytest.mark.parametrize("length", LENGTHS)
    def test_both_artifacts_answer_as_the_reference(
        self, trained: Path, weights: dict[str, Array], length: int
    ) -> None:
        with np.load(trained / f"{length}.npz") as stored:
            answers = dict(stored)
        inputs = {"vectors": answers.pop("vectors")}
        expected = forward("sentiment", weights, inputs)
        assert set(answers) == set(expected) == {"logits", "probs"}
        outputs = list(expected)
        onnx = ort.InferenceSession(trained / "onnx" / "model.onnx").run(outputs, inputs)
        for key, value in zip(outputs, onnx, strict=True):
            np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-5, err_msg=f"ONNX {key}")
            np.testing.assert_allclose(answers[key], expected[key], rtol=1e-4, atol=1e-5, err_msg=f"SavedModel {key}")

    def test_progress_is_reported_against_counting_words(self, trained: Path) -> None:
        first, second, *_ = found(trained)["lines"]
        assert first.startswith("counting words understands ")
        assert second.startswith("epoch 1 of at most 12: loss 0.")

    def test_a_seed_decides_the_training_and_one_that_learns_nothing_is_no_example(self, tmp_path: Path) -> None:
        run(tmp_path)
        told = json.loads((tmp_path / "repeated.json").read_text())
        assert told["repeats"]
        assert told["failed"].startswith("INTERNAL: training learnt little: 0.0%")

    def test_what_a_text_needs_lies_beside_the_artifact(
        self, weights: dict[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The weights of the small one stand in for those of a minute's training.
        monkeypatch.setattr(w, "_RECENT", {("sentiment", catalog.DEFAULT_SEED): weights})
        version = catalog.build("sentiment", tmp_path)
        assert sorted(path.name for path in version.iterdir()) == ["labels.txt", "model.onnx", "vectors.npz"]
        vectors = WordVectors.load(version / "vectors.npz")
        assert vectors.vocabulary.words == corpus.words()
        np.testing.assert_array_equal(vectors.vectors, weights["word_vectors"])
        assert Labels.load(version / "labels.txt").names == ("negative", "positive")
        inputs = {"vectors": vectors.embed(["I love it", "I hate it"])}
        session = ort.InferenceSession(version / "model.onnx")
        assert session.get_inputs()[0].shape == ["batch", "time", 64]
        (probs,) = session.run(["probs"], inputs)
        assert probs.argmax(axis=1).tolist() == [1, 0]
        np.testing.assert_allclose(probs, catalog.reference("sentiment", inputs)["probs"], rtol=1e-4, atol=1e-5)


def test_samples_are_rows_of_fifty_words() -> None:
    assert catalog.sample_inputs("sentiment", 3, seed=1)["vectors"].shape == (3, 50, 64)


def test_training_without_tensorflow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ServingError, match=r"training sentiment needs TensorFlow.*servable\[tensorflow\]") as caught:
        catalog.build("sentiment", tmp_path, seed=12_345)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert not list(tmp_path.iterdir())
