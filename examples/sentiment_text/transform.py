"""Lets the example model ``sentiment``, which takes word vectors, take texts and give labels.

servable example build sentiment
cp examples/sentiment_text/transform.py models/sentiment/1/
servable serve models/sentiment
curl localhost:8501/v1/models/sentiment:predict -d '{"instances": ["the acting is not bad"]}'
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np

from servable import Tensor

HERE = Path(__file__).parent
LABELS = np.array((HERE / "labels.txt").read_text().split())
with np.load(HERE / "vectors.npz") as saved:
    VECTORS = dict(zip(saved["words"].tolist(), saved["vectors"], strict=True))
SIZE = len(next(iter(VECTORS.values())))

Array = np.ndarray[Any, Any]


class Opinion(TypedDict):
    label: Annotated[Array, Tensor[str, "n"]]
    probabilities: Annotated[Array, Tensor["float32", "n", 2]]


def words_of(text: str) -> list[str]:
    """Return the words that have vectors, whether they were capitalised or not."""
    spelled = (word if word in VECTORS else word.lower() for word in text.split())
    return [word for word in spelled if word in VECTORS]


def request(text: Annotated[Array, Tensor[str, "n"]]) -> Annotated[Array, Tensor["float32", "n", "words", 64]]:
    """Return the vectors of the known words, zeros before those of shorter texts: the model passes over zeros."""
    rows = [[VECTORS[word] for word in words_of(each)] for each in text]
    vectors = np.zeros((len(rows), max(1, *map(len, rows)) if rows else 1, SIZE), np.float32)
    for row, found in zip(vectors, rows, strict=True):
        if found:
            row[-len(found) :] = found
    return vectors


def response(probs: Annotated[Array, Tensor["float32", "n", 2]]) -> Opinion:
    return {"label": LABELS[probs.argmax(axis=1)], "probabilities": probs}
