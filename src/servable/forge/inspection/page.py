"""A graph as one HTML page to zoom in: it needs nothing but itself, and may ask for nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from servable.core.errors import failed_precondition
from servable.forge.inspection.costs import Cost, Counted
from servable.forge.inspection.graph import Graph, Inspection
from servable.forge.inspection.grouping import Box, boxes
from servable.forge.inspection.summary import same_operations, shape_text, summarize
from servable.report.markup import clean

_USUAL = frozenset({"model.onnx", "model.xml", "model.tflite", "model.pt2", "model.pt", "graph.pb", "model.savedmodel"})
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title><style>{css}</style></head>
<body>
<header><h1>{title}</h1><p id="facts"></p></header>
<div id="tools" role="toolbar" aria-label="Graph">
<select id="graphs" aria-label="Signature" hidden></select>
<input id="search" type="search" placeholder="Find an operation" aria-label="Find an operation" autocomplete="off">
<button type="button" id="closer" aria-label="Zoom in">+</button>
<button type="button" id="farther" aria-label="Zoom out">&minus;</button>
<button type="button" id="fit">Fit</button>
<button type="button" id="open">Open all</button>
<button type="button" id="close">Close all</button>
<button type="button" id="theme">Dark</button>
</div>
<ul id="found" hidden></ul>
<main><svg id="drawing" role="application" tabindex="0" aria-label="The graph: drag to move, scroll or pinch to zoom">
<g id="view"></g></svg>
<aside id="about" hidden aria-live="polite"></aside></main>
<ul id="legend"><li class="computes">multiplies</li><li class="figures">other arithmetic</li>
<li class="moves">moves bytes</li><li class="looks">looks at them otherwise</li>
<li class="unknown">not counted</li></ul>
<noscript>This page draws with its own script.</noscript>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body></html>
"""


def write_page(inspection: Inspection, path: Path) -> Path:
    """Write the page and return its path; FAILED_PRECONDITION if it cannot be written."""
    text = page(inspection)
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise failed_precondition(f"{path} cannot be written: {error.strerror}") from error
    return path


def page(inspection: Inspection) -> str:
    """Return the page. Equal artifacts give equal bytes."""
    css, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(script)}'"
    data = json.dumps(_data(inspection), ensure_ascii=False, separators=(",", ":"))
    return _PAGE.format(
        policy=policy,
        title=html.escape(clean(_title(inspection.path))),
        css=css,
        script=script,
        data=clean(data).replace("<", "\\u003c"),
    )


def _title(path: Path) -> str:
    """Return the name of a file, with that of the model before that of a version."""
    whole = path.absolute()
    parts = [whole.name]
    while parts[0] in _USUAL or parts[0].isdecimal():
        whole = whole.parent
        if not whole.name:
            break
        parts.insert(0, whole.name)
    return "/".join(parts)


def _data(inspection: Inspection) -> dict[str, Any]:
    summaries = {name: summarize(graph) for name, graph in inspection.graphs.items()}
    same = same_operations(summaries)
    graphs = []
    for name, summary in summaries.items():
        if name in same:
            continue
        also = [other for other, first in same.items() if first == name]
        root = boxes(inspection.graphs[name], summary.counted)
        graphs.append(
            {
                "name": ", ".join([name, *also]),
                "cost": _cost(summary.cost),
                "least": not summary.is_whole,
                "operations": len(summary.counted),
                "root": _box(root, inspection.graphs[name]),
            }
        )
    parameters = inspection.parameters().values()
    return {
        "kind": inspection.kind,
        "facts": dict(inspection.facts),
        "notes": list(inspection.notes),
        "parameters": [sum(p.count for p in parameters), sum(p.size_bytes for p in parameters)],
        "graphs": graphs,
    }


def _box(box: Box, graph: Graph) -> dict[str, Any]:
    document: dict[str, Any] = {"id": box.number, "name": box.name, "kind": box.kind}
    if box.counted is not None:
        document |= _operation(box.counted)
    elif box.kind in ("input", "output"):
        document["outputs"] = [_tensor(graph, box.tensor)]
    if box.children:
        inner = box.counted.graph if box.counted is not None else graph
        document["children"] = [_box(child, _graph_of(child, inner)) for child in box.children]
        document["edges"] = [[first, last, _label(graph, tensor)] for first, last, tensor in box.edges]
        document["rows"] = box.rows
    return document


def _graph_of(box: Box, graph: Graph) -> Graph:
    """Return the graph that a box's tensors belong to: a body has one of its own."""
    leaf = next((leaf for leaf in box.leaves() if leaf.counted is not None), None)
    return graph if leaf is None or leaf.counted is None else leaf.counted.graph


def _operation(found: Counted) -> dict[str, Any]:
    node, graph = found.node, found.graph
    document: dict[str, Any] = {
        "full": found.scope + node.name,
        "type": node.type,
        "class": _class(found),
        "inputs": [_tensor(graph, name) for name in node.inputs if name],
        "outputs": [_tensor(graph, name) for name in node.outputs if name],
        "attributes": {key: _text(value) for key, value in node.attributes.items()},
    }
    if found.cost is None:
        document["reason"] = found.reason
    else:
        document["cost"] = _cost(found.cost)
    if found.runs != 1:
        document["runs"] = found.runs
    if node.bodies:
        document["bodies"] = {body.role: body.runs for body in node.bodies}
    return document


def _class(found: Counted) -> str:
    """Return the colour of an operation: what it spends its time on."""
    if found.cost is None:
        return "unknown"
    if found.cost.multiply_adds:
        return "computes"
    if found.cost.flops:
        return "figures"
    return "moves" if found.cost.bytes else "looks"


def _cost(cost: Cost) -> list[int]:
    return [cost.flops, cost.multiply_adds, cost.bytes]


def _tensor(graph: Graph, name: str) -> dict[str, Any]:
    spec = graph.spec(name)
    text = "unknown" if spec is None else f"{spec.dtype} {shape_text(spec.shape)}"
    document: dict[str, Any] = {"name": name, "text": text}
    if name in graph.parameters:
        document["weight"] = graph.parameters[name].name
    return document


def _label(graph: Graph, tensor: str) -> str:
    shape = graph.shape(tensor)
    return "" if shape is None else "\N{MULTIPLICATION SIGN}".join(map(str, shape))


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _asset(name: str) -> str:
    return (files("servable.forge.inspection") / name).read_text("utf-8").strip()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
