"""The contract's models as Python: classes whose annotations are the signatures."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.contract.cases import BIAS, TABLE, WEIGHTS

TYPES = ("bfloat16", "complex64", "float32", "int64", "string")
"""Element types with a model of their own; each is a process."""

HEAD = """
from typing import TypedDict

import numpy as np

from servable import Code, ServingError, Tensor
"""

# Its numbers stand in the middle, so that half of the file is no Python.
PERCEPTRON = f"""
class Answer(TypedDict):
    probabilities: Tensor["float32", "n", 4]
    label: Tensor["int64", "n"]

BIAS = np.array({BIAS.tolist()}, np.float32)
WEIGHTS = np.array({WEIGHTS.tolist()}, np.float32)

class Perceptron:
    def predict(self, x: Tensor["float32", "n", 8]) -> Answer:
        logits = np.tanh(x) @ WEIGHTS + BIAS
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
        return {{"probabilities": powers / powers.sum(axis=-1, keepdims=True), "label": np.argmax(logits, axis=-1)}}
"""

TWO_INPUTS = """
class Answer(TypedDict):
    difference: Tensor["float32", "n", 3]
    product: Tensor["float32", "n", 3]

class TwoInputs:
    def predict(self, a: Tensor["float32", "n", 3], b: Tensor["float32", "n", 3]) -> Answer:
        return {"difference": a - b, "product": a * b}
"""

TOKENS = f"""
class Answer(TypedDict):
    mean: Tensor["float32", "n", 6]

class Tokens:
    def load(self):
        self.table = np.array({TABLE.tolist()}, np.float32)

    def predict(self, ids: Tensor["int64", "n", 5]) -> Answer:
        if ids.size and ids.max() >= len(self.table):
            raise ServingError(Code.INVALID_ARGUMENT, f"there is no row {{ids.max()}}")
        return {{"mean": self.table[ids].mean(axis=1, dtype=np.float32)}}
"""

SCALAR = """
class Answer(TypedDict):
    y: Tensor["float32", ()]

class Scalar:
    async def predict(self, x: Tensor["float32", ()]) -> Answer:
        return {"y": x * 2 + 1}
"""


def _same(type_name: str) -> str:
    return f"""
        class Answer(TypedDict):
            y: Tensor["{type_name}", 1, "n"]

        class Same:
            def predict(self, x: Tensor["{type_name}", "n"]) -> Answer:
                return {{"y": x[np.newaxis]}}
    """


def build(target: Path) -> None:
    models = {"perceptron": PERCEPTRON, "two_inputs": TWO_INPUTS, "tokens": TOKENS, "scalar": SCALAR}
    models |= {f"type_{name}": _same(name) for name in TYPES}
    for name, code in models.items():
        file = target / name / "1" / "model.py"
        file.parent.mkdir(parents=True)
        file.write_text(HEAD + textwrap.dedent(code))
