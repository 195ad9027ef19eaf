"""A network with binary layers, in numpy: weights and inputs of a binary layer are bits, a product is a count of bits.

Two signs multiply to -1 where their bits differ. So the product of two vectors of n signs is n - 2 x (bits that
differ): one XOR and one population count for up to 64 multiplications. This file needs numpy alone; it lies beside the
model that it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray[Any, Any]


class PackedNetwork:
    """Runs a ``network.npz``. With ``packed`` off, binary layers multiply floats of +1 and -1: the same numbers."""

    def __init__(self, path: Path, *, packed: bool = True) -> None:
        if packed and not hasattr(np, "bitwise_count"):
            raise RuntimeError(f"counting bits needs numpy 2, and this is {np.__version__}")
        with np.load(path, allow_pickle=False) as stored:
            self._constants: dict[str, Array] = {
                name.removeprefix("constant/"): stored[name] for name in stored.files if name.startswith("constant/")
            }
            self._program: list[dict[str, Any]] = json.loads(stored["program"].tobytes())
        self._packed = packed

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        values: dict[str, Array] = {**self._constants, **inputs}
        outputs = {}
        for step in self._program:
            given = [values[name] for name in step["inputs"]]
            operation = step["operation"]
            if operation == "Output":
                outputs[step["output"]] = given[0]
            elif operation in _BINARY:
                packed, floats = _BINARY[operation]
                values[step["output"]] = (packed if self._packed else floats)(step, *given)
            else:
                values[step["output"]] = OPERATIONS[operation](step, *given)
        return outputs


def pack(signs: Array) -> Array:
    """Pack the last axis, bits as uint8, into the smallest words that hold it; what is left of a word is 0."""
    count = signs.shape[-1]
    size = next((size for size in (1, 2, 4, 8) if count <= 8 * size), 8)
    words = -(-count // (8 * size))
    room = np.zeros((*signs.shape[:-1], words * size), np.uint8)
    bits = np.packbits(signs, axis=-1)
    room[..., : bits.shape[-1]] = bits
    return room.view(f"u{size}")


def unpack(words: Array, count: int) -> Array:
    """Return the bits of ``pack`` as uint8."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, count=count)


def _differing(left: Array, right: Array) -> Array:
    return np.bitwise_count(np.bitwise_xor(left, right))


def _packed_conv(step: Mapping[str, Any], signs: Array, kernel: Array) -> Array:
    """Convolve bits [n, in, height, width] with words [out, tall, wide, words]: float32 [n, out, height, width]."""
    after, tall, wide, words = kernel.shape
    down, right = step["strides"]
    seen = pack(np.ascontiguousarray(np.moveaxis(signs, 1, -1)))
    height, width = (seen.shape[1] - tall) // down + 1, (seen.shape[2] - wide) // right + 1
    differing = np.zeros((len(seen), height, width, after), np.int32)
    for y, x, word in np.ndindex(tall, wide, words):
        window = seen[:, y : y + down * (height - 1) + 1 : down, x : x + right * (width - 1) + 1 : right, word]
        differing += _differing(window[..., np.newaxis], kernel[:, y, x, word])
    product = np.float32(tall * wide * signs.shape[1]) - np.float32(2) * differing.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(product, -1, 1))


def _float_conv(step: Mapping[str, Any], signs: Array, kernel: Array) -> Array:
    bits = unpack(kernel, signs.shape[1])
    return _conv(step, _as_signs(signs), _as_signs(np.moveaxis(bits, -1, 1)))


def _packed_dense(_step: Mapping[str, Any], signs: Array, kernel: Array) -> Array:
    """Multiply bits [n, in] with words [out, words]."""
    seen = pack(signs)
    differing = np.zeros((len(seen), len(kernel)), np.int32)
    for word in range(kernel.shape[1]):
        differing += _differing(seen[:, word, np.newaxis], kernel[:, word])
    product: Array = np.float32(signs.shape[1]) - np.float32(2) * differing.astype(np.float32)
    return product


def _float_dense(_step: Mapping[str, Any], signs: Array, kernel: Array) -> Array:
    product: Array = _as_signs(signs) @ _as_signs(unpack(kernel, signs.shape[1])).T
    return product


def _as_signs(bits: Array) -> Array:
    return bits.astype(np.float32) * np.float32(2) - np.float32(1)


def _windows(x: Array, size: list[int], strides: list[int]) -> Array:
    """Return [n, channels, height, width, tall, wide]."""
    return sliding_window_view(x, tuple(size), axis=(2, 3))[:, :, :: strides[0], :: strides[1]]


def _conv(step: Mapping[str, Any], x: Array, kernel: Array, bias: Array | None = None) -> Array:
    top, left, bottom, right = step.get("pads", [0, 0, 0, 0])
    if any(step.get("pads", ())):
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    seen = _windows(x, list(kernel.shape[2:]), step["strides"])
    rows, _, height, width = seen.shape[:4]
    flat = seen.transpose(0, 2, 3, 1, 4, 5).reshape(rows * height * width, -1)
    product = (flat @ kernel.reshape(len(kernel), -1).T).reshape(rows, height, width, -1)
    product = product if bias is None else product + bias
    return np.ascontiguousarray(np.moveaxis(product, -1, 1))


def _scale(_step: Mapping[str, Any], x: Array, factor: Array, shift: Array) -> Array:
    """Normalize: a factor and a shift for each channel."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scaled: Array = x * factor.reshape(shape) + shift.reshape(shape)
    return scaled


def _average(step: Mapping[str, Any], x: Array) -> Array:
    mean: Array = _windows(x, step["size"], step["strides"]).mean(axis=(-2, -1), dtype=np.float32)
    return mean


def _largest(step: Mapping[str, Any], x: Array) -> Array:
    largest: Array = _windows(x, step["size"], step["strides"]).max(axis=(-2, -1))
    return largest


def _softmax(step: Mapping[str, Any], x: Array) -> Array:
    powers = np.exp(x - x.max(axis=step["axis"], keepdims=True))
    shares: Array = powers / powers.sum(axis=step["axis"], keepdims=True)
    return shares


def _gemm(step: Mapping[str, Any], x: Array, kernel: Array, bias: Array | None = None) -> Array:
    product: Array = x @ (kernel.T if step["transposed"] else kernel)
    return product if bias is None else product + bias


_BINARY: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "BinaryConv": (_packed_conv, _float_conv),
    "BinaryDense": (_packed_dense, _float_dense),
}
OPERATIONS: dict[str, Callable[..., Array]] = {
    "Add": lambda _step, left, right: left + right,
    "AveragePool": _average,
    "Binarize": lambda _step, x: (x >= 0).view(np.uint8),
    "Clip": lambda step, x: np.clip(x, np.float32(step["low"]), np.float32(step["high"])),
    "Conv": _conv,
    "Div": lambda _step, left, right: left / right,
    "Flatten": lambda step, x: x.reshape(int(np.prod(x.shape[: step["axis"]])), -1),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _step, x: x.mean(axis=tuple(range(2, x.ndim)), keepdims=True, dtype=np.float32),
    "Identity": lambda _step, x: x,
    "MaxPool": _largest,
    "Mul": lambda _step, left, right: left * right,
    "Relu": lambda _step, x: np.maximum(x, np.float32(0)),
    "Scale": _scale,
    "Sigmoid": lambda _step, x: np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x)),
    "Softmax": _softmax,
    "Sub": lambda _step, left, right: left - right,
    "Transpose": lambda step, x: x.transpose(step["order"]),
}
"""What a program can be made of, beside binary layers and ``Output``."""
