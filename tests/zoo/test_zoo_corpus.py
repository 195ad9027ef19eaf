from __future__ import annotations

import numpy as np
import pytest

from servable.zoo import corpus
from servable.zoo.sentiment import counting_words


def test_reviews_repeat_by_seed_and_are_half_good() -> None:
    first, again, other = (corpus.reviews(200, seed) for seed in (1, 1, 2))
    assert first.texts == again.texts
    assert first.labels.tolist() == again.labels.tolist()
    assert first.texts != other.texts
    assert first.labels.sum() == 100


def test_every_word_is_listed_and_no_text_is_longer_than_a_row() -> None:
    texts = corpus.reviews(2000, 1).texts
    found = {word for text in texts for word in text.split()}
    assert found <= set(corpus.words())
    assert len(found) > 0.9 * len(corpus.words())
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) > 1
    assert max(lengths) < 50


def test_the_same_words_have_either_label_by_their_order() -> None:
    reviews = corpus.reviews(20_000, 1)
    labels: dict[tuple[str, ...], set[int]] = {}
    for text, label in zip(reviews.texts, reviews.labels, strict=True):
        labels.setdefault(tuple(sorted(text.split())), set()).add(int(label))
    assert any(len(both) == 2 for both in labels.values())


def test_the_same_text_never_has_both_labels() -> None:
    reviews = corpus.reviews(20_000, 1)
    labels: dict[str, int] = {}
    for text, label in zip(reviews.texts, reviews.labels, strict=True):
        assert labels.setdefault(text, int(label)) == label, text


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_counting_words_does_not_get_far(seed: int) -> None:
    assert 0.45 < counting_words(corpus.reviews(3000, seed), corpus.reviews(1000, seed + 10)) < 0.65


def test_counting_words_learns_what_counts_can_tell() -> None:
    texts = tuple("the plot is good" if label else "the plot is bad" for label in (0, 1) * 20)
    plain = corpus.Corpus(texts, np.arange(40) % 2)
    assert counting_words(plain, plain) == 1.0


def test_texts_are_embedded_from_the_right() -> None:
    vectors = corpus.word_vectors(1)
    row = {word: vectors[number] for number, word in enumerate(corpus.words())}
    embedded = corpus.embed(["good movie", "I love this film"], vectors, 3)
    assert embedded.shape == (2, 3, 64)
    np.testing.assert_array_equal(embedded[0], [np.zeros(64), row["good"], row["movie"]])
    np.testing.assert_array_equal(embedded[1], [row["I"], row["love"], row["this"]])
