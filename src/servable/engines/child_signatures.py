"""Signatures on their way from child to parent: as messages, their default values in shared memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from servable.core.signatures import Scale, Signature, TensorSpec
from servable.core.tensors import DType, dtype_named
from servable.engines.child_memory import Arena
from servable.engines.child_messages import SignatureForm, SpecForm


def describe(signatures: Mapping[str, Signature], arena: Arena) -> list[SignatureForm]:
    """Return the signatures as messages; their defaults are put into the arena."""
    places = iter(
        arena.put(
            (f"{signature.name}/{name}", value)
            for signature in signatures.values()
            for name, value in signature.defaults.items()
        )
    )
    return [
        SignatureForm(
            signature.name,
            _forms(signature.inputs),
            _forms(signature.outputs),
            signature.method_name,
            [next(places) for _ in signature.defaults],
            signature.streamed,
        )
        for signature in signatures.values()
    ]


def restore(forms: Iterable[SignatureForm], arena: Arena, memory: int) -> dict[str, Signature]:
    """Return the signatures that were described; ``memory`` is the size of the arena that holds the defaults."""
    forms = list(forms)
    values = arena.take([place for form in forms for place in form.defaults], memory)
    return {
        form.name: Signature(
            form.name,
            _specs(form.inputs),
            _specs(form.outputs),
            form.method_name,
            {place.name.removeprefix(f"{form.name}/"): values[place.name] for place in form.defaults},
            form.streamed,
        )
        for form in forms
    }


def _forms(specs: Mapping[str, TensorSpec]) -> list[SpecForm]:
    return [SpecForm(name, spec.dtype.name, spec.shape, spec.node, _scale_form(spec)) for name, spec in specs.items()]


def _scale_form(spec: TensorSpec) -> tuple[float, int] | None:
    return None if spec.scale is None else (spec.scale.step, spec.scale.zero)


def _specs(forms: Iterable[SpecForm]) -> dict[str, TensorSpec]:
    return {
        form.name: TensorSpec(
            form.name, _dtype(form.dtype), form.shape, form.node, None if form.scale is None else Scale(*form.scale)
        )
        for form in forms
    }


def _dtype(name: str) -> DType:
    """Return the element type; one that no tensor has (a resource) is known by its name alone."""
    return dtype_named(name)
