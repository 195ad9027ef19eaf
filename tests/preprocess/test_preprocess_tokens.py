from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.preprocess.tokens import Vocabulary, WordVectors

WORDS = Vocabulary(["good", "movie", "bad", "Good"])


def test_a_short_text_fills_the_last_places() -> None:
    row = WORDS.encode(["good movie"])[0]
    assert row.dtype == np.int32
    assert row.shape == (50,)
    assert row[48:].tolist() == [1, 2]
    assert not row[:48].any()


def test_a_long_text_keeps_its_first_words() -> None:
    text = " ".join(["good"] * 49 + ["movie"] + ["bad"] * 30)
    assert WORDS.encode([text])[0].tolist() == [1] * 49 + [2]
    assert WORDS.encode(["good movie bad"], length=2).tolist() == [[1, 2]]


def test_unknown_words_are_zero_and_case_matters() -> None:
    assert WORDS.encode(["Good mOvie good"], length=3).tolist() == [[4, 0, 1]]
    assert WORDS.number("nothing") == 0


def test_any_white_space_separates_and_bytes_are_text() -> None:
    assert WORDS.encode([b"  good\tmovie\n\xc2\xa0bad ", ""], length=4).tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert WORDS.encode([]).shape == (0, 50)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ServingError, match="byte 5 of it is not") as caught:
        WORDS.encode([b"good \xff"])
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("words", "part"),
    [(["a", "b", "a"], "'a' twice"), (["a b"], "'a b' is no word"), ([""], "is no word"), ([" a"], "white space")],
)
def test_a_vocabulary_of_what_no_text_can_hold_is_refused(words: list[str], part: str) -> None:
    with pytest.raises(ServingError, match=part):
        Vocabulary(words)


def test_a_row_without_places_is_refused() -> None:
    with pytest.raises(ServingError, match="1 word or more, not 0"):
        WORDS.encode(["good"], length=0)


def test_vectors_follow_words_and_unknown_ones_are_zeros() -> None:
    vectors = np.arange(1, 9, dtype=np.float64).reshape(4, 2)
    embedded = WordVectors(WORDS, vectors).embed(["bad what Good"], length=5)
    assert embedded.dtype == np.float32
    assert embedded.tolist() == [[[0, 0], [0, 0], [5, 6], [0, 0], [7, 8]]]


def test_vectors_and_words_are_as_many() -> None:
    with pytest.raises(ServingError, match=r"4 words need as many vectors, not \[3, 2\]"):
        WordVectors(WORDS, np.zeros((3, 2)))


def test_files_bring_back_the_same(tmp_path: Path) -> None:
    words = Vocabulary(["naïve", "x", "\u4e2d"])
    words.save(tmp_path / "words.txt")
    assert Vocabulary.load(tmp_path / "words.txt").words == words.words
    vectors = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    WordVectors(words, vectors).save(tmp_path / "vectors.npz")
    loaded = WordVectors.load(tmp_path / "vectors.npz")
    assert loaded.vocabulary.words == words.words
    np.testing.assert_array_equal(loaded.vectors, vectors)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    for load, name in ((Vocabulary.load, "a.txt"), (WordVectors.load, "a.npz")):
        with pytest.raises(ServingError, match=name) as caught:
            load(tmp_path / name)
        assert caught.value.code is Code.NOT_FOUND
        (tmp_path / name).write_bytes(b"\xff\xfe no")
        with pytest.raises(ServingError, match=name) as caught:
            load(tmp_path / name)
        assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", words=np.array(["a"], dtype=object), vectors=np.zeros((1, 2)))
    with pytest.raises(ServingError, match="no file of word vectors"):
        WordVectors.load(tmp_path / "a.npz")
