"""Which shape an input is taken to have: what ``--shape`` says, else what is declared with a batch of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from servable.core.errors import invalid_argument
from servable.core.signatures import Shape, Signature, TensorSpec
from servable.forge.inspection.graph import Bound

_FORM = re.compile(r"(?P<name>.+)=(?P<sizes>\[?\s*\d+(\s*,\s*\d+)*\s*,?\s*\]?|\[\s*\])")


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``tokens=1,50``; INVALID_ARGUMENT says what the form is."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise invalid_argument(f"--shape {text}: expected NAME=SIZE,SIZE, like tokens=1,50")
    sizes = found["sizes"].strip("[] ,")
    return found["name"], tuple(int(size) for size in sizes.split(",")) if sizes else ()


def assumed_shape(spec: TensorSpec, bound: Bound) -> Shape | None:
    """Return the shape that an input is taken to have; its first dimension, if free, is the batch and one.

    INVALID_ARGUMENT if the shape asked for is not one of those that the input may have.
    """
    asked = bound.get(spec.name)
    if asked is None:
        if spec.shape is None:
            return None
        return tuple(1 if size is None and axis == 0 else size for axis, size in enumerate(spec.shape))
    declared = spec.shape
    if declared is not None and (
        len(declared) != len(asked)
        or any(size is not None and size != given for size, given in zip(declared, asked, strict=True))
    ):
        raise invalid_argument(f"--shape {spec.name}={','.join(map(str, asked))} does not fit {spec.name}: {spec}")
    return asked


def check_names(bound: Bound, signatures: Mapping[str, Signature]) -> None:
    """INVALID_ARGUMENT if a shape is given for an input that no signature has."""
    known = sorted({name for signature in signatures.values() for name in signature.inputs})
    for name in bound:
        if name not in known:
            raise invalid_argument(f"--shape {name}=...: there is no input {name!r}; there are {', '.join(known)}")


def notes(specs: Iterable[TensorSpec], bound: Bound) -> list[str]:
    """Say what was assumed of these inputs, and what could not be."""
    said: list[str] = []
    for spec in specs:
        shape = assumed_shape(spec, bound)
        if shape is None:
            said.append(f"{spec.name} has no known rank: give --shape {spec.name}=...")
        elif None in shape:
            free = ", ".join(str(axis) for axis, size in enumerate(shape) if size is None)
            example = ",".join("?" if size is None else str(size) for size in shape)
            said.append(f"{spec.name} is free in dimension {free}: give --shape {spec.name}={example}")
        elif spec.shape is not None and spec.shape != shape:
            how = "asked for" if spec.name in bound else "a batch of one"
            said.append(f"{spec.name} is taken as {list(shape)} ({how}); declared is {spec}")
    return list(dict.fromkeys(said))
