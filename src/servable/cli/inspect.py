"""``servable inspect``: signatures, and which engine would run it and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from servable.cli import DONE
from servable.cli.tables import print_table
from servable.cli.targets import TARGET_HELP, Served, find_version, load_here, parse_target
from servable.core.errors import ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.engines.base import ENGINES, Artifact, engine_class


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the target and the forms of output."""
    parser.add_argument("target", metavar="TARGET", help=TARGET_HELP)
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="default: the newest")
    parser.add_argument("--engine", metavar="NAME", help="load with this engine instead of the one chosen")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Load or ask, then print."""
    target = parse_target(arguments.target)
    if isinstance(target, Served):
        described, signatures = _ask(target, arguments.model_version)
    else:
        artifact = find_version(target, arguments.model_version)
        described, signatures = _describe(artifact, arguments.engine)
    if arguments.json:
        document = {**described, "signatures": {name: _as_json(found) for name, found in signatures.items()}}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return DONE
    for key, value in described.items():
        if isinstance(value, dict):
            for name, text in value.items():
                sys.stdout.write(f"{key} {name}: {text}\n")
        else:
            sys.stdout.write(f"{key}: {value}\n")
    print_table(("signature", "", "name", "type", "shape", "in the graph"), _rows(signatures))
    return DONE


def _ask(target: Served, version: int | None) -> tuple[dict[str, Any], Mapping[str, Signature]]:
    from servable.client import Client

    with Client(target.url) as client:
        signatures = client.signatures(target.model, version=version)
        versions = {str(status.version): status.state.name for status in client.status(target.model)}
    return {"model": target.model, "server": target.url, "version": versions}, signatures


def _describe(artifact: Artifact, engine: str | None) -> tuple[dict[str, Any], Mapping[str, Signature]]:
    model, choice = load_here(artifact, engine)
    try:
        signatures = dict(model.signatures)
    finally:
        model.close()
    described = {
        "artifact": str(artifact.path),
        "kind": artifact.kind,
        "engine": choice.engine,
        "precision": choice.precision,
        "reason": choice.reason,
        "also": {name: _other(name, artifact) for name in ENGINES if name != choice.engine},
    }
    return described, signatures


def _other(name: str, artifact: Artifact) -> str:
    """Say whether another engine holds the artifact, and if not, what stops it."""
    found = engine_class(name)
    if artifact.kind not in found.kinds:
        return f"does not read {artifact.kind} artifacts"
    if not found.installed():
        return "is not installed"
    try:
        load_here(artifact, name)[0].close()
    except ServingError as error:
        return error.message
    return "holds it"


def _rows(signatures: Mapping[str, Signature]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, signature in signatures.items():
        shown = name
        for kind, specs in (("in", signature.inputs), ("out", signature.outputs)):
            for spec in specs.values():
                rows.append((shown, kind, spec.name, spec.dtype.name, _shape(spec), spec.node))
                shown = ""
    return rows


def _shape(spec: TensorSpec) -> str:
    return "any rank" if spec.shape is None else str(list(spec.shape)).replace("None", "?")


def _as_json(signature: Signature) -> dict[str, Any]:
    return {
        kind: {spec.name: {"dtype": spec.dtype.name, "shape": spec.shape, "node": spec.node} for spec in specs.values()}
        for kind, specs in (("inputs", signature.inputs), ("outputs", signature.outputs))
    }
