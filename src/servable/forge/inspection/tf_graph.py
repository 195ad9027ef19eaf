"""A TensorFlow graph as a neutral one: called functions put in place, loops and branches kept as bodies.

Shapes are followed on the way, so a function that is called twice with other shapes is counted as it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from servable.core.errors import Code, ServingError
from servable.core.signatures import TensorSpec
from servable.engines.graph import Graph as Definitions
from servable.engines.graph import attribute
from servable.forge.inspection.graph import Body, Graph, Node, Parameter, is_weight, tensor_bytes
from servable.forge.inspection.tf_known import UNKNOWN, Known
from servable.forge.inspection.tf_loops import carried, trips
from servable.forge.inspection.tf_operations import BRANCHES, CALLS, LOOPS, output_places, plain_attributes
from servable.forge.inspection.tf_rules import infer

_DEEPEST = 40
"""Calls of functions within each other; more is a function that calls itself."""


class Inliner:
    """Collects the operations that are reached, with what is known of their tensors."""

    def __init__(self, definitions: Definitions, operations: Mapping[str, Any], depth: int = 0) -> None:
        self._definitions = definitions
        self._operations = operations
        self._depth = depth
        self._aliases: dict[str, str] = {}
        self._places: dict[str, dict[str, int]] = {}
        self.known: dict[str, Known] = {}
        self.nodes: list[Node] = []
        self.parameters: dict[str, Parameter] = {}

    def graph(self, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
        """Return all that was added."""
        tensors: dict[str, TensorSpec] = {name: known.spec(name) for name, known in self.known.items()}
        values = {name: known.value for name, known in self.known.items() if known.value is not None}
        ends = tuple(self._aliases.get(name, name) for name in outputs)
        return Graph("tensorflow", tuple(self.nodes), tensors, tuple(inputs), ends, self.parameters, values)

    def add_top(self, nodes: Iterable[Any], fed: Mapping[str, Known]) -> None:
        """Add nodes of the graph itself; ``fed`` are tensors that a call brings, by name (``x:0``)."""
        for node in nodes:
            sources = [_outer_name(text) for text in node.input if not text.startswith("^")]
            self._add(node, "", "", [self._aliases.get(name, name) for name in sources], fed)

    def run_function(self, name: str, prefix: str, arguments: Sequence[str]) -> list[str]:
        """Add the nodes of a function; return the tensors that it gives."""
        if self._depth > _DEEPEST:
            raise ServingError(Code.DATA_LOSS, f"the function {name} calls itself")
        definition = self._definitions.functions[name]
        given = {
            argument.name: tensor for argument, tensor in zip(definition.signature.input_arg, arguments, strict=False)
        }
        self._depth += 1
        for node in self._definitions.reached_in(name):
            sources = [self._inner_name(text, prefix, given) for text in node.input if not text.startswith("^")]
            self._add(node, prefix, name, sources, {})
        self._depth -= 1
        results = [definition.ret.get(result.name, "") for result in definition.signature.output_arg]
        return [self._inner_name(text, prefix, given) for text in results]

    def _inner_name(self, text: str, prefix: str, given: Mapping[str, str]) -> str:
        source, _, rest = text.partition(":")
        if not rest and source in given:
            return given[source]
        output, _, index = rest.rpartition(":")
        places = self._places.get(prefix + source, {})
        number = places.get(output, 0) + int(index or 0)
        name = f"{prefix}{source}:{number}"
        return self._aliases.get(name, name)

    def _add(self, node: Any, prefix: str, origin: str, sources: list[str], fed: Mapping[str, Known]) -> None:
        name = prefix + node.name
        functions = self._definitions.functions
        callee = attribute(node, "f").func.name if node.op in CALLS else node.op
        definition = self._operations.get(node.op)
        if definition is None and callee == node.op and node.op in functions:
            definition = functions[node.op].signature
        places = output_places(node, definition)
        self._places[name] = places
        outputs = [f"{name}:{number}" for number in range(places[""])]
        if callee in functions:
            for output, result in zip(outputs, self.run_function(callee, f"{name}/", sources), strict=False):
                self._aliases[output] = result
            return
        inputs = [self.known.get(source, UNKNOWN) for source in sources]
        if node.op in LOOPS:
            bodies, found = self._loop(node, inputs)
        elif node.op in BRANCHES:
            bodies, found = self._branches(node, inputs)
        else:
            is_fed = bool(outputs) and outputs[0] in fed
            bodies, found = (), [fed[outputs[0]]] if is_fed else infer(node, inputs, len(outputs))
        outputs = [f"{name}:{number}" for number in range(max(len(found), len(outputs)))] if outputs else []
        self.known.update(zip(outputs, found, strict=False))
        self.nodes.append(Node(name, node.op, tuple(sources), tuple(outputs), plain_attributes(node), bodies))
        self._note_parameter(node, name, f"{origin}/{node.name}" if origin else node.name, outputs)

    def _note_parameter(self, node: Any, name: str, own: str, outputs: Sequence[str]) -> None:
        """Note a weight. Constants are known by their function: one that is called twice has them once."""
        if not outputs:
            return
        known = self.known[outputs[0]]
        if node.op == "VarHandleOp" and known.held is not None:
            shared = attribute(node, "shared_name").s.decode(errors="replace")
            self._keep(outputs[0], shared or name, known.held)
        elif node.op in ("VariableV2", "Variable") or (
            node.op == "Const"
            and known.shape is not None
            and is_weight(known.dtype, known.shape)
            and not _is_fill(node)
        ):
            self._keep(outputs[0], own, known)

    def _keep(self, tensor: str, name: str, known: Known) -> None:
        size = None if known.shape is None else tensor_bytes(known.dtype, known.shape)
        if known.shape is not None and size is not None:
            self.parameters[tensor] = Parameter(name, known.dtype, known.shape, size)

    def _body(self, function: str, arguments: Sequence[Known]) -> tuple[Graph, list[Known]]:
        """Return a function as a graph of its own, with what is known of its results."""
        inner = Inliner(self._definitions, self._operations, self._depth + 1)
        names = [argument.name for argument in self._definitions.functions[function].signature.input_arg]
        inner.known.update(zip(names, arguments, strict=False))
        results = inner.run_function(function, "", names)
        return inner.graph(names, results), [inner.known.get(result, UNKNOWN) for result in results]

    def _loop(self, node: Any, inputs: Sequence[Known]) -> tuple[tuple[Body, ...], list[Known]]:
        condition, repeated = (attribute(node, part).func.name for part in ("cond", "body"))
        if not {condition, repeated} <= self._definitions.functions.keys():
            return (), []
        runs = trips(self._definitions, condition, repeated, inputs)
        given = carried(self._definitions, repeated, inputs)
        for _ in range(4):  # what a round changes is not known in the next one
            graph, results = self._body(repeated, given)
            stable = [_widened(before, after) for before, after in zip(given, results, strict=False)]
            if stable == given:
                break
            given = stable
        head, _ = self._body(condition, given)
        bodies = (Body("cond", head, None if runs is None else runs + 1), Body("body", graph, runs))
        return bodies, [_after(before, after, runs) for before, after in zip(inputs, results, strict=False)]

    def _branches(self, node: Any, inputs: Sequence[Known]) -> tuple[tuple[Body, ...], list[Known]]:
        names = []
        for name in BRANCHES[node.op]:
            value = attribute(node, name)
            names += [value.func.name] if value.WhichOneof("value") == "func" else [f.name for f in value.list.func]
        if not names or not set(names) <= self._definitions.functions.keys():
            return (), []
        chosen = None if not inputs or inputs[0].value is None else int(inputs[0].value.reshape(-1)[0])
        if chosen is not None and len(BRANCHES[node.op]) == 2:
            chosen = 0 if chosen else 1
        bodies, found = [], []
        for index, name in enumerate(names):
            graph, results = self._body(name, inputs[1:])
            bodies.append(Body(name, graph, None if chosen is None else int(index == chosen)))
            found.append(results)
        agreed = [
            row[0].without_value() if all(known.shape == row[0].shape for known in row) else Known(row[0].dtype)
            for row in zip(*found, strict=False)
        ]
        return tuple(bodies), agreed


def _is_fill(node: Any) -> bool:
    """Return whether a constant is one number over and over: a state to begin with, not a weight."""
    tensor = attribute(node, "value").tensor
    stored = sum(len(values) for field, values in tensor.ListFields() if field.name.endswith("_val"))
    return not tensor.tensor_content and stored == 1


def _outer_name(text: str) -> str:
    return text if ":" in text else f"{text}:0"


def _after(before: Known, after: Known, runs: int | None) -> Known:
    """Return what holds behind a loop, which may have run not once."""
    shape = after.shape if runs or after.shape == before.shape else None
    return Known(after.dtype, shape, None, after.held, before.length if after.length is None else after.length)


def _widened(before: Known, after: Known) -> Known:
    """Return what holds in every round of a loop."""
    shape = before.shape if before.shape == after.shape else None
    return Known(before.dtype, shape, before.value if shape is not None else None, before.held, before.length)
