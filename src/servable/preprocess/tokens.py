"""Texts as arrays: words separated by white space, one text a row, aligned to the right.

Upper and lower case are different words. A text longer than a row keeps its first words; a shorter one is preceded by
zeros, so that the last word is always in the last place, where a recurrent network looks.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from servable.core.errors import invalid_argument, not_found
from servable.core.tensors import Array

LENGTH = 50
"""Words in a row, unless asked otherwise."""
UNKNOWN = 0
"""The number of a word that a vocabulary does not have, and of the places before a short text."""


def split(text: str | bytes) -> list[str]:
    """Return the words of a text. Bytes are UTF-8; INVALID_ARGUMENT says where they are not."""
    if isinstance(text, str):
        return text.split()
    try:
        return text.decode().split()
    except UnicodeDecodeError as error:
        raise invalid_argument(f"a text is UTF-8, but byte {error.start} of it is not: {error.reason}") from error


class Vocabulary:
    """Words, numbered from 1 in their order."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._number = {word: number for number, word in enumerate(self.words, start=1)}
        for word in self.words:
            if len(word.split()) != 1 or word != word.strip() or "\0" in word:
                raise invalid_argument(f"{word!r} is no word: it is empty or holds white space")
        if len(self._number) < len(self.words):
            twice = next(word for number, word in enumerate(self.words, start=1) if self._number[word] != number)
            raise invalid_argument(f"the vocabulary has the word {twice!r} twice")

    def number(self, word: str) -> int:
        """Return the number of a word, 0 if it is unknown."""
        return self._number.get(word, UNKNOWN)

    def encode(self, texts: Sequence[str | bytes], length: int = LENGTH) -> Array:
        """Return the numbers of the words of texts: int32 [texts, length]."""
        if length < 1:
            raise invalid_argument(f"a row holds 1 word or more, not {length}")
        rows = np.full((len(texts), length), UNKNOWN, dtype=np.int32)
        for row, text in zip(rows, texts, strict=True):
            numbers = [self.number(word) for word in split(text)[:length]]
            row[length - len(numbers) :] = numbers
        return rows

    def save(self, path: Path) -> None:
        """Write the words to a file of UTF-8, one a line."""
        path.write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read a file of words, one a line. NOT_FOUND or INVALID_ARGUMENT name the file."""
        try:
            return cls(path.read_text(encoding="utf-8").split("\n")[:-1])
        except OSError as error:
            raise not_found(f"cannot read the vocabulary {path}: {error}") from error
        except UnicodeDecodeError as error:
            raise invalid_argument(f"the vocabulary {path} is not UTF-8: {error}") from error


class WordVectors:
    """A vector for each word of a vocabulary; zeros for any other."""

    def __init__(self, vocabulary: Vocabulary, vectors: Array) -> None:
        if vectors.ndim != 2 or len(vectors) != len(vocabulary.words):
            raise invalid_argument(f"{len(vocabulary.words)} words need as many vectors, not {list(vectors.shape)}")
        self.vocabulary = vocabulary
        # Row 0 stands for all words that are unknown.
        self._rows = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors.astype(np.float32)])

    @property
    def vectors(self) -> Array:
        """Return the vectors in the order of the words: float32 [words, size]."""
        return self._rows[1:]

    def embed(self, texts: Sequence[str | bytes], length: int = LENGTH) -> Array:
        """Return the vectors of the words of texts: float32 [texts, length, size]."""
        embedded: Array = self._rows[self.vocabulary.encode(texts, length)]
        return embedded

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file with the arrays ``words`` and ``vectors``."""
        with path.open("wb") as file:
            np.savez(file, words=np.array(self.vocabulary.words, dtype=np.str_), vectors=self.vectors)

    @classmethod
    def load(cls, path: Path) -> WordVectors:
        """Read an ``.npz`` file with the arrays ``words`` and ``vectors``; a pickle in it is refused."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(Vocabulary([str(word) for word in stored["words"]]), stored["vectors"])
        except OSError as error:
            raise not_found(f"cannot read the word vectors {path}: {error}") from error
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise invalid_argument(f"{path} is no file of word vectors: {error}") from error
