"""Are inputs and outputs where they used to be? Compares them with a profile that was learnt before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition, invalid_argument
from servable.core.signatures import Signature
from servable.core.tensors import Array
from servable.forge.check import distribution
from servable.forge.check.examination import Examination
from servable.forge.check.findings import Check, Found, State
from servable.lab.sources import read_json

SUITE = "ranges"
FORMAT: Final = 1

Tensors = dict[str, dict[str, Array]]


def checks(examination: Examination) -> Iterator[Check]:
    """Yield one check for each input and output of each signature."""
    path = examination.options.profile
    if path is None:
        yield Check(SUITE, "inputs and outputs", lambda: Found(State.NONE, "no profile; --learn FILE makes one"))
        return
    document = read_document(path)
    gathered: dict[str, Tensors] = {}
    for signature in examination.signatures():
        learnt = document["signatures"].get(signature.name)
        if learnt is None:
            yield Check(
                SUITE,
                examination.named(signature, "inputs and outputs"),
                lambda: Found(State.NONE, "not in the profile"),
            )
            continue
        for side, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            for name in specs:
                known = learnt.get(side, {}).get(name)

                def look(
                    signature: Signature = signature, side: str = side, name: str = name, known: Any = known
                ) -> Found:
                    if signature.name not in gathered:
                        _refuse_other_data(examination, document, path)
                        gathered[signature.name] = gather(examination, signature)
                    return _compare(f"{path}: {side} {name}", known, gathered[signature.name][side].get(name))

                yield Check(SUITE, examination.named(signature, f"{side.removesuffix('s')} {name}"), look)


def gather(examination: Examination, signature: Signature) -> Tensors:
    """Ask all there is to ask, and return all values that went in and came out."""
    inputs = examination.inputs(signature)
    pairs = [(asked, examination.ask(signature, asked)) for asked in inputs.batches()]
    return {
        "inputs": {name: _joined([asked[name] for asked, _ in pairs if name in asked]) for name in signature.inputs},
        "outputs": {name: _joined([found[name] for _, found in pairs]) for name in signature.outputs},
    }


def learn(examination: Examination) -> dict[str, Any]:
    """Return a profile of what goes in and comes out."""
    signatures: dict[str, Any] = {}
    origins = {}
    for signature in examination.signatures():
        values = gather(examination, signature)
        signatures[signature.name] = {
            side: {
                name: distribution.as_json(distribution.learn(array)) for name, array in arrays.items() if array.size
            }
            for side, arrays in values.items()
        }
        origins[signature.name] = examination.inputs(signature).origin
    return {
        "servable_profile": FORMAT,
        "target": examination.subject.target,
        "data": str(examination.options.data or ""),
        "seed": examination.options.seed,
        "inputs": origins,
        "signatures": signatures,
    }


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a profile; FAILED_PRECONDITION if that cannot be."""
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise failed_precondition(f"cannot write {path}: {error.strerror}") from None


def read_document(path: Path) -> dict[str, Any]:
    """Read a profile; INVALID_ARGUMENT if it is none."""
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("signatures"), dict):
        raise invalid_argument(f"{path} is no profile: servable check --learn FILE makes one")
    if document.get("servable_profile") != FORMAT:
        raise invalid_argument(f"{path} is a profile of format {document.get('servable_profile')}, not of {FORMAT}")
    return document


def _refuse_other_data(examination: Examination, document: Mapping[str, Any], path: Path) -> None:
    if examination.options.data is None and document.get("data"):
        raise invalid_argument(f"{path} was learnt from {document['data']}: made-up inputs are others; give --data")


def _compare(where: str, known: Any, array: Array | None) -> Found:
    if known is None:
        return Found(State.NONE, "not in the profile")
    if array is None or not array.size:
        return Found(State.NONE, "there are no values")
    profile = distribution.read_profile(known, where)
    shift = distribution.shift(profile, array)
    if shift.faults:
        return Found(State.FAIL, "; ".join(shift.faults))
    rows = len(array) if array.ndim else 1
    seen = f"{rows} rows: PSI {shift.psi:.3f} of {shift.psi_limit:.3g}, KS {shift.ks:.3f} of {shift.ks_limit:.3g}"
    return Found(State.PASS, f"{seen}, {100 * shift.outside:.2g} % outside {profile.min:.4g} to {profile.max:.4g}")


def _joined(arrays: list[Array]) -> Array:
    """Join batches by rows; where they have other sizes too (padding, lengths of texts), value by value."""
    if not arrays:
        return np.zeros(0)
    if all(array.ndim and array.shape[1:] == arrays[0].shape[1:] for array in arrays):
        return np.concatenate(arrays)
    return np.concatenate([array.reshape(-1) for array in arrays])
