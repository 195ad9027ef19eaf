"""Signatures that take tf.Examples on top of a model whose engine cannot parse them.

Errors of an Example have the words that TensorFlow's own parser uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from servable import protos
from servable.core.errors import ServingError, failed_precondition, invalid_argument
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import BOOL, FLOAT32, STRING, Array, DType
from servable.engines.added import Compute, ExtendedModel
from servable.engines.base import Model
from servable.engines.example_settings import ExampleSettings, FeatureSettings, read_example_settings

INPUT: Final = "inputs"
_KINDS: Final = {"f": "float_list", "i": "int64_list", "u": "int64_list", "b": "int64_list", "O": "bytes_list"}
_TYPES: Final = {"float_list": "float", "int64_list": "int64", "bytes_list": "string"}
_SHOWN_BYTES = 40


class FeatureParser:
    """Makes the rows of one input from one feature of every Example."""

    def __init__(self, name: str, settings: FeatureSettings, spec: TensorSpec, where: str) -> None:
        self.input = spec.name
        self._name = name
        self._dtype = spec.dtype
        self._kind = _kind(spec, where)
        self._shape = _row_shape(settings, spec, where)
        self._size = prod(self._shape)
        self._default = None if settings.default is None else self._defaults(settings.default, where)

    def _defaults(self, given: Any, where: str) -> list[Any]:
        values = given if type(given) is list else [given] * self._size
        if len(values) != self._size:
            raise failed_precondition(f"{where}.default: expected {self._size} values, not {len(values)}")
        wanted = {"float_list": (int, float), "int64_list": (int,), "bytes_list": (str,)}[self._kind]
        for value in values:
            if type(value) not in wanted and not (self._dtype is BOOL and type(value) is bool):
                raise failed_precondition(f"{where}.default: {value!r} is no value of {self._dtype}")
        return [value.encode() if type(value) is str else value for value in values]

    def parse(self, rows: Sequence[Any]) -> Array:
        """Return ``[rows, ...]`` from the features of parsed Examples; INVALID_ARGUMENT says which one is wrong."""
        values: list[Any] = []
        for index, features in enumerate(rows):
            values.extend(self._row(features, index))
        shape = (len(rows), *self._shape)
        if self._dtype is STRING:
            strings: Array = np.empty(len(values), dtype=object)
            strings[:] = values
            return strings.reshape(shape)
        if self._kind == "float_list":
            return np.array(values, self._dtype.numpy).reshape(shape)
        return self._integers(np.array(values, np.int64), self._dtype).reshape(shape)

    def _row(self, features: Any, index: int) -> Sequence[Any]:
        feature = features.get(self._name)
        kind = None if feature is None else feature.WhichOneof("kind")
        if kind is None:
            if self._default is None:
                raise invalid_argument(
                    f"Name: <unknown>, Feature: {self._name} (data type: {_TYPES[self._kind]}) is required but could "
                    "not be found."
                )
            return self._default
        where = f"Name: <unknown>, Key: {self._name}, Index: {index}.  "
        if kind != self._kind:
            raise invalid_argument(
                f"{where}Data types don't match. Data type: {_TYPES[kind]} but expected type: {_TYPES[self._kind]}"
            )
        values: Sequence[Any] = getattr(feature, kind).value
        if len(values) != self._size:
            raise invalid_argument(
                f"{where}Number of {_TYPES[kind]} values != expected.  "
                f"Values size: {len(values)} but output shape: [{','.join(map(str, self._shape))}]"
            )
        return values

    def _integers(self, values: Array, dtype: DType) -> Array:
        limits = np.iinfo(np.uint8) if dtype is BOOL else np.iinfo(dtype.numpy)
        low, high = (0, 1) if dtype is BOOL else (int(limits.min), int(limits.max))
        outside = values[(values < low) | (values > min(high, 2**63 - 1))]
        if len(outside):
            raise invalid_argument(f"Feature: {self._name} has the value {outside[0]}, which is no {dtype}")
        return values.astype(dtype.numpy)


class ExampleSignature:
    """One signature that takes Examples, and how the model's own answers it."""

    def __init__(self, settings: ExampleSettings, model: Model, path: Path) -> None:
        where = f"{path}: examples.{settings.name}"
        self._inner = _inner(settings, model, where)
        self._labels = np.array([label.encode() for label in settings.labels], dtype=object)
        self._outputs = settings.outputs
        self._parsers = [
            FeatureParser(
                name, feature, _find(self._inner.inputs, feature.input, f"{where}.features.{name}", "input"),
                f"{where}.features.{name}",
            )
            for name, feature in settings.features.items()
        ]  # fmt: skip
        fed = [parser.input for parser in self._parsers]
        missing = sorted(self._inner.inputs.keys() - self._inner.defaults.keys() - set(fed))
        if missing:
            raise failed_precondition(f"{where}.features: no feature is the input {missing[0]!r}")
        specs = {
            name: _output(name, _find(self._inner.outputs, output, f"{where}.outputs.{name}", "output"))
            for name, output in settings.outputs.items()
        }
        if settings.labels:
            specs["classes"] = TensorSpec("classes", STRING, (None, len(settings.labels)))
        self.signature = Signature(
            settings.name,
            {INPUT: TensorSpec(INPUT, STRING, (None,))},
            dict(sorted(specs.items())),
            f"tensorflow/serving/{settings.method}",
        )

    def run(self, compute: Compute, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Parse, compute with the model's own ``run``, and name the outputs as the method does."""
        rows = inputs[INPUT]
        if rows.ndim != 1:
            raise invalid_argument(f"{INPUT} has shape {list(rows.shape)}; expected one serialized tf.Example a row")
        features = [_features(row) for row in rows]
        parsed = {**self._inner.defaults, **{parser.input: parser.parse(features) for parser in self._parsers}}
        ordered = {name: parsed[name] for name in self._inner.inputs}
        wanted = tuple({self._outputs[name]: None for name in outputs if name in self._outputs})
        found = compute(self._inner.name, ordered, wanted) if wanted else {}
        return {name: self._named(name, found, len(rows)) for name in outputs}

    def _named(self, name: str, found: Mapping[str, Array], rows: int) -> Array:
        if name not in self._outputs:
            return np.tile(self._labels, (rows, 1))
        array = found[self._outputs[name]]
        return array.astype(np.float32, copy=False) if "float" in array.dtype.name else array


def with_examples(model: Model, path: Path) -> Model:
    """Return the model with the signatures that its ``servable.toml`` adds; it is closed if that says nonsense."""
    try:
        added = {each.name: ExampleSignature(each, model, path) for each in read_example_settings(path)}
    except ServingError:
        model.close()
        raise
    return ExtendedModel(model, added) if added else model


def _features(row: bytes) -> Any:
    try:
        return protos.tensorflow.Example.FromString(row).features.feature
    except DecodeError:
        raise invalid_argument(f"Could not parse example input, value: {row[:_SHOWN_BYTES]!r}") from None


def _inner(settings: ExampleSettings, model: Model, where: str) -> Signature:
    name = settings.signature
    if not name:
        name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in model.signatures else next(iter(model.signatures), "")
    found = model.signatures.get(name)
    if found is None:
        raise failed_precondition(
            f"{where}.signature: the model has no signature {name!r}; it has {', '.join(model.signatures)}"
        )
    return found


def _find(specs: Mapping[str, TensorSpec], name: str, where: str, what: str) -> TensorSpec:
    if name not in specs:
        raise failed_precondition(f"{where}: the model has no {what} {name!r}; it has {', '.join(specs)}")
    return specs[name]


def _output(name: str, spec: TensorSpec) -> TensorSpec:
    dtype = FLOAT32 if "float" in spec.dtype.name else spec.dtype
    return TensorSpec(name, dtype, spec.shape, spec.node)


def _kind(spec: TensorSpec, where: str) -> str:
    kind = _KINDS.get("f" if "float" in spec.dtype.name else spec.dtype.numpy.kind)
    if kind is None:
        raise failed_precondition(f"{where}: a feature of an Example cannot be the input {spec.name} of {spec.dtype}")
    return kind


def _row_shape(settings: FeatureSettings, spec: TensorSpec, where: str) -> tuple[int, ...]:
    if settings.shape is not None:
        return settings.shape
    if not spec.shape or None in spec.shape[1:]:
        raise failed_precondition(f"{where}: the input {spec.name} is {spec}: say the shape of a row, shape = [...]")
    return tuple([size for size in spec.shape[1:] if size is not None])
