"""What was read and counted, as rows for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from servable.core.signatures import Shape, Signature, TensorSpec
from servable.forge.inspection.costs import Cost, Counted, count, total
from servable.forge.inspection.graph import Graph, Inspection, Parameter


@dataclass
class TypeRow:
    """All operations of one type: how many stand in the graph, what they cost, how many of them are not counted."""

    type: str
    count: int = 0
    cost: Cost = field(default_factory=Cost)
    uncounted: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """One signature's operations. ``cost`` is a lower bound if some are not counted."""

    counted: Sequence[Counted]
    types: Sequence[TypeRow]
    cost: Cost
    uncounted: int
    loops: Sequence[str]

    @property
    def is_whole(self) -> bool:
        """Whether every operation is counted."""
        return not self.uncounted


def summarize(graph: Graph) -> Summary:
    """Count a graph; the types with the most arithmetic come first."""
    counted = count(graph)
    rows: dict[str, TypeRow] = {}
    for found in counted:
        row = rows.setdefault(found.node.type, TypeRow(found.node.type))
        row.count += 1
        if found.cost is None:
            row.uncounted += 1
            row.reason = row.reason or found.reason
        else:
            row.cost += found.cost
    types = sorted(rows.values(), key=lambda row: (-row.cost.flops, -row.cost.bytes, -row.count, row.type))
    return Summary(counted, types, total(counted), sum(row.uncounted for row in types), list(_loops(counted)))


def _loops(counted: Iterable[Counted]) -> Iterable[str]:
    for found in counted:
        for body in found.node.bodies:
            if body.role in ("cond", "layers"):
                continue
            name = f"{found.scope}{found.node.name}"
            runs = "nobody knows how often" if body.runs is None else f"{body.runs} times"
            yield f"{found.node.type} {name} runs its {body.role} {runs}"


def by_dtype(parameters: Iterable[Parameter]) -> dict[str, tuple[int, int, int]]:
    """Return for each element type: how many parameters, how many numbers they have, how many bytes."""
    found: dict[str, tuple[int, int, int]] = {}
    for parameter in parameters:
        tensors, numbers, size = found.get(parameter.dtype, (0, 0, 0))
        found[parameter.dtype] = (tensors + 1, numbers + parameter.count, size + parameter.size_bytes)
    return dict(sorted(found.items(), key=lambda entry: -entry[1][2]))


def as_json(inspection: Inspection, summaries: Mapping[str, Summary], *, operations: bool) -> dict[str, Any]:
    """Return all of it as JSON; single operations only where asked for, there may be thousands."""
    parameters = inspection.parameters().values()
    return {
        "file": dict(inspection.facts),
        "notes": list(inspection.notes),
        "parameters": {
            "tensors": len(parameters),
            "count": sum(parameter.count for parameter in parameters),
            "bytes": sum(parameter.size_bytes for parameter in parameters),
            "by_dtype": {
                dtype: {"tensors": tensors, "count": numbers, "bytes": size}
                for dtype, (tensors, numbers, size) in by_dtype(parameters).items()
            },
        },
        "graphs": {name: _graph_json(summary, operations=operations) for name, summary in summaries.items()},
    }


def _graph_json(summary: Summary, *, operations: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "operations": len(summary.counted),
        **_cost_json(summary.cost),
        "uncounted": summary.uncounted,
        "loops": list(summary.loops),
        "types": [
            {"type": row.type, "count": row.count, **_cost_json(row.cost), "uncounted": row.uncounted,
             **({"reason": row.reason} if row.reason else {})}
            for row in summary.types
        ],
    }  # fmt: skip
    if operations:
        document["nodes"] = [_node_json(found) for found in summary.counted]
    return document


def _cost_json(cost: Cost) -> dict[str, int]:
    return {"flops": cost.flops, "multiply_adds": cost.multiply_adds, "bytes": cost.bytes}


def _node_json(found: Counted) -> dict[str, Any]:
    outputs = [output for output in found.node.outputs if output]
    document: dict[str, Any] = {
        "name": found.scope + found.node.name,
        "type": found.node.type,
        "inputs": list(found.node.inputs),
        "outputs": [{"name": name, **_tensor_json(found.graph, name)} for name in outputs],
        "attributes": dict(found.node.attributes),
        "runs": found.runs,
    }
    return document | (_cost_json(found.cost) if found.cost is not None else {"uncounted": found.reason})


def _tensor_json(graph: Graph, name: str) -> dict[str, Any]:
    spec = graph.spec(name)
    return {"dtype": "unknown", "shape": None} if spec is None else {"dtype": spec.dtype.name, "shape": spec.shape}


def signature_json(signature: Signature) -> dict[str, Any]:
    """Return a signature as JSON."""
    return {
        kind: {spec.name: _spec_json(spec) for spec in specs.values()}
        for kind, specs in (("inputs", signature.inputs), ("outputs", signature.outputs))
    }


def _spec_json(spec: TensorSpec) -> dict[str, Any]:
    """Return a tensor as JSON; ``scale`` is there where integers stand for ``(q - zero) * step``."""
    scale = {} if spec.scale is None else {"scale": {"step": spec.scale.step, "zero": spec.scale.zero}}
    return {"dtype": spec.dtype.name, "shape": spec.shape, "node": spec.node, **scale}


def shape_text(shape: Shape | None) -> str:
    """Write a shape: ``[?, 50]``."""
    return "any rank" if shape is None else str(list(shape)).replace("None", "?")


def same_operations(summaries: Mapping[str, Summary]) -> dict[str, str]:
    """Return the signatures that compute just what an earlier one does, with the name of that one."""
    seen: dict[str, str] = {}
    same: dict[str, str] = {}
    for name, summary in summaries.items():
        key = json.dumps(_graph_json(summary, operations=False) | {"loops": []}, sort_keys=True)
        if key in seen:
            same[name] = seen[key]
        seen.setdefault(key, name)
    return same
