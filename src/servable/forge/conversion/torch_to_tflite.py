"""Torch programs to TFLite, by litert-torch in an environment of its own. It wants all sizes fixed.

The number of rows becomes one that a person chooses; ``servable.toml`` then frees it, in blocks of that many.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from servable.core.errors import failed_precondition
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.signature_settings import write_signature_settings
from servable.forge.conversion import converters
from servable.forge.steps import Facts, Task

LITERT_TORCH: Final = "litert-torch"
_CONVERT: Final = "servable.forge.conversion.within_litert_torch:convert"


def check_ready(what: str) -> None:
    """Refuse before anything is done if the converter is not installed, in one line that says how it is."""
    hint = converters.missing(LITERT_TORCH)
    if hint:
        raise failed_precondition(f"{what} to tflite: {hint}")


def rows_of(task: Task) -> int:
    """Return how many rows a call of the converted model computes: one, unless ``--batch`` says otherwise."""
    return int(task.options.get("batch") or 1)


def sizes(what: str, spec: TensorSpec, rows: int) -> tuple[int, ...]:
    """Return an input's shape with that many rows; FAILED_PRECONDITION if another size is free."""
    if spec.shape is None or None in spec.shape[1:]:
        raise failed_precondition(
            f"{what} to tflite: input {spec} has free sizes beside its rows, which litert-torch does not convert: "
            "fix them, from code with --inputs NAME=TYPE[SHAPE]"
        )
    return tuple(rows if size is None else size for size in spec.shape)


def write(
    program: Any,
    inputs: Sequence[str],
    signature: Signature,
    rows: int,
    target: Path,
    task: Task,
    others: Mapping[str, Signature] = MappingProxyType({}),
) -> Facts:
    """Write ``model.tflite`` of an exported program that computes ``rows`` rows, and its signature beside it.

    ``inputs`` are its arguments' names, in order; it returns a dict. ``signature`` is the source's, with its rows free
    where they are to be; ``others`` are further names of it.
    """
    torch: Any = importlib.import_module("torch")
    file, settings = target / "model.tflite", target / SETTINGS_FILE
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        saved = Path(folder, "program.pt2")
        torch.export.save(program, saved)
        order = {"program": str(saved), "target": str(file), "signature": signature.name, "inputs": list(inputs)}
        converters.run_in(LITERT_TORCH, _CONVERT, order, task.report)
    free = any(spec.shape and spec.shape[0] is None for spec in signature.inputs.values())
    # The name of a signature is kept; that it is the default one as well, as in any other form.
    names = dict.fromkeys((signature.name, DEFAULT_SIGNATURE))
    stated = {name: replace(signature, name=name) for name in names} | dict(others)
    if free or len(stated) > 1:
        write_signature_settings(settings, stated)
    elif settings.is_file():
        write_signature_settings(settings, {})  # what came along says nothing that the file does not
    notes = [f"takes any number of rows, in blocks of {rows} (--batch N; {SETTINGS_FILE})"] if free else []
    return {"bytes": file.stat().st_size} | ({"notes": notes} if notes else {})


def freed(specs: Mapping[str, TensorSpec], free: bool) -> dict[str, TensorSpec]:
    """Return tensors with their first size free, or as they are."""
    return {
        name: replace(spec, shape=(None, *spec.shape[1:])) if free and spec.shape else spec
        for name, spec in specs.items()
    }
