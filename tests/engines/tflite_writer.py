"""Writes small TFLite files as bytes, without TensorFlow: each output is its input added to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flatbuffers  # type: ignore[import-untyped]
from ai_edge_litert import schema_py_generated as schema

_ADD = 0
_CUSTOM = 32
_ADD_OPTIONS = 11


@dataclass(frozen=True)
class Pair:
    """An input ``NAME`` and an output ``NAME_twice``. ``free`` is the shape with -1 for free dimensions."""

    name: str
    shape: Sequence[int]
    kind: str = "FLOAT32"
    free: Sequence[int] | None = None
    scale: float = 0.0


def doubler(
    pairs: Sequence[Pair], signatures: Mapping[str, Mapping[str, str]] | None = None, custom: str = ""
) -> bytes:
    """Return a file. ``signatures``: their name -> the name of each tensor in it -> the tensor's own.

    ``custom`` is the name of an operation in place of the addition.
    """
    tensors = [_tensor(f"{pair.name}{end}", pair) for pair in pairs for end in ("", "_twice")]
    graph = schema.SubGraphT()
    graph.tensors = tensors
    graph.inputs = list(range(0, len(tensors), 2))
    graph.outputs = list(range(1, len(tensors), 2))
    graph.operators = [_doubling(place, custom) for place in graph.inputs]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _CUSTOM if custom else _ADD
    code.customCode = custom or None
    code.version = 1
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes = [code]
    model.subgraphs = [graph]
    model.buffers = [schema.BufferT()]
    numbers = {tensor.name: place for place, tensor in enumerate(tensors)}
    model.signatureDefs = [_signature(name, named, numbers) for name, named in (signatures or {}).items()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, pair: Pair) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name = name
    tensor.shape = list(pair.shape)
    tensor.shapeSignature = None if pair.free is None else list(pair.free)
    tensor.type = getattr(schema.TensorType, pair.kind)
    tensor.hasRank = True
    tensor.buffer = 0
    if pair.scale:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [pair.scale]
        tensor.quantization.zeroPoint = [0]
    return tensor


def _doubling(place: int, custom: str) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.inputs = [place, place]
    operator.outputs = [place + 1]
    if not custom:
        operator.builtinOptionsType = _ADD_OPTIONS
        operator.builtinOptions = schema.AddOptionsT()
    return operator


def _signature(name: str, named: Mapping[str, str], numbers: Mapping[str, int]) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey = name
    maps = {alias: _map(alias, numbers[own]) for alias, own in named.items()}
    signature.inputs = [each for alias, each in maps.items() if numbers[named[alias]] % 2 == 0]
    signature.outputs = [each for alias, each in maps.items() if numbers[named[alias]] % 2 == 1]
    signature.subgraphIndex = 0
    return signature


def _map(alias: str, number: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name = alias
    entry.tensorIndex = number
    return entry
