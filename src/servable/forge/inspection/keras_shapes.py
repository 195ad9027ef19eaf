"""Shapes of what Keras layers give, from their configuration. The first dimension is always the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Sizes: TypeAlias = tuple[int, ...]
Config: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Config, Sequence[Sizes]], Sizes]


def output_shape(kind: str, config: Config, inputs: Sequence[Sizes]) -> Sizes | None:
    """Return the shape that a layer gives, ``None`` where no rule knows it."""
    rule = _RULES.get(kind)
    if rule is None or not inputs:
        return None
    try:
        return rule(config, inputs)
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
        return None


def _same(_config: Config, inputs: Sequence[Sizes]) -> Sizes:
    return inputs[0]


def _dense(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    return (*inputs[0][:-1], int(config["units"]))


def _flatten(_config: Config, inputs: Sequence[Sizes]) -> Sizes:
    return (inputs[0][0], math.prod(inputs[0][1:]))


def _reshape(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    wanted = [int(size) for size in config["target_shape"]]
    rest = math.prod(inputs[0][1:])
    known = math.prod(size for size in wanted if size >= 0)
    return (inputs[0][0], *(rest // known if size < 0 else size for size in wanted))


def _permute(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    return (inputs[0][0], *(inputs[0][int(axis)] for axis in config["dims"]))


def _list(value: Any, count: int) -> list[int]:
    return [int(value)] * count if isinstance(value, int) else [int(part) for part in value]


def _windows(config: Config, shape: Sizes, kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    if config.get("data_format", "channels_last") != "channels_last":
        raise ValueError
    dilations = _list(config.get("dilation_rate", 1), len(kernel))
    sizes = []
    for size, extent, stride, dilation in zip(shape[1:-1], kernel, strides, dilations, strict=True):
        padding = config.get("padding", "valid")
        if padding in ("causal", "same"):
            sizes.append(-(-size // stride))
        else:
            sizes.append((size - (extent - 1) * dilation - 1) // stride + 1)
    return sizes


def _convolution(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    rank = len(inputs[0]) - 2
    sizes = _windows(config, inputs[0], _list(config["kernel_size"], rank), _list(config["strides"], rank))
    return (inputs[0][0], *sizes, int(config["filters"]))


def _depthwise(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    rank = len(inputs[0]) - 2
    sizes = _windows(config, inputs[0], _list(config["kernel_size"], rank), _list(config["strides"], rank))
    return (inputs[0][0], *sizes, inputs[0][-1] * int(config.get("depth_multiplier", 1)))


def _pool(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    rank = len(inputs[0]) - 2
    window = _list(config["pool_size"], rank)
    strides = window if config.get("strides") is None else _list(config["strides"], rank)
    return (inputs[0][0], *_windows(config, inputs[0], window, strides), inputs[0][-1])


def _pool_all(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    if config.get("data_format", "channels_last") != "channels_last":
        raise ValueError
    ones = (1,) * (len(inputs[0]) - 2) if config.get("keepdims") else ()
    return (inputs[0][0], *ones, inputs[0][-1])


def _pad(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    around = config["padding"]
    pairs = [around] if len(inputs[0]) == 3 else around
    sizes = [size + sum(pair) for size, pair in zip(inputs[0][1:-1], pairs, strict=True)]
    return (inputs[0][0], *sizes, inputs[0][-1])


def _embed(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    return (*inputs[0], int(config["output_dim"]))


def _recur(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    if config.get("return_state"):
        raise ValueError
    steps = (inputs[0][1],) if config.get("return_sequences") else ()
    return (inputs[0][0], *steps, int(config["units"]))


def _recur_both_ways(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    made = _recur(config["layer"]["config"], inputs)
    return (*made[:-1], made[-1] * (2 if config.get("merge_mode", "concat") == "concat" else 1))


def _concatenate(config: Config, inputs: Sequence[Sizes]) -> Sizes:
    axis = int(config.get("axis", -1)) % len(inputs[0])
    return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])


def _merge(_config: Config, inputs: Sequence[Sizes]) -> Sizes:
    if any(shape != inputs[0] for shape in inputs):
        raise ValueError
    return inputs[0]


_TABLE: Mapping[Rule, str] = {
    _same: "Activation ReLU LeakyReLU PReLU ELU Softmax Dropout SpatialDropout1D SpatialDropout2D GaussianNoise "
    "GaussianDropout AlphaDropout ActivityRegularization BatchNormalization LayerNormalization "
    "GroupNormalization UnitNormalization RMSNormalization Rescaling Normalization Identity Masking",
    _dense: "Dense",
    _flatten: "Flatten",
    _reshape: "Reshape",
    _permute: "Permute",
    _convolution: "Conv1D Conv2D Conv3D SeparableConv1D SeparableConv2D",
    _depthwise: "DepthwiseConv1D DepthwiseConv2D",
    _pool: "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D",
    _pool_all: "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D "
    "GlobalMaxPooling2D GlobalMaxPooling3D",
    _pad: "ZeroPadding1D ZeroPadding2D ZeroPadding3D",
    _embed: "Embedding",
    _recur: "LSTM GRU SimpleRNN",
    _recur_both_ways: "Bidirectional",
    _concatenate: "Concatenate",
    _merge: "Add Subtract Multiply Average Maximum Minimum",
}
_RULES: Mapping[str, Rule] = {name: rule for rule, names in _TABLE.items() for name in names.split()}
