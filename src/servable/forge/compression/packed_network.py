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

WORD = 8
"""Bytes of a word, of which as many bits as there are get counted at once."""
_BLOCK_BYTES = 1 << 18
"""Words that are worked on together: they stay in the second level of a processor's cache."""
_AT_MOST_A_BYTE = 3
"""So many counts of up to 64 can be summed in a byte."""


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
                outputs[step["output"]] = np.ascontiguousarray(given[0])
            elif operation in _BINARY:
                packed, floats = _BINARY[operation]
                values[step["output"]] = (packed if self._packed else floats)(step, *given)
            else:
                values[step["output"]] = OPERATIONS[operation](step, *given)
        return outputs


def pack(signs: Array) -> Array:
    """Pack the last axis, bits as uint8 or bool, into bytes; what is left of the last byte is 0."""
    return np.packbits(signs, axis=-1)


def unpack(packed: Array, count: int) -> Array:
    """Return the bits of ``pack`` as uint8."""
    return np.unpackbits(packed, axis=-1, count=count)


def differing(left: Array, right: Array) -> Array:
    """Count the bits in which each row of bytes [m, k] differs from each of [n, k]: uint16 or int32 [m, n]."""
    words, others = _words(left), np.ascontiguousarray(_words(right).T)
    counts = np.zeros((len(words), others.shape[1]), np.uint16 if 8 * left.shape[1] < 1 << 16 else np.int32)
    rows = max(1, _BLOCK_BYTES // (WORD * others.shape[1]))
    unlike = np.empty((rows, others.shape[1]), np.uint64)
    count, total = np.empty(unlike.shape, np.uint8), np.empty(unlike.shape, np.uint8)
    for begin in range(0, len(words), rows):
        block, sums = words[begin : begin + rows], counts[begin : begin + rows]
        some, one, few = unlike[: len(block)], count[: len(block)], total[: len(block)]
        for first in range(0, len(others), _AT_MOST_A_BYTE):
            for word in range(first, min(first + _AT_MOST_A_BYTE, len(others))):
                np.bitwise_xor(block[:, word, np.newaxis], others[word], out=some)
                np.bitwise_count(some, out=few if word == first else one)
                if word > first:
                    np.add(few, one, out=few)
            np.add(sums, few, out=sums)
    return counts


def _words(packed: Array) -> Array:
    """Return rows of bytes as rows of words, filled up with zeros."""
    rest = -packed.shape[1] % WORD
    whole = np.pad(packed, ((0, 0), (0, rest))) if rest else packed
    return np.ascontiguousarray(whole).view(np.uint64)


def _packed_conv(step: Mapping[str, Any], signs: Array, kernel: Array) -> Array:
    """Convolve bits [n, in, height, width] with bytes [out, tall, wide, bytes]: float32 [n, out, height, width].

    In memory channels come last, here and in what follows: that is how bits are packed.
    """
    channels, (after, tall, wide, _) = signs.shape[1], kernel.shape
    top, left, bottom, right = step["pads"]
    seen = pack(np.moveaxis(signs, 1, -1))
    seen = np.pad(seen, ((0, 0), (top, bottom), (left, right), (0, 0))) if any(step["pads"]) else seen
    windows = sliding_window_view(seen, (tall, wide), axis=(1, 2))[:, :: step["strides"][0], :: step["strides"][1]]
    rows, height, width = windows.shape[:3]
    flat = np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(rows * height * width, -1)
    product = _product(differing(flat, kernel.reshape(after, -1)), channels * tall * wide)
    product = product.reshape(rows, height, width, after)
    if any(step["pads"]):
        product -= _of_padding(step, signs.shape[2:], channels, kernel)
    moved: Array = np.moveaxis(product, -1, 1)
    return moved


def _of_padding(step: Mapping[str, Any], sizes: tuple[int, ...], channels: int, kernel: Array) -> Array:
    """Return what zero bits in the padding were counted for, [height, width, out]: there is nothing to multiply."""
    top, left, bottom, right = step["pads"]
    outside = np.pad(np.zeros(sizes, np.float32), ((top, bottom), (left, right)), constant_values=1)
    windows = sliding_window_view(outside, kernel.shape[1:3])[:: step["strides"][0], :: step["strides"][1]]
    taps = channels - 2 * np.bitwise_count(kernel).sum(axis=-1, dtype=np.float32)
    counted: Array = np.einsum("hwyx,oyx->hwo", windows, taps)
    return counted


def _float_conv(step: Mapping[str, Any], signs: Array, kernel: Array) -> Array:
    bits = unpack(kernel, signs.shape[1])
    return _conv(step, _as_signs(signs), _as_signs(np.moveaxis(bits, -1, 1)))


def _packed_dense(_step: Mapping[str, Any], signs: Array, kernel: Array) -> Array:
    """Multiply bits [..., in] with bytes [out, bytes]."""
    rows = pack(signs.reshape(-1, signs.shape[-1]))
    return _product(differing(rows, kernel), signs.shape[-1]).reshape(*signs.shape[:-1], len(kernel))


def _product(counts: Array, length: int) -> Array:
    product: Array = counts.astype(np.float32)
    np.multiply(product, np.float32(-2), out=product)
    np.add(product, np.float32(length), out=product)
    return product


def _float_dense(_step: Mapping[str, Any], signs: Array, kernel: Array) -> Array:
    product: Array = _as_signs(signs) @ _as_signs(unpack(kernel, signs.shape[-1])).T
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
    moved: Array = np.moveaxis(product, -1, 1)
    return moved


def _scale(_step: Mapping[str, Any], x: Array, factor: Array, shift: Array) -> Array:
    """Normalize: a factor and a shift for each channel."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scaled: Array = x * factor.reshape(shape)
    np.add(scaled, shift.reshape(shape), out=scaled)
    return scaled


def _average(step: Mapping[str, Any], x: Array) -> Array:
    return _pooled(step, x, np.add) * np.float32(1 / np.prod(step["size"]))


def _largest(step: Mapping[str, Any], x: Array) -> Array:
    return _pooled(step, x, np.maximum)


def _pooled(step: Mapping[str, Any], x: Array, joined: np.ufunc) -> Array:
    """Join the places of each window, one place of all windows after the other."""
    windows = _windows(x, step["size"], step["strides"])
    pooled: Array = windows[..., 0, 0].copy()
    for place in list(np.ndindex(*step["size"]))[1:]:
        joined(pooled, windows[(..., *place)], out=pooled)
    return pooled


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
    "Binarize": lambda _step, x: (x > 0).view(np.uint8),
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
