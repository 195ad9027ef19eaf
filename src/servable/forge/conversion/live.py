"""A model as its framework has it in memory, seen as one signature: its names, what it answers, how it is written.

``live_model`` takes Keras models, ``tf.Module``s and ``tf.function``s, and torch modules. Importing this imports none
of these frameworks: whoever holds such a model has done so.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.signatures import DEFAULT_SIGNATURE, Shape, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME, Array, dtype_of
from servable.forge.arrays import Tensors
from servable.forge.steps import Facts, Task

Outputs: TypeAlias = "Sequence[str] | Mapping[str, Any]"

_SPEC = re.compile(r"\s*([a-z0-9_]+)\s*(?:\[(.*)\])?\s*")
_FREE = frozenset({"?", "-1", "none", "batch"})


@dataclass(frozen=True, slots=True)
class Naming:
    """How a model is to be called. What is ``None`` is taken from the model.

    ``inputs`` maps a name to what tells type and shape: ``"float32[?,3]"``, an array or tensor as an example, a
    ``tf.TensorSpec``, a Keras tensor. ``outputs`` are names in the model's own order, or a mapping from a name to the
    model's own (a key, a place, a Keras tensor). ``rows`` fixes the batch.
    """

    signature: str = DEFAULT_SIGNATURE
    inputs: Mapping[str, Any] | None = None
    outputs: Outputs | None = None
    rows: int | None = None


class LiveModel(ABC):
    """One callable signature of a model in memory."""

    framework: str
    signature: Signature
    origin: str = "the model"
    """What it is called where something is wrong with it."""

    @abstractmethod
    def answer(self, inputs: Tensors) -> dict[str, Array]:
        """Compute all outputs as the framework itself does."""

    @abstractmethod
    def write(self, kind: str, target: Path, task: Task) -> Facts:
        """Write it into the empty folder ``target`` as such an artifact; UNIMPLEMENTED says what else there is."""


def live_model(model: Any, naming: Naming, example: Any = None) -> LiveModel:
    """Return any model that is understood; INVALID_ARGUMENT says what that would be.

    ``example`` is what a torch module is traced with: a tensor, a tuple of them, or a dict by name.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from servable.forge.conversion.live_torch import LiveTorch

        return LiveTorch(model, naming, example)
    if "tensorflow" in sys.modules:
        from servable.forge.conversion.live_tensorflow import LiveFunction, LiveKeras, is_function, is_keras

        if is_keras(model):
            return LiveKeras(model, naming)
        if is_function(model):
            return LiveFunction(model, naming)
    raise invalid_argument(
        f"{type(model).__module__}.{type(model).__qualname__} is no model that can be exported: "
        "there are Keras models, tf.Module, tf.function and torch.nn.Module"
    )


def read_spec(name: str, said: Any) -> TensorSpec:
    """Return what ``float32[?,3]``, an array, a tensor or a framework's own spec says; INVALID_ARGUMENT if nothing.

    The first axis of an example is free.
    """
    if isinstance(said, TensorSpec):
        return TensorSpec(name, said.dtype, said.shape)
    if isinstance(said, str):
        return _parsed(name, said)
    shape, dtype = getattr(said, "shape", None), getattr(said, "dtype", None)
    if dtype is None:
        raise invalid_argument(f"input {name}: {said!r} tells no type; write one as 'float32[?,3]', or give an array")
    kind = dtype_of(said).name if isinstance(said, np.ndarray) else _kind(dtype)
    if kind not in DTYPES_BY_NAME:
        raise invalid_argument(f"input {name}: no tensor is of type {kind}")
    sizes = _sizes(shape)
    if sizes and _is_example(said):
        sizes = (None, *sizes[1:])
    return TensorSpec(name, DTYPES_BY_NAME[kind], sizes)


def fixed(signature: Signature, rows: int | None) -> Signature:
    """Return the signature with that many rows in every first dimension that is free; as it is for ``None``."""
    if rows is None:
        return signature

    def fix(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        return {
            name: TensorSpec(name, spec.dtype, (rows, *spec.shape[1:]), spec.node)
            if spec.shape and spec.shape[0] is None
            else spec
            for name, spec in specs.items()
        }

    return Signature(signature.name, fix(signature.inputs), fix(signature.outputs), signature.method_name)


def named_outputs(own: Sequence[str], wished: Outputs | None) -> dict[str, int]:
    """Return the outputs' names -> places among the model's own; INVALID_ARGUMENT says which are not there.

    Names alone rename the model's outputs in order; a mapping chooses by the model's own name or by place.
    """
    if wished is None:
        return {name: place for place, name in enumerate(own)}
    if not isinstance(wished, Mapping):
        names = list(wished)
        if len(names) != len(own) or len(set(names)) != len(names):
            raise invalid_argument(
                f"outputs {', '.join(names) or 'none'}: the model has {len(own)} ({', '.join(own)}); "
                "name each once, in that order"
            )
        return {name: place for place, name in enumerate(names)}
    found = {}
    for name, source in wished.items():
        place = own.index(source) if source in own else source
        if place is None and name in own:
            place = own.index(name)
        if type(place) is not int or not 0 <= place < len(own):
            raise invalid_argument(f"output {name}: the model has no output {source!r}; it has {', '.join(own)}")
        found[name] = place
    if not found:
        raise invalid_argument("a signature gives at least one output")
    return found


def check_names(names: Sequence[str], what: str) -> None:
    """Refuse names that clients could not write."""
    for name in names:
        if not name or not name.isprintable() or name != name.strip():
            raise invalid_argument(f"{name!r} cannot name {what}")


def _parsed(name: str, said: str) -> TensorSpec:
    match = _SPEC.fullmatch(said)
    if match is None or match[1] not in DTYPES_BY_NAME:
        raise invalid_argument(
            f"input {name}: {said!r} is no type and shape; expected DTYPE[SIZE,...] such as float32[?,3], "
            f"with a DTYPE of {', '.join(DTYPES_BY_NAME)}"
        )
    if match[2] is None:
        return TensorSpec(name, DTYPES_BY_NAME[match[1]], None)
    sizes: list[int | None] = []
    for word in (part.strip() for part in match[2].split(",") if part.strip()):
        if word.lower() in _FREE:
            sizes.append(None)
        elif word.isdecimal():
            sizes.append(int(word))
        else:
            raise invalid_argument(f"input {name}: {word!r} is no size; expected a number, or ? for a free one")
    return TensorSpec(name, DTYPES_BY_NAME[match[1]], tuple(sizes))


def _kind(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")


def _is_example(said: Any) -> bool:
    """Return whether it has values: what has none states its first size itself."""
    return isinstance(said, np.ndarray) or callable(getattr(said, "numpy", None))


def _sizes(shape: Any) -> Shape | None:
    """Return a framework's shape as ours; TensorFlow's raises ``ValueError`` when its rank is unknown."""
    if shape is None:
        return None
    try:
        return tuple(None if size is None else int(size) for size in shape)
    except ValueError:
        return None
