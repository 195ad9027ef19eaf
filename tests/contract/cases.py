"""The models of the contract: what each computes, in numpy. Builders make the same of each in every format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from servable.core.signatures import Shape, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME, FLOAT32, INT64, Array

_rng = np.random.default_rng(7)
WEIGHTS = _rng.standard_normal((8, 4)).astype(np.float32)
BIAS = _rng.standard_normal(4).astype(np.float32)
TABLE = _rng.standard_normal((10, 6)).astype(np.float32)

TYPES = (
    "float16", "bfloat16", "float32", "float64", "float8_e5m2", "float8_e4m3fn", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "string", "complex64",
)  # fmt: skip
"""Element types with a model ``type_<name>``: x[?] -> y[1,?], the same elements. Where an artifact can have many
signatures, ``all`` has one for each type and each case: a load of TensorFlow's or PyTorch's takes seconds.
"""
TFLITE_TYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "bool", "string")
TORCH_TYPES = tuple(name for name in TYPES if name != "string")
TORCH_EXPORT_CASES = ("perceptron",)
"""The cases that are built as programs of torch.export."""


@dataclass(frozen=True)
class Case:
    """A model: its signature, inputs for a number of rows, and the outputs it should give for inputs."""

    signature: Signature
    inputs: Callable[[int], dict[str, Array]]
    outputs: Callable[[dict[str, Array]], dict[str, Array]]


def _signature(inputs: list[tuple[str, Any, Shape]], outputs: list[tuple[str, Any, Shape]]) -> Signature:
    return Signature(
        "serving_default",
        {name: TensorSpec(name, dtype, shape) for name, dtype, shape in inputs},
        {name: TensorSpec(name, dtype, shape) for name, dtype, shape in outputs},
    )


def _random(*shape: int) -> Array:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype(np.float32)


def _perceptron(inputs: dict[str, Array]) -> dict[str, Array]:
    logits = np.tanh(inputs["x"]) @ WEIGHTS + BIAS
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True)) if len(logits) else logits
    probabilities = powers / powers.sum(axis=-1, keepdims=True)
    return {"probabilities": probabilities, "label": np.argmax(logits, axis=-1)}


CASES: dict[str, Case] = {
    "perceptron": Case(
        _signature([("x", FLOAT32, (None, 8))], [("label", INT64, (None,)), ("probabilities", FLOAT32, (None, 4))]),
        lambda rows: {"x": _random(rows, 8)},
        _perceptron,
    ),
    "two_inputs": Case(
        _signature(
            [("a", FLOAT32, (None, 3)), ("b", FLOAT32, (None, 3))],
            [("difference", FLOAT32, (None, 3)), ("product", FLOAT32, (None, 3))],
        ),
        lambda rows: {"a": _random(rows, 3), "b": 2 * _random(rows, 3) + 1},
        lambda inputs: {"difference": inputs["a"] - inputs["b"], "product": inputs["a"] * inputs["b"]},
    ),
    "tokens": Case(
        _signature([("ids", INT64, (None, 5))], [("mean", FLOAT32, (None, 6))]),
        lambda rows: {"ids": np.random.default_rng(rows).integers(0, 10, (rows, 5))},
        lambda inputs: {"mean": TABLE[inputs["ids"]].mean(axis=1, dtype=np.float32)},
    ),
    "scalar": Case(
        _signature([("x", FLOAT32, ())], [("y", FLOAT32, ())]),
        lambda _rows: {"x": np.array(1.5, np.float32)},
        lambda inputs: {"y": np.asarray(inputs["x"] * 2 + 1)},
    ),
}


def elements(type_name: str) -> Array:
    """Return elements that are hard to keep for a type: its ends, or text that is not ASCII."""
    dtype = DTYPES_BY_NAME[type_name].numpy
    if type_name == "string":
        return np.array([b"", b"plain", "häßlich \N{SNOWMAN}".encode(), b"with \x00 inside"], dtype=object)
    if type_name == "bool":
        return np.array([True, False, True])
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.array([info.min, 0, 1, info.max], dtype=dtype)
    return np.array([0.0, -1.5, 0.25, 448.0]).astype(dtype)


def typed_signature(type_name: str) -> Signature:
    """Return the signature of a type's model, called like the type."""
    dtype = DTYPES_BY_NAME[type_name]
    return replace(_signature([("x", dtype, (None,))], [("y", dtype, (1, None))]), name=type_name)
