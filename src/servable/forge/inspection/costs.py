"""How much arithmetic an operation does, and how many bytes it reads and writes: rules on shapes, nothing is run.

A multiplication with the addition that takes it up is one multiply-add, and two FLOPs. Any other arithmetic on one
element is one FLOP, be it an addition or a sigmoid. Bytes are those of the tensors that go in and come out; what only
looks at a tensor in another way moves none. What caches save and what kernels spend beside it is not in these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from servable.forge.inspection.graph import Graph, Node, tensor_bytes


@dataclass(frozen=True, slots=True)
class Cost:
    """Arithmetic and traffic. ``others`` are FLOPs that are no multiply-adds."""

    multiply_adds: int = 0
    others: int = 0
    bytes: int = 0

    @property
    def flops(self) -> int:
        """All arithmetic, a multiply-add as two."""
        return 2 * self.multiply_adds + self.others

    def __add__(self, other: Cost) -> Cost:
        """Return both together."""
        return Cost(self.multiply_adds + other.multiply_adds, self.others + other.others, self.bytes + other.bytes)

    def times(self, count: int) -> Cost:
        """Return the cost of doing it so often."""
        return Cost(self.multiply_adds * count, self.others * count, self.bytes * count)


class UncountedError(Exception):
    """Why the cost of an operation is not known."""


Rule: TypeAlias = Callable[[Graph, Node], Cost]


@dataclass(frozen=True, slots=True)
class Counted:
    """One operation with what it costs in a call of the whole graph, or why that is not known.

    ``scope`` is the operation that it stands in, "" at the top; ``runs`` how often it runs, ``None`` if not known.
    """

    graph: Graph
    node: Node
    scope: str
    runs: int | None
    cost: Cost | None
    reason: str = ""


def count(graph: Graph) -> list[Counted]:
    """Count every operation of a graph, those inside of others as often as they run."""
    return list(_count(graph, "", 1))


def total(counted: list[Counted]) -> Cost:
    """Return what the known costs add up to."""
    return sum((found.cost for found in counted if found.cost is not None), Cost())


def _count(graph: Graph, scope: str, runs: int | None) -> Iterator[Counted]:
    for node in graph.nodes:
        yield _counted(graph, node, scope, runs)
        for body in node.bodies:
            inner = None if runs is None or body.runs is None else runs * body.runs
            yield from _count(body.graph, f"{scope}{node.name}/{body.role}/", inner)


def _counted(graph: Graph, node: Node, scope: str, runs: int | None) -> Counted:
    try:
        cost = cost_of(graph, node)
    except UncountedError as reason:
        return Counted(graph, node, scope, runs, None, str(reason))
    except (IndexError, KeyError, ValueError, ZeroDivisionError):
        return Counted(graph, node, scope, runs, None, "its tensors are not those of such an operation")
    if runs is None and cost != Cost():
        return Counted(graph, node, scope, runs, None, "nobody knows how often it runs")
    return Counted(graph, node, scope, runs, cost.times(runs or 0))


def cost_of(graph: Graph, node: Node) -> Cost:
    """Return what one run of an operation costs, what is inside of it apart; ``UncountedError`` if not known."""
    from servable.forge.inspection.families import FAMILIES

    if node.bodies:
        return Cost()
    rule = FAMILIES[graph.format].get(node.type)
    if rule is None:
        raise UncountedError("there is no rule for it")
    return rule(graph, node)


# -- what rules are made of --------------------------------------------------------------------------------------------


def shape_at(graph: Graph, node: Node, place: int) -> tuple[int, ...]:
    """Return the shape of an input."""
    if place >= len(node.inputs) or not node.inputs[place]:
        raise UncountedError(f"it has no input {place}")
    return _known(graph, node.inputs[place])


def out_shape(graph: Graph, node: Node) -> tuple[int, ...]:
    """Return the shape of the first output."""
    found = next((name for name in node.outputs if name), None)
    if found is None:
        raise UncountedError("it has no output")
    return _known(graph, found)


def out_count(graph: Graph, node: Node) -> int:
    """Return how many elements the first output has."""
    return math.prod(out_shape(graph, node))


def has(node: Node, place: int) -> bool:
    """Return whether an input is given."""
    return place < len(node.inputs) and bool(node.inputs[place])


def traffic(graph: Graph, node: Node) -> int:
    """Return the bytes of all inputs and outputs. Of outputs that nobody asked for, those that are known."""
    moved = sum(_bytes(graph, name) for name in dict.fromkeys(node.inputs) if name and not _is_handle(graph, name))
    for index, name in enumerate(filter(None, node.outputs)):
        if not _is_handle(graph, name) and (index == 0 or graph.shape(name) is not None):
            moved += _bytes(graph, name)
    return moved


def _known(graph: Graph, tensor: str) -> tuple[int, ...]:
    shape = graph.shape(tensor)
    if shape is None:
        raise UncountedError(f"the shape of {tensor} is not known")
    return shape


def _is_handle(graph: Graph, tensor: str) -> bool:
    spec = graph.spec(tensor)
    return spec is not None and spec.dtype.name in ("resource", "variant")


def _bytes(graph: Graph, tensor: str) -> int:
    spec = graph.spec(tensor)
    shape = _known(graph, tensor)
    size = None if spec is None else tensor_bytes(spec.dtype.name, shape)
    if size is None:
        is_text = spec is not None and spec.dtype.name == "string"
        raise UncountedError("texts have no fixed size" if is_text else f"the size of {tensor} is not known")
    return size


# -- rules -------------------------------------------------------------------------------------------------------------


def free(_graph: Graph, _node: Node) -> Cost:
    """Constants, and other views of the same bytes."""
    return Cost()


def moves(graph: Graph, node: Node) -> Cost:
    """Bytes go from one place to another."""
    return Cost(bytes=traffic(graph, node))


def looks_up(graph: Graph, node: Node) -> Cost:
    """Rows of a table: those that are picked are read, not all of it. The table comes first."""
    spec = graph.spec(node.outputs[0])
    size = None if spec is None else tensor_bytes(spec.dtype.name, out_shape(graph, node))
    if size is None:
        raise UncountedError("the size of what it picks is not known")
    picked = sum(_bytes(graph, name) for name in node.inputs[1:] if name)
    return Cost(bytes=picked + 2 * size)


def each(factor: int) -> Rule:
    """So many FLOPs for each element that comes out."""

    def rule(graph: Graph, node: Node) -> Cost:
        return Cost(others=factor * out_count(graph, node), bytes=traffic(graph, node))

    return rule


def each_input(factor: int) -> Rule:
    """So many FLOPs for each element of the first input: reductions, sorting out the largest."""

    def rule(graph: Graph, node: Node) -> Cost:
        return Cost(others=factor * math.prod(shape_at(graph, node, 0)), bytes=traffic(graph, node))

    return rule


def adds_all(graph: Graph, node: Node) -> Cost:
    """Sum of several tensors."""
    given = sum(1 for name in node.inputs if name)
    return Cost(others=(given - 1) * out_count(graph, node), bytes=traffic(graph, node))


def scales(graph: Graph, node: Node) -> Cost:
    """Normalization with known statistics: one factor and one summand for each element."""
    return Cost(multiply_adds=out_count(graph, node), bytes=traffic(graph, node))


def convolves(channels: tuple[int, ...], kernel: int = 1, bias: int | None = 2) -> Rule:
    """Return the rule of a convolution; ``channels`` are the axes of the kernel that number its outputs."""

    def rule(graph: Graph, node: Node) -> Cost:
        weights = shape_at(graph, node, kernel)
        outputs = math.prod(weights[axis] for axis in channels)
        made = out_count(graph, node)
        if not outputs:
            raise UncountedError("its kernel gives nothing")
        others = made if bias is not None and has(node, bias) else 0
        return Cost(made * (math.prod(weights) // outputs), others + _fused(node, made), traffic(graph, node))

    return rule


def spreads(data: int, kernel: int, channels: tuple[int, ...], bias: int | None) -> Rule:
    """Return the rule of a transposed convolution; ``channels`` are the axes of the kernel that number its inputs."""

    def rule(graph: Graph, node: Node) -> Cost:
        weights = shape_at(graph, node, kernel)
        taken = math.prod(shape_at(graph, node, data))
        inputs = math.prod(weights[axis] for axis in channels)
        if not inputs:
            raise UncountedError("its kernel takes nothing")
        others = out_count(graph, node) if bias is not None and has(node, bias) else 0
        return Cost(taken * (math.prod(weights) // inputs), others, traffic(graph, node))

    return rule


def multiplies(left: int = 0, transposed: str = "", bias: int | None = None) -> Rule:
    """Return the rule of a product of matrices; ``transposed`` is the attribute that turns the left one."""

    def rule(graph: Graph, node: Node) -> Cost:
        matrix = shape_at(graph, node, left)
        if not matrix:
            raise UncountedError("it multiplies a scalar")
        turned = bool(transposed and node.attributes.get(transposed)) and len(matrix) > 1
        made = out_count(graph, node)
        others = made if bias is not None and has(node, bias) else 0
        return Cost(made * matrix[-2 if turned else -1], others + _fused(node, made), traffic(graph, node))

    return rule


def multiplies_rows(weights: int = 1, bias: int | None = 2) -> Rule:
    """Return the rule of a dense layer whose weights are [outputs, inputs]."""

    def rule(graph: Graph, node: Node) -> Cost:
        made = out_count(graph, node)
        others = made if bias is not None and has(node, bias) else 0
        wide = shape_at(graph, node, weights)[-1]
        return Cost(made * wide, others + _fused(node, made), traffic(graph, node))

    return rule


def contracts(graph: Graph, node: Node) -> Cost:
    """Einstein's sum of one or two tensors."""
    equation = node.attributes.get("equation")
    if not isinstance(equation, str) or "." in equation:
        raise UncountedError(f"its equation {equation!r} is not counted")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for place, term in enumerate(terms):
        sizes |= dict(zip(term, shape_at(graph, node, place), strict=False))
    steps = math.prod(sizes.values())
    if len(terms) == 1:
        return Cost(others=steps, bytes=traffic(graph, node))
    if len(terms) > 2:
        raise UncountedError("it contracts more than two tensors, in an order of the framework's choice")
    return Cost(multiply_adds=steps, bytes=traffic(graph, node))


def attends(graph: Graph, node: Node) -> Cost:
    """Scaled products of queries [..., n, d], keys [..., m, d] and values [..., m, e], with a softmax between."""
    queries, keys, values = (shape_at(graph, node, place) for place in range(3))
    scores = math.prod(queries[:-1]) * keys[-2]
    return Cost(scores * (queries[-1] + values[-1]), 6 * scores, traffic(graph, node))


def pools(sizes: str) -> Rule:
    """Return the rule of pooling; ``sizes`` names the attributes with the window's extents."""

    def rule(graph: Graph, node: Node) -> Cost:
        extents: list[int] = []
        for name in sizes.split():
            value = node.attributes.get(name)
            extents += [part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, int)]
        if not extents:
            raise UncountedError("its window is not known")
        made = out_count(graph, node)
        return Cost(others=made * math.prod(extents) + _fused(node, made), bytes=traffic(graph, node))

    return rule


def recurs(matrices: tuple[int, ...], per_unit: int, data: int = 0, feature_axes: int = 1) -> Rule:
    """Return the rule of a recurrent layer over time.

    Each step of each row multiplies with every matrix once; ``per_unit`` is the rest for one unit: biases, gates,
    state. The data has ``feature_axes`` dimensions that are no steps or rows.
    """

    def rule(graph: Graph, node: Node) -> Cost:
        taken = shape_at(graph, node, data)
        steps = math.prod(taken[: len(taken) - feature_axes])
        weights = [shape_at(graph, node, place) for place in matrices if has(node, place)]
        if not weights:
            raise UncountedError("it has no weights")
        products = sum(math.prod(shape) for shape in weights)
        recurrent = weights[-1]
        units = math.prod(recurrent[:-2]) * min(recurrent[-2:])
        return Cost(steps * products, steps * units * per_unit, traffic(graph, node))

    return rule


def _fused(node: Node, made: int) -> int:
    """Return the FLOPs of an activation that an operation of TFLite carries."""
    return 0 if node.attributes.get("fused_activation", "NONE") == "NONE" else made
