"""``servable inspect``: signatures, parameters, operations and their cost, and which engine would run it and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servable.cli import DONE
from servable.cli.inspect_tables import print_counts, print_described, print_operations, print_signatures
from servable.cli.targets import TARGET_HELP, Served, find_version, load_here, parse_target
from servable.core.errors import ServingError, invalid_argument
from servable.core.signatures import Signature
from servable.engines.base import ENGINES, Artifact, engine_class
from servable.forge.inspection.assumed import parse_shape
from servable.forge.inspection.formats import READERS, artifact_at, inspect
from servable.forge.inspection.graph import Inspection
from servable.forge.inspection.summary import as_json, signature_json, summarize

_KINDS_WITHOUT_ENGINE = {"keras": "servable export makes an artifact of it that engines load"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the target and the forms of output."""
    parser.add_argument("target", metavar="TARGET", help=f"{TARGET_HELP}; also a .keras, .h5, .pb or .pbtxt file")
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="default: the newest")
    parser.add_argument("--engine", metavar="NAME", help="load with this engine instead of the one chosen")
    parser.add_argument("--no-engines", action="store_true", help="only read the files: load nothing, run nothing")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=SIZES",
        help="the shape to count an input with, like tokens=1,50; without it a free first dimension is one",
    )
    parser.add_argument("--ops", action="store_true", help="list every operation")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tensorboard", type=Path, metavar="LOGDIR", help="write the graph for TensorBoard")
    parser.add_argument("--text", type=Path, metavar="FILE", help="write the graph as text to read: FILE.pbtxt")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the graph as a page to zoom in")


def run(arguments: argparse.Namespace) -> int:
    """Load or ask, then print."""
    target = parse_target(arguments.target)
    if isinstance(target, Served):
        _refuse_local_options(arguments)
        described, signatures = _ask(target, arguments.model_version)
        inspection = None
    else:
        artifact = _find(target, arguments.model_version)
        inspection = _read(artifact, arguments)
        described, signatures = _describe(artifact, inspection, arguments)
    if inspection is not None:
        described |= _pictures(inspection, arguments)
    summaries = {} if inspection is None else {name: summarize(graph) for name, graph in inspection.graphs.items()}
    if arguments.json:
        counts = {} if inspection is None else as_json(inspection, summaries, operations=arguments.ops)
        named = {name: signature_json(found) for name, found in signatures.items()}
        sys.stdout.write(json.dumps({**described, "signatures": named, **counts}, indent=2) + "\n")
        return DONE
    print_described(described)
    print_signatures(signatures)
    if inspection is not None:
        print_counts(inspection, summaries)
        if arguments.ops:
            print_operations(summaries)
    return DONE


def _refuse_local_options(arguments: argparse.Namespace) -> None:
    for name in ("ops", "tensorboard", "text", "html", "shape"):
        if getattr(arguments, name):
            raise invalid_argument(f"--{name} needs the artifact: a server tells its signatures only")


def _find(path: Path, version: int | None) -> Artifact:
    """Return the artifact at a path, of those kinds too that no engine loads."""
    here = artifact_at(path)
    try:
        return find_version(path, version)
    except ServingError:
        if here is None:
            raise
        return here


def _read(artifact: Artifact, arguments: argparse.Namespace) -> Inspection | None:
    if artifact.kind in READERS:
        return inspect(artifact, dict(parse_shape(text) for text in arguments.shape))
    for name in ("ops", "tensorboard", "text", "html", "shape"):
        if getattr(arguments, name):
            raise invalid_argument(f"--{name}: {artifact.path} is {artifact.kind}, which has no graph to read")
    return None


def _pictures(inspection: Inspection, arguments: argparse.Namespace) -> dict[str, str]:
    """Write what was asked for; say where it is."""
    written = {}
    if arguments.tensorboard is not None:
        from servable.forge.inspection.tensorboard import write_events

        written["tensorboard"] = str(write_events(inspection, arguments.tensorboard))
    if arguments.text is not None:
        from servable.forge.inspection.as_text import write_text

        written["text"] = str(write_text(inspection, arguments.text))
    if arguments.html is not None:
        from servable.forge.inspection.page import write_page

        written["html"] = str(write_page(inspection, arguments.html))
    return written


def _ask(target: Served, version: int | None) -> tuple[dict[str, Any], Mapping[str, Signature]]:
    from servable.client import Client

    with Client(target.url) as client:
        signatures = client.signatures(target.model, version=version)
        versions = {str(status.version): status.state.name for status in client.status(target.model)}
    return {"model": target.model, "server": target.url, "version": versions}, signatures


def _describe(
    artifact: Artifact, inspection: Inspection | None, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Mapping[str, Signature]]:
    described: dict[str, Any] = {"artifact": str(artifact.path), "kind": artifact.kind}
    without = _KINDS_WITHOUT_ENGINE.get(artifact.kind)
    if inspection is not None and (arguments.no_engines or without is not None):
        reason = "none was tried" if arguments.no_engines else without
        return {**described, "engine": None, "reason": reason}, inspection.signatures
    try:
        model, choice = load_here(artifact, arguments.engine)
    except ServingError as error:
        if inspection is None or arguments.engine is not None:
            raise
        also = {name: _other(name, artifact) for name in ENGINES}
        return {**described, "engine": None, "reason": error.message, "also": also}, inspection.signatures
    try:
        signatures = dict(model.signatures)
    finally:
        model.close()
    described |= {
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
