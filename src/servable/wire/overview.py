"""Our own description of a whole server as JSON: every model, version, state, engine and signature.

TensorFlow Serving's status names neither the engine nor why it was chosen; ``servable status`` and the dashboard do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from servable.core.errors import Code, ServingError, internal
from servable.core.signatures import Shape, Signature, TensorSpec
from servable.core.status import VersionState, VersionStatus
from servable.core.tensors import dtype_named

PATH = "/servable/status"


@dataclass(frozen=True, slots=True)
class VersionOverview:
    """One version: its status, and its signatures while it is loaded."""

    status: VersionStatus
    signatures: Mapping[str, Signature]


Overview = Mapping[str, Sequence[VersionOverview]]
"""Model name -> versions, newest first."""


def encode_overview(overview: Overview) -> bytes:
    """Return the document."""
    models = [
        {"name": name, "versions": [_version(version) for version in versions]} for name, versions in overview.items()
    ]
    return orjson.dumps({"models": models}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode_overview(document: bytes) -> dict[str, list[VersionOverview]]:
    """Read the document back; INTERNAL if it is something else."""
    try:
        models = orjson.loads(document)["models"]
        return {model["name"]: [_read_version(version) for version in model["versions"]] for model in models}
    except (KeyError, TypeError, ValueError) as error:
        raise internal(f"this is no server overview: {error}") from None


def _version(version: VersionOverview) -> dict[str, Any]:
    status = version.status
    error = status.error
    return {
        "version": status.version,
        "state": status.state.name,
        "error": None if error is None else {"code": error.code.name, "message": error.message},
        "engine": status.engine,
        "precision": status.precision,
        "reason": status.reason,
        "signatures": [
            {"name": name, "inputs": _specs(signature.inputs), "outputs": _specs(signature.outputs)}
            for name, signature in version.signatures.items()
        ],
    }


def _specs(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": spec.dtype.name, "shape": spec.shape} for name, spec in specs.items()]


def _read_version(version: Mapping[str, Any]) -> VersionOverview:
    error = version["error"]
    status = VersionStatus(
        version["version"],
        VersionState[version["state"]],
        None if error is None else ServingError(Code[error["code"]], error["message"]),
        version["engine"],
        version["precision"],
        version["reason"],
    )
    signatures = {
        found["name"]: Signature(found["name"], _read_specs(found["inputs"]), _read_specs(found["outputs"]))
        for found in version["signatures"]
    }
    return VersionOverview(status, signatures)


def _read_specs(specs: Sequence[Mapping[str, Any]]) -> dict[str, TensorSpec]:
    return {spec["name"]: TensorSpec(spec["name"], dtype_named(spec["dtype"]), _shape(spec)) for spec in specs}


def _shape(spec: Mapping[str, Any]) -> Shape | None:
    return None if spec["shape"] is None else tuple(spec["shape"])
