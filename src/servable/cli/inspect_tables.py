"""What ``servable inspect`` prints for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from servable.cli.tables import print_table
from servable.core.signatures import Signature
from servable.core.tensors import DTYPES_BY_NAME
from servable.forge.inspection.graph import Inspection
from servable.forge.inspection.summary import Summary, by_dtype, same_operations, shape_text
from servable.report.units import BYTES, Step, Unit, quantity

_TIMES = Unit((Step(1.0, ""), Step(1e3, "k"), Step(1e6, "M"), Step(1e9, "G"), Step(1e12, "T")))
_NAMES_SHOWN = 3


def print_described(described: Mapping[str, Any]) -> None:
    """Print names with values, one a line."""
    for key, value in described.items():
        if isinstance(value, dict):
            for name, text in value.items():
                sys.stdout.write(f"{key} {name}: {text}\n")
        else:
            sys.stdout.write(f"{key}: {'none' if value is None else value}\n")


def print_signatures(signatures: Mapping[str, Signature]) -> None:
    """Print the inputs and outputs of every signature."""
    rows: list[tuple[str, ...]] = []
    for name, signature in signatures.items():
        if any(spec.dtype.name not in DTYPES_BY_NAME for spec in signature.outputs.values()):
            continue  # what initializes a SavedModel: nobody calls it
        shown = name
        for kind, specs in (("in", signature.inputs), ("out", signature.outputs)):
            for spec in specs.values():
                made = spec.dtype.name if spec.scale is None else f"{spec.dtype.name} of {spec.scale}"
                rows.append((shown, kind, spec.name, made, shape_text(spec.shape), spec.node))
                shown = ""
    print_table(("signature", "", "name", "type", "shape", "in the graph"), rows)


def print_counts(inspection: Inspection, summaries: Mapping[str, Summary]) -> None:
    """Print facts, parameters by type, and the operations of each signature by type with what they cost."""
    for key, value in inspection.facts.items():
        sys.stdout.write(f"{key}: {value}\n")
    for note in inspection.notes:
        sys.stdout.write(f"note: {note}\n")
    _print_parameters(inspection)
    same = same_operations(summaries)
    for name, summary in summaries.items():
        if name in same:
            sys.stdout.write(f"{name} computes what {same[name]} does\n")
        else:
            _print_types(name, summary)


def _print_parameters(inspection: Inspection) -> None:
    parameters = inspection.parameters().values()
    rows = [
        (dtype, f"{tensors:,}", f"{numbers:,}", quantity(size, BYTES))
        for dtype, (tensors, numbers, size) in by_dtype(parameters).items()
    ]
    if not rows:
        sys.stdout.write("parameters: none\n")
        return
    if len(rows) > 1:
        numbers, size = sum(p.count for p in parameters), sum(p.size_bytes for p in parameters)
        rows.append(("all", f"{len(parameters):,}", f"{numbers:,}", quantity(size, BYTES)))
    print_table(("parameters", "tensors", "numbers", "bytes"), rows)


def _print_types(name: str, summary: Summary) -> None:
    rows = [
        (
            row.type,
            f"{row.count:,}",
            quantity(row.cost.flops, _TIMES),
            quantity(row.cost.multiply_adds, _TIMES),
            quantity(row.cost.bytes, BYTES),
            f"{row.uncounted} unknown: {row.reason}" if row.uncounted else "",
        )
        for row in summary.types
    ]
    cost = summary.cost
    least = "" if summary.is_whole else "at least "
    rows.append(
        (
            "all",
            f"{len(summary.counted):,}",
            least + quantity(cost.flops, _TIMES),
            least + quantity(cost.multiply_adds, _TIMES),
            least + quantity(cost.bytes, BYTES),
            f"{summary.uncounted} unknown" if summary.uncounted else "",
        )
    )
    print_table((f"{name}: operations", "count", "FLOPs", "multiply-adds", "bytes moved", ""), rows)
    for line in summary.loops:
        sys.stdout.write(f"note: {line}\n")


def print_operations(summaries: Mapping[str, Summary]) -> None:
    """Print every operation of every signature that computes something of its own."""
    same = same_operations(summaries)
    for name, summary in summaries.items():
        if name in same:
            continue
        rows = []
        for found in summary.counted:
            spec = found.graph.spec(found.node.outputs[0]) if found.node.outputs else None
            made = "" if spec is None else f"{spec.dtype} {shape_text(spec.shape)}"
            cost = found.cost
            rows.append(
                (
                    found.scope + found.node.name,
                    found.node.type,
                    _listed(found.node.inputs),
                    made,
                    "unknown" if cost is None else quantity(cost.flops, _TIMES),
                    "unknown" if cost is None else quantity(cost.bytes, BYTES),
                )
            )
        print_table((f"{name}: operation", "type", "inputs", "gives", "FLOPs", "bytes"), rows)


def _listed(names: tuple[str, ...]) -> str:
    given = [name for name in names if name]
    more = len(given) - _NAMES_SHOWN
    return ", ".join(given[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
