"""Fits the signatures that a ``servable.toml`` states to the tensors that its artifact has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from servable.core.errors import failed_precondition, unimplemented
from servable.core.signatures import Shape, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME
from servable.engines.signature_settings import read_signature_settings


@dataclass(frozen=True, slots=True)
class Fitted:
    """A signature as it is served, and the artifact's own name for each of its tensors.

    ``own`` is the artifact's signature that computes it.
    """

    signature: Signature
    own: Signature
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def fitted(own: Mapping[str, Signature], settings: Path | None, *, free_rows: bool = False) -> dict[str, Fitted]:
    """Return the signatures to serve: those that the settings state, else the artifact's own.

    A tensor is found by its ``node``, which is its name if it states none; or, if that finds none of them and there are
    as many, by order. ``free_rows`` lets settings free a first dimension that the artifact fixes. FAILED_PRECONDITION
    names the file and the key that does not fit.
    """
    stated = {} if settings is None else read_signature_settings(settings)
    if settings is None or not stated:
        return {name: _as_it_is(signature) for name, signature in own.items()}
    found = {}
    for name, signature in stated.items():
        where = f"{settings}: signatures.{name}"
        found[name] = _fit(signature, _computing(name, own, where), where, free_rows=free_rows)
    return found


def check_servable(fits: Mapping[str, Fitted], path: Path) -> None:
    """Raise UNIMPLEMENTED if a tensor is of a type that none of ours holds (a resource, 2-bit integers)."""
    for fit in fits.values():
        for spec in (*fit.signature.inputs.values(), *fit.signature.outputs.values()):
            if spec.dtype.name not in DTYPES_BY_NAME:
                raise unimplemented(
                    f"{path}: {spec.name!r} of signature {fit.signature.name!r} is of type {spec.dtype}, which is no "
                    "tensor that can be served"
                )


def check_like(stated: TensorSpec, own: TensorSpec, where: str, *, free_rows: bool = False) -> None:
    """Raise FAILED_PRECONDITION if what is stated of a tensor is not so."""
    if stated.dtype != own.dtype:
        raise failed_precondition(f"{where}.dtype: the artifact has {own.dtype}, not {stated.dtype}")
    if not _narrows(stated.shape, own.shape, free_rows=free_rows):
        raise failed_precondition(f"{where}.shape: the artifact has {own}, which {stated} is not")


def _as_it_is(signature: Signature) -> Fitted:
    return Fitted(
        signature,
        signature,
        MappingProxyType({name: name for name in signature.inputs}),
        MappingProxyType({name: name for name in signature.outputs}),
    )


def _computing(name: str, own: Mapping[str, Signature], where: str) -> Signature:
    if name in own:
        return own[name]
    if len(own) == 1:
        return next(iter(own.values()))
    raise failed_precondition(f"{where}: the artifact has no signature of this name; it has {', '.join(own)}")


def _fit(stated: Signature, own: Signature, where: str, *, free_rows: bool) -> Fitted:
    inputs = match(stated.inputs, own.inputs, f"{where}.inputs", "input")
    outputs = match(stated.outputs, own.outputs, f"{where}.outputs", "output")
    lacking = sorted(own.inputs.keys() - set(inputs.values()))
    if lacking:
        raise failed_precondition(f"{where}.inputs: the artifact's input {lacking[0]!r} is missing")
    for role, named, specs, theirs in (
        ("inputs", inputs, stated.inputs, own.inputs),
        ("outputs", outputs, stated.outputs, own.outputs),
    ):
        for name, own_name in named.items():
            check_like(specs[name], theirs[own_name], f"{where}.{role}.{name}", free_rows=free_rows)
    served = replace(
        stated,
        inputs={name: _completed(spec, own.inputs[inputs[name]]) for name, spec in stated.inputs.items()},
        outputs={name: _completed(spec, own.outputs[outputs[name]]) for name, spec in stated.outputs.items()},
    )
    return Fitted(served, own, inputs, outputs)


def _completed(stated: TensorSpec, own: TensorSpec) -> TensorSpec:
    return replace(stated, node=own.node, scale=own.scale)


def match(stated: Mapping[str, TensorSpec], own: Mapping[str, TensorSpec], where: str, what: str) -> Mapping[str, str]:
    """Return for each tensor that is stated the artifact's own name."""
    by_node = {spec.node: name for name, spec in own.items()} | {name: name for name in own}
    found = {name: by_node[spec.node] for name, spec in stated.items() if spec.node in by_node}
    if not found and len(stated) == len(own) and all(spec.node == name for name, spec in stated.items()):
        return dict(zip(stated, own, strict=True))
    for name, spec in stated.items():
        if name not in found:
            raise failed_precondition(
                f"{where}.{name}.node: the artifact has no {what} {spec.node!r}; it has {', '.join(own)}"
            )
    return found


def _narrows(stated: Shape | None, own: Shape | None, *, free_rows: bool) -> bool:
    if own is None or stated == own:
        return True
    if stated is None or len(stated) != len(own):
        return False
    return all(
        wide is None or wide == size or (free_rows and place == 0 and size is None)
        for place, (size, wide) in enumerate(zip(stated, own, strict=True))
    )
