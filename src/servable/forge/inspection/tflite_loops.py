"""How often a loop of a TFLite file runs, where its counter, its step and its bound are constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

from servable.core.tensors import Array
from servable.forge.inspection.graph import Graph, Node


def trips(head: Graph, body: Graph, starts: Sequence[Array | None]) -> int | None:
    """Return how often the body runs; ``None`` where that cannot be told."""
    makers = {output: node for node in head.nodes for output in node.outputs}
    waiting, counts = list(head.outputs), []
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.type == "LOGICAL_AND":
            waiting += list(node.inputs)
        else:
            counts.append(None if node is None else _until(node, head, body, starts))
    known = [count for count in counts if count is not None]
    return min(known) if known and len(known) == len(counts) else None


def _until(node: Node, head: Graph, body: Graph, starts: Sequence[Array | None]) -> int | None:
    if node.type not in ("LESS", "LESS_EQUAL"):
        return None
    counter, limit = node.inputs[:2]
    if counter not in head.inputs:
        return None
    place = head.inputs.index(counter)
    start, step = _number(starts[place]), _step(body, place)
    if limit in head.inputs:
        other = head.inputs.index(limit)
        bound = _number(starts[other]) if body.outputs[other] == body.inputs[other] else None
    else:
        bound = _number(head.values.get(limit))
    if start is None or step is None or bound is None or step <= 0:
        return None
    return max(0, math.ceil((bound - start + (node.type == "LESS_EQUAL")) / step))


def _step(body: Graph, place: int) -> int | None:
    node = next((node for node in body.nodes if body.outputs[place] in node.outputs), None)
    if node is None or node.type != "ADD":
        return None
    for counter, other in (node.inputs[:2], node.inputs[1::-1]):
        if counter == body.inputs[place]:
            return _number(body.values.get(other))
    return None


def _number(value: Array | None) -> int | None:
    return int(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.dtype.kind in "iu" else None
