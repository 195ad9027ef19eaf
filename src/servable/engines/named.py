"""Names of signatures for formats that have none: ONNX and OpenVINO hold one signature, by no name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from servable.core.errors import ServingError, failed_precondition
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import Array
from servable.engines.added import Compute, ExtendedModel
from servable.engines.base import Model
from servable.engines.fitting import match
from servable.engines.signature_settings import read_signature_settings

KINDS: Final = frozenset({"onnx", "openvino"})
"""Kinds of artifact whose one signature may have further names in ``[signatures]`` of a ``servable.toml``."""


class NamedSignature:
    """The one signature under another name, its tensors perhaps too. Types and shapes are the artifact's."""

    def __init__(self, stated: Signature, own: Signature, where: str) -> None:
        self._own = own.name
        self._inputs = match(stated.inputs, own.inputs, f"{where}.inputs", "input")
        self._outputs = match(stated.outputs, own.outputs, f"{where}.outputs", "output")
        lacking = sorted(own.inputs.keys() - set(self._inputs.values()))
        if lacking:
            raise failed_precondition(f"{where}.inputs: the artifact's input {lacking[0]!r} is missing")
        inputs = {name: replace(own.inputs[theirs], name=name) for name, theirs in self._inputs.items()}
        outputs = {name: replace(own.outputs[theirs], name=name) for name, theirs in self._outputs.items()}
        for role, mine, said in (("inputs", inputs, stated.inputs), ("outputs", outputs, stated.outputs)):
            for name, spec in mine.items():
                if said[name].dtype != spec.dtype:
                    raise failed_precondition(
                        f"{where}.{role}.{name}.dtype: the artifact has {spec.dtype}, not {said[name].dtype}"
                    )
        self.signature = Signature(stated.name, inputs, outputs, stated.method_name)

    def run(self, compute: Compute, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute under the artifact's own names."""
        given = {self._inputs[name]: array for name, array in inputs.items()}
        found = compute(self._own, given, [self._outputs[name] for name in outputs])
        return {name: found[self._outputs[name]] for name in outputs}


def with_names(model: Model, path: Path) -> Model:
    """Return the model with the names that its ``servable.toml`` gives; it is closed if that does not fit."""
    try:
        own = model.signatures.get(DEFAULT_SIGNATURE)
        added = {
            name: NamedSignature(stated, own, f"{path}: signatures.{name}")
            for name, stated in read_signature_settings(path).items()
            if own is not None and name not in model.signatures
        }
    except ServingError:
        model.close()
        raise
    return ExtendedModel(model, added) if added else model
