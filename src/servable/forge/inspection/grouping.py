"""A graph as boxes in boxes: by the scopes of names, and where a level has too many, by where one tensor leads on.

What does not depend on the inputs (weights that are read, constants) is not drawn: it stands with what it goes into.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from servable.forge.inspection.costs import Counted
from servable.forge.inspection.graph import Graph, Node
from servable.forge.inspection.layering import Rows, arrange
from servable.forge.inspection.names import scopes

_MOST_CHILDREN = 32
_PART = 10
"""A level with more than ``_MOST_CHILDREN`` is cut into parts of about so many."""


@dataclass(eq=False)
class Box:
    """An operation, an input, an output, or a group of boxes. ``edges`` join its children, by their places."""

    name: str
    kind: str
    number: int
    position: float = 0.0
    counted: Counted | None = None
    tensor: str = ""
    children: list[Box] = field(default_factory=list)
    edges: list[tuple[int, int, str]] = field(default_factory=list)
    rows: Rows = field(default_factory=list)

    def leaves(self) -> Iterator[Box]:
        """Yield the boxes inside that hold no others, or this one."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


def boxes(graph: Graph, counted: Sequence[Counted]) -> Box:
    """Return the whole graph as a box; ``counted`` has the costs of its operations, those inside of others too."""
    costs = {(id(found.graph), found.node.name): found for found in counted}
    return _Maker(costs, itertools.count()).box(graph, "", "graph")


def live_nodes(graph: Graph) -> list[Node]:
    """Return the operations that depend on an input, or all where nothing does. A variable is no such input."""
    reached = {name for name in graph.inputs if not _is_variable(graph, name)}
    live = []
    for node in graph.nodes:
        if reached & {*node.inputs, *node.outputs}:
            reached |= set(node.outputs)
            live.append(node)
    return live or list(graph.nodes)


def _is_variable(graph: Graph, tensor: str) -> bool:
    spec = graph.spec(tensor)
    return spec is not None and spec.dtype.name == "resource"


class _Maker:
    """Numbers boxes, so that a page can name them."""

    def __init__(self, costs: Mapping[tuple[int, str], Counted], numbers: Iterator[int]) -> None:
        self._costs = costs
        self._numbers = numbers

    def box(self, graph: Graph, name: str, kind: str) -> Box:
        leaves = self._leaves(graph, is_body=kind == "body")
        root = Box(name, kind, next(self._numbers))
        paths: dict[tuple[str, ...], Box] = {(): root}
        of_own = {scopes(box.name) for box, _ in leaves}
        parents: dict[int, Box] = {}
        for box, path in leaves:
            # An operation named like a scope stands inside of it.
            inside = path if any(other[: len(path)] == path and other != path for other in of_own) else path[:-1]
            parents[id(box)] = self._group(paths, inside)
            parents[id(box)].children.append(box)
        _unwrap(root)
        _label(root, ())
        self._split(root, _links([box for box, _ in leaves], graph))
        _join(root, _links([box for box, _ in leaves], graph))
        return root

    def _group(self, paths: dict[tuple[str, ...], Box], path: tuple[str, ...]) -> Box:
        if path not in paths:
            paths[path] = Box("/".join(path), "scope", next(self._numbers))
            self._group(paths, path[:-1]).children.append(paths[path])
        return paths[path]

    def _leaves(self, graph: Graph, *, is_body: bool) -> list[tuple[Box, tuple[str, ...]]]:
        """Return what is drawn with its path. What a loop only hands on, and variables, are not."""
        live = live_nodes(graph)
        taken = {tensor for node in live for tensor in node.inputs}
        made = {output for node in live for output in node.outputs}
        found: list[tuple[Box, tuple[str, ...]]] = []
        for tensor in graph.inputs:
            if tensor not in made and (not is_body or (tensor in taken and not _is_variable(graph, tensor))):
                box = Box(tensor, "input", next(self._numbers), float(len(found)), tensor=tensor)
                found.append((box, (tensor,)))
        for node in live:
            box = Box(node.name, "op", next(self._numbers), float(len(found)))
            box.counted = self._costs.get((id(graph), node.name))
            for body in node.bodies:
                inner = self.box(body.graph, body.role, "body")
                if inner.children:
                    box.children.append(inner)
            found.append((box, tuple(scopes(node.name))))
        results = {node.inputs[0] for node in live if node.type == "Result" and node.inputs}
        for tensor in dict.fromkeys(graph.outputs):
            if tensor not in results and (not is_body or tensor in made):
                box = Box(tensor, "output", next(self._numbers), float(len(found)), tensor=tensor)
                found.append((box, (f"output {tensor}",)))
        return found

    def _split(self, box: Box, links: Sequence[tuple[Box, Box, str]]) -> None:
        """Cut levels that nobody could overlook at tensors through which all goes."""
        for child in box.children:
            if child.kind == "scope":
                self._split(child, links)
        box.children.sort(key=_position)
        if len(box.children) <= _MOST_CHILDREN:
            return
        parts = _parts(len(box.children), _edges(box, links))
        if len(parts) < 2:
            return
        children = []
        for first, last in parts:
            inner = box.children[first:last]
            if len(inner) == 1:
                children += inner
                continue
            names = [child.name for child in inner if child.kind in ("op", "scope")] or [inner[0].name]
            children.append(Box(span(names[0], names[-1]), "part", next(self._numbers), children=inner))
        box.children = children
        if len(children) > _MOST_CHILDREN and len(children) < sum(last - first for first, last in parts):
            self._split(box, links)


def span(first: str, last: str) -> str:
    """Return a name for all from one operation to another, without the scopes that both are in."""
    own, other = scopes(first), scopes(last)
    shared = 0
    while shared < min(len(own), len(other)) - 1 and own[shared] == other[shared]:
        shared += 1
    names = dict.fromkeys(("/".join(own[shared:]), "/".join(other[shared:])))
    return " … ".join(names)


def _unwrap(box: Box) -> None:
    """Put the contents of a group that has nothing but one group, or one operation, in its place."""
    for place, child in enumerate(box.children):
        if child.kind == "scope":
            _unwrap(child)
            if len(child.children) == 1:
                box.children[place] = child.children[0]
    inner = [child for child in box.children if child.kind == "scope"]
    if box.kind != "scope" and len(inner) == 1 and len(box.children) <= 4:
        box.children = [child for child in box.children if child not in inner] + inner[0].children


def _label(box: Box, scope: tuple[str, ...]) -> None:
    """Take the names of the groups around it from each name."""
    for child in box.children:
        if child.kind in ("op", "scope", "input", "output"):
            path = tuple(scopes(child.name))
            if child.kind == "scope":
                _label(child, path)
            if scope and path[: len(scope)] == scope:
                child.name = "/".join(path[len(scope) :]) or path[-1]


def _position(box: Box) -> float:
    if box.kind in ("op", "input", "output"):
        return box.position
    places = [_position(child) for child in box.children]
    return sum(places) / len(places) if places else 0.0


def _links(leaves: Sequence[Box], graph: Graph) -> list[tuple[Box, Box, str]]:
    """Return which box leads to which, by which tensor."""
    nodes = {node.name: node for node in graph.nodes}
    by_box = [(box, nodes.get(box.counted.node.name) if box.counted is not None else None) for box in leaves]
    makers: dict[str, Box] = {}
    for box, node in by_box:
        if node is not None:
            makers |= dict.fromkeys(filter(None, node.outputs), box)
        elif box.kind == "input":
            makers[box.tensor] = box
    found = []
    for box, node in by_box:
        taken = node.inputs if node is not None else (box.tensor,) if box.kind == "output" else ()
        found += [(makers[tensor], box, tensor) for tensor in dict.fromkeys(taken) if tensor in makers]
    return [(maker, taker, tensor) for maker, taker, tensor in found if maker is not taker]


def _edges(box: Box, links: Sequence[tuple[Box, Box, str]]) -> dict[tuple[int, int], str]:
    """Return the tensors between the children of a box, each pair once with the first of them."""
    child_of = {id(leaf): place for place, child in enumerate(box.children) for leaf in _drawn(child)}
    found: dict[tuple[int, int], str] = {}
    for maker, taker, tensor in links:
        first, last = child_of.get(id(maker)), child_of.get(id(taker))
        if first is not None and last is not None and first != last:
            found.setdefault((first, last), tensor)
    return found


def _drawn(box: Box) -> Iterator[Box]:
    if box.kind in ("scope", "part", "graph", "body"):
        for child in box.children:
            yield from _drawn(child)
    else:
        yield box


def _parts(count: int, edges: Mapping[tuple[int, int], str]) -> list[tuple[int, int]]:
    """Return ranges of children, each ended where all that goes on comes from one of them."""
    parts, begin = [], 0
    for place in range(1, count):
        crossing = [first for first, last in edges if min(first, last) < place <= max(first, last)]
        forks = len(crossing) > 1 or place - begin >= 2 * _PART  # blocks end where their result forks
        if len(set(crossing)) <= 1 and forks and place - begin >= _PART:
            parts.append((begin, place))
            begin = place
    parts.append((begin, count))
    return parts


def _join(box: Box, links: Sequence[tuple[Box, Box, str]]) -> None:
    """Find the edges of every level, and arrange it."""
    found = _edges(box, links)
    box.edges = [(first, last, tensor) for (first, last), tensor in found.items()]
    pairs = [(first, last) for first, last, _ in box.edges]
    box.rows = arrange(len(box.children), pairs, [_position(child) for child in box.children])
    for child in box.children:
        if child.kind in ("scope", "part"):
            _join(child, links)
        elif child.children:  # an operation's bodies stand side by side
            child.rows = [list(range(len(child.children)))]
