"""A TensorFlow graph as data: which nodes a signature reaches, through functions too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from servable.protos import tensorflow


def attribute(node: Any, name: str) -> Any:
    """Return an attribute of a node, an empty one if it has none. ``node.attr[name]`` would add it to the graph."""
    return node.attr[name] if name in node.attr else tensorflow.AttrValue()


class Edge(NamedTuple):
    """One input of a node: the node (or function argument) it comes from, and which of its outputs."""

    source: str
    port: int
    control: bool


def edge(text: str) -> Edge:
    """Read ``node``, ``node:1``, ``node:output:1`` (in a function) or ``^node`` (runs before, gives no tensor)."""
    if text.startswith("^"):
        return Edge(text[1:], 0, True)
    source, _, rest = text.partition(":")
    index = rest.rpartition(":")[2]
    return Edge(source, int(index) if index else 0, False)


class Scope:
    """The nodes of a graph, or of one function of it, by name."""

    def __init__(self, nodes: Iterable[Any]) -> None:
        self.nodes: dict[str, Any] = {node.name: node for node in nodes}

    def reached(self, fetches: Iterable[str]) -> list[Any]:
        """Return the nodes that computing ``fetches`` runs, each after those it depends on (old loops have cycles).

        What is not a node here, such as a function's argument, is passed over.
        """
        order: list[Any] = []
        seen: set[str] = set()
        stack = [(edge(fetch).source, False) for fetch in fetches]
        while stack:
            name, done = stack.pop()
            node = self.nodes.get(name)
            if done:
                order.append(node)
            elif node is not None and name not in seen:
                seen.add(name)
                stack.append((name, True))
                stack += [(edge(text).source, False) for text in reversed(node.input)]
        return order


class Graph(Scope):
    """A GraphDef: its own nodes, and its library of functions."""

    def __init__(self, graph_def: Any) -> None:
        super().__init__(graph_def.node)
        self.functions: dict[str, Any] = {function.signature.name: function for function in graph_def.library.function}
        self._scopes: dict[str, Scope] = {}

    def body(self, function: str) -> Scope:
        """Return the nodes of a function."""
        if function not in self._scopes:
            self._scopes[function] = Scope(self.functions[function].node_def)
        return self._scopes[function]

    def reached_in(self, function: str) -> list[Any]:
        """Return the nodes that calling a function runs, those that it runs for their effects included."""
        definition = self.functions[function]
        return self.body(function).reached([*definition.ret.values(), *definition.control_ret.values()])

    def all_reached(self, fetches: Iterable[str]) -> Iterator[Any]:
        """Yield every node that computing ``fetches`` may run, those of called functions and branches included."""
        yield from (waiting := self.reached(fetches))
        called: set[str] = set()
        while waiting:
            functions = {name for node in waiting for name in self.called_by(node)} - called
            called |= functions
            waiting = [node for name in sorted(functions) for node in self.reached_in(name)]
            yield from waiting

    def called_by(self, node: Any) -> list[str]:
        """Return the functions that a node names: what it calls, its branches, the parts of a loop."""
        names: list[str] = []
        for value in node.attr.values():
            kind = value.WhichOneof("value")
            if kind == "func":
                names.append(value.func.name)
            elif kind == "list":
                names += [function.name for function in value.list.func]
        return [name for name in names if name in self.functions]
