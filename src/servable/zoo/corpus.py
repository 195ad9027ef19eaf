"""A generated corpus of film reviews in which the order of words decides.

Clauses of one polarity are joined to clauses of the other, and negated: "the plot was not good , it was dull" against
"the plot was good , it was not dull". The same words in another order mean the opposite, so counting words does not
get far. Texts are separated by spaces, punctuation included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from servable.core.tensors import Array

LABELS = ("negative", "positive")
VECTOR = 64
"""Numbers in the vector of a word."""


def _list(text: str, separator: str = " ") -> tuple[str, ...]:
    return tuple(text.split(separator))


_ADJECTIVES = (
    _list("bad terrible awful dull boring weak poor dreadful clumsy tedious ugly stale lame messy hollow horrible"),
    _list(
        "good great wonderful brilliant funny strong rich superb clever charming lovely fresh sharp neat deep moving"
    ),
)
"""Negative ones, and positive ones; so are the verbs."""
_VERBS = (_list("hate dislike regret despise"), _list("love like enjoy admire"))
_PAST = (_list("hated disliked regretted despised"), _list("loved liked enjoyed admired"))
_SUBJECTS = _list(
    "it,the movie,this movie,the film,this film,the plot,the acting,the story,the music,the ending,the script,"
    "the cast,the dialogue,the pace,the camera",
    ",",
)
_NOUNS = _list("movie film plot story ending script cast performance")
_COPULAS = _list("is was felt seemed looked")
_DEGREES = ("", "", "", "very", "really", "quite", "so", "rather")
_NOT = _list("not never hardly")
_DO_NOT = _list("did not,do not,could not,would never", ",")
_JOINTS = _list("a I , but although and only also though yet")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts with their labels: 0 is negative, 1 is positive."""

    texts: tuple[str, ...]
    labels: Array


def reviews(count: int, seed: int) -> Corpus:
    """Return that many reviews, half of each label, in random order. The same seed gives the same texts."""
    rng = np.random.default_rng([seed, count])
    labels = rng.permutation(np.arange(count) % 2)
    return Corpus(tuple(" ".join(_review(rng, int(label)).split()) for label in labels), labels)


@lru_cache(maxsize=1)
def words() -> tuple[str, ...]:
    """Return every word that a review may hold, sorted."""
    phrases = (*_ADJECTIVES, *_VERBS, *_PAST, _SUBJECTS, _NOUNS, _COPULAS, _DEGREES, _NOT, _DO_NOT, _JOINTS)
    return tuple(sorted({word for listed in phrases for phrase in listed for word in phrase.split()}))


def word_vectors(seed: int) -> Array:
    """Return one random vector for each of ``words()``: float32 [words, 64]."""
    return np.random.default_rng([seed, VECTOR]).standard_normal((len(words()), VECTOR), dtype=np.float32)


def embed(texts: Sequence[str], vectors: Array, length: int) -> Array:
    """Return the vectors of the first words of texts, float32 [texts, length, 64]; zeros precede a shorter text."""
    row = _rows()
    embedded = np.zeros((len(texts), length, VECTOR), dtype=np.float32)
    for place, text in zip(embedded, texts, strict=True):
        rows = [row[word] for word in text.split()[:length]]
        place[length - len(rows) :] = vectors[rows]
    return embedded


def embed_rows(reviews: Corpus, rows: Array, vectors: Array) -> Array:
    """Return the vectors of some reviews, as long as the longest of them."""
    texts = [reviews.texts[row] for row in rows]
    return embed(texts, vectors, max(len(text.split()) for text in texts))


def counts(texts: Sequence[str]) -> Array:
    """Return how often each of ``words()`` occurs in texts, and 1 for the text itself: float64 [texts, words + 1]."""
    row = _rows()
    counted = np.zeros((len(texts), len(row) + 1))
    counted[:, -1] = 1.0
    for place, text in zip(counted, texts, strict=True):
        np.add.at(place, [row[word] for word in text.split()], 1.0)
    return counted


@lru_cache(maxsize=1)
def _rows() -> dict[str, int]:
    return {word: number for number, word in enumerate(words())}


def _review(rng: np.random.Generator, label: int) -> str:
    other = label if rng.random() < 0.15 else 1 - label
    main, aside = _clause(rng, label), _clause(rng, other)
    forms = (
        main,
        f"{aside} , but {main}",
        f"{aside} , yet {main}",
        f"although {aside} , {main}",
        f"{main} , although {aside}",
        f"{main} , though {aside}",
        f"{main} and {_clause(rng, label)}",
    )
    return _one(rng, forms)


def _clause(rng: np.random.Generator, label: int) -> str:
    """Say something of one polarity, half of the time by denying the other."""
    negated = rng.random() < 0.5
    said = 1 - label if negated else label
    adjective, subject = f"{_one(rng, _DEGREES)} {_one(rng, _ADJECTIVES[said])}", _one(rng, _SUBJECTS)
    kind = rng.integers(8)
    if kind < 4:
        return f"{subject} {_one(rng, _COPULAS)} {_one(rng, _NOT) if negated else ''} {adjective}"
    if kind < 6:
        said_now = (
            f"{_one(rng, _DO_NOT)} {_one(rng, _VERBS[said])}" if negated else _one(rng, _VERBS[said] + _PAST[said])
        )
        return f"I {said_now} {subject}"
    if kind == 6:
        return f"{_one(rng, _NOT) if negated else ''} a {adjective} {_one(rng, _NOUNS)}"
    # "not only" denies nothing.
    first, second = _one(rng, _ADJECTIVES[label]), _one(rng, _ADJECTIVES[label])
    return f"{subject} {_one(rng, _COPULAS)} not only {first} but also {second}"


def _one(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
