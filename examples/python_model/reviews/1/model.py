"""Tells good film reviews from bad ones, by the words that it learnt from ``reviews.txt`` when it was loaded.

servable serve examples/python_model/reviews
curl localhost:8501/v1/models/reviews:predict -d '{"instances": ["a warm and clever film", "what a bore"]}'
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np

from servable import Tensor

LABELS = np.array(["bad", "good"])

Texts = Annotated[np.ndarray[Any, Any], Tensor[str, "n"]]
Labels = Annotated[np.ndarray[Any, Any], Tensor[str, "n"]]
Probabilities = Annotated[np.ndarray[Any, Any], Tensor["float32", "n", 2]]


class Opinion(TypedDict):
    label: Labels
    probabilities: Probabilities  # of bad, of good


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


class Reviews:
    """Naive Bayes: each word speaks for the label in whose reviews it stood more often."""

    def load(self, directory: Path) -> None:
        counts: dict[str, Counter[str]] = {"good": Counter(), "bad": Counter()}
        for line in (directory / "reviews.txt").read_text().splitlines():
            label, _, text = line.partition(": ")
            counts[label].update(words_of(text))
        totals = {label: sum(words.values()) for label, words in counts.items()}
        known = counts["good"].keys() | counts["bad"].keys()
        self.votes = {
            word: np.log((counts["good"][word] + 1) / (totals["good"] + len(known)))
            - np.log((counts["bad"][word] + 1) / (totals["bad"] + len(known)))
            for word in known
        }
        print(f"learnt {len(known)} words")

    def predict(self, text: Texts) -> Opinion:
        score = np.array([sum(self.votes.get(word, 0.0) for word in words_of(each)) for each in text])
        good = 1 / (1 + np.exp(-score))
        return {"label": LABELS[(good > 0.5).astype(int)], "probabilities": np.stack([1 - good, good], axis=1)}
