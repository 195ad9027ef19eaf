"""Asks two other models what they think of a review, both at once, and gives the mean of their opinions.

servable serve examples/ensemble/opinion examples/ensemble/lexicon examples/python_model/reviews
curl localhost:8501/v1/models/opinion:predict -d '{"instances": ["a warm and clever film", "what a bore"]}'
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import numpy as np

from servable import Tensor

LABELS = np.array(["bad", "good"])

Array = np.ndarray[Any, Any]


class Answer(TypedDict):
    label: Annotated[Array, Tensor[str, "n"]]
    probabilities: Annotated[Array, Tensor["float32", "n", 2]]  # of bad, of good
    agreed: Annotated[Array, Tensor["bool", "n"]]


class Opinion:
    uses = ["reviews", "lexicon"]  # noqa: RUF012  # read by the server before it runs this file
    models: Mapping[str, Any]  # set by the server

    async def predict(self, text: Annotated[Array, Tensor[str, "n"]]) -> Answer:
        found = await asyncio.gather(
            self.models["reviews"](outputs=["probabilities"], text=text), self.models["lexicon"](text=text)
        )
        opinions = [found[0]["probabilities"], found[1]["output"]]
        mean = np.mean(opinions, axis=0)
        votes = [opinion.argmax(axis=1) for opinion in opinions]
        return {"label": LABELS[mean.argmax(axis=1)], "probabilities": mean, "agreed": votes[0] == votes[1]}
