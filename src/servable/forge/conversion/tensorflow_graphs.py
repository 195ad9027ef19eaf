"""One signature of a SavedModel as a graph of constants. Runs where TensorFlow is imported.

Control flow stays as it is (``lower_control_flow=False``): lowered, an LSTM's loops become what no converter reads.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final

from servable.core.errors import ServingError, failed_precondition, invalid_argument, unimplemented
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.engines import savedmodel
from servable.forge.conversion.live import fixed

LOOPS: Final = frozenset({"While", "StatelessWhile", "Loop", "Enter"})
_IMPORTS: Final = count()
_INITIALIZER: Final = "__saved_model_init_op"
TENSORFLOW_ONLY: Final[Mapping[str, str]] = {
    "DecodeJpeg": "pictures",
    "DecodePng": "pictures",
    "DecodeImage": "pictures",
    "DecodeAndCropJpeg": "pictures",
    "ParseExample": "tf.Examples",
    "ParseExampleV2": "tf.Examples",
    "HashTableV2": "a table",
    "LookupTableFindV2": "a table",
    "StringSplitV2": "texts",
    "RegexReplaceV2": "texts",
    "StaticRegexReplace": "texts",
    "StringToHashBucketFast": "texts",
    "PyFunc": "Python",
    "EagerPyFunc": "Python",
}
"""Operation -> what it works on that no other runtime here does."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A graph without variables. The signature's ``node`` are the tensors in it: ``tokens:0``.

    ``function`` is what TensorFlow calls; ``variables`` how many became constants.
    """

    graph: Any
    signature: Signature
    function: Any
    variables: int

    @property
    def inputs(self) -> list[str]:
        """Return the input tensors in the signature's order."""
        return [spec.node for spec in self.signature.inputs.values()]

    @property
    def outputs(self) -> list[str]:
        """Return the output tensors in the signature's order."""
        return [spec.node for spec in self.signature.outputs.values()]


def callable_signatures(directory: Path) -> dict[str, Signature]:
    """Return what can be called, read without TensorFlow."""
    found = savedmodel.read(directory).signatures
    return {name: one for name, one in found.items() if name != _INITIALIZER and one.outputs}


def chosen_signature(directory: Path, wanted: str | None) -> Signature:
    """Return the one signature that a format is to hold: the one asked for, else the default one, else the only one."""
    found = callable_signatures(directory)
    name = wanted or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in found else next(iter(found), ""))
    if name not in found or (wanted is None and name != DEFAULT_SIGNATURE and len(found) > 1):
        raise invalid_argument(
            f"{directory} has the signatures {', '.join(found) or 'none'}: choose one with --signature"
            if wanted is None
            else f"{directory} has no signature {wanted!r}; there are {', '.join(found) or 'none'}"
        )
    return found[name]


def same_as(directory: Path, name: str) -> list[str]:
    """Return the signatures that compute what this one does under another name: ``serve`` and ``serving_default``."""
    saved = savedmodel.read(directory)
    computed = {one: _computation(saved, one) for one in callable_signatures(directory)}
    return [one for one, found in computed.items() if one != name and found == computed[name]]


def refuse_tensorflow_only(directory: Path, signature: str, target: str) -> None:
    """Refuse what runs in TensorFlow alone before anything is loaded, by the name of the operation."""
    operations = savedmodel.read(directory).operations(signature)
    found = next((op for op in TENSORFLOW_ONLY if op in operations), None)
    if found is not None:
        raise unsupported(directory, signature, [found], target)


def unsupported(path: Path, signature: str, operations: Iterable[str], target: str) -> ServingError:
    """Return the error for operations that a format does not have, with a way on."""
    names = list(dict.fromkeys(operations))
    alone = [name for name in names if name in TENSORFLOW_ONLY]
    what = TENSORFLOW_ONLY[alone[0]] if alone else ""
    on = (
        f"{alone[0]} runs in TensorFlow only: export the network without it, and work on {what} before "
        "(transform.py beside the model), or serve the SavedModel"
        if alone
        else "serve the SavedModel, or export the model without them"
    )
    return unimplemented(f"{path}: signature {signature}: {target} has no {', '.join(names)}; {on}")


def load(directory: Path) -> Any:
    """Load a SavedModel into TensorFlow; FAILED_PRECONDITION if it cannot."""
    tf = _tensorflow()
    tf.get_logger().setLevel("ERROR")
    try:
        return tf.saved_model.load(str(directory))
    except Exception as error:
        raise failed_precondition(f"tensorflow cannot load {directory}: {one_line(error)}") from error


def freeze(loaded: Any, signature: Signature, rows: int | None = None) -> Frozen:
    """Turn the variables of one signature into constants; ``rows`` fixes the batch."""
    tf = _tensorflow()
    convert = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    concrete = loaded.signatures[signature.name]
    # A captured resource is a variable, or a table, which no constant can be.
    variables = sum(tensor.dtype == tf.resource for tensor in concrete.captured_inputs)
    signature = fixed(signature, rows)
    if rows is not None:
        whole = concrete
        specs = {name: tf.TensorSpec(spec.shape, spec.dtype.name, name=name) for name, spec in signature.inputs.items()}
        concrete = tf.function(lambda **inputs: whole(**inputs)).get_concrete_function(**specs)  # noqa: PLW0108  # traced anew, for other shapes
    try:
        function = convert.convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    except Exception as error:
        raise failed_precondition(f"signature {signature.name} cannot be frozen: {one_line(error)}") from error
    if any(tensor.dtype == tf.resource for tensor in function.inputs):
        raise unimplemented(
            f"signature {signature.name} holds a table, which is no constant: look words up before (transform.py), or "
            "serve the SavedModel"
        )
    nodes = dict(zip(concrete._arg_keywords, (tensor.name for tensor in function.inputs), strict=True))  # noqa: SLF001  # the names of the inputs, in their order
    fetched = dict(zip(sorted(concrete.structured_outputs), function.outputs, strict=True))
    inputs = {name: replace(spec, node=nodes[name]) for name, spec in signature.inputs.items()}
    outputs = {
        name: replace(spec, node=fetched[name].name, shape=_narrower(spec, fetched[name]))
        for name, spec in signature.outputs.items()
    }
    frozen = Signature(signature.name, inputs, outputs, signature.method_name)
    return Frozen(function.graph.as_graph_def(), frozen, function, variables)


def with_graph(frozen: Frozen, graph: Any) -> Frozen:
    """Return the same signature computed by another graph, whose tensors have the same names."""
    return replace(frozen, graph=graph, function=as_function(graph, frozen.inputs, frozen.outputs))


def as_function(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return a graph as what TensorFlow calls, from these tensors to those, in that order."""
    tf = _tensorflow()
    wrapped = tf.compat.v1.wrap_function(lambda: import_graph(graph), [])
    element = wrapped.graph.as_graph_element
    return wrapped.prune([element(name) for name in inputs], [element(name) for name in outputs])


def import_graph(graph: Any) -> None:
    """Import a graph into the present one; its nodes keep their names.

    Its functions get new ones: they are known to the whole process by name, and optimizers change what they are.
    """
    fresh = type(graph)()
    fresh.CopyFrom(graph)
    number = next(_IMPORTS)
    names = {one.signature.name: f"{one.signature.name}_{number}" for one in fresh.library.function}
    for one in fresh.library.function:
        one.signature.name = names[one.signature.name]
    for one in fresh.library.gradient:
        one.function_name = names.get(one.function_name, one.function_name)
        one.gradient_func = names.get(one.gradient_func, one.gradient_func)
    for node in _nodes(fresh):
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            kind = value.WhichOneof("value")
            for function in [value.func] if kind == "func" else value.list.func if kind == "list" else ():
                function.name = names.get(function.name, function.name)
    _tensorflow().import_graph_def(fresh, name="")


def save_frozen(parts: Sequence[Frozen], directory: Path) -> None:
    """Write frozen signatures as a SavedModel of constants alone, under their names.

    TFLite's converter reads this rightly whatever the model was before; from a module that holds a Keras model it
    makes NaN in silence.
    """
    tf = _tensorflow()
    module = tf.Module()
    signatures = {part.signature.name: _named(tf, part) for part in parts}
    tf.saved_model.save(module, str(directory), signatures=signatures)


def has_loops(graph: Any) -> bool:
    """Return whether a graph repeats: what recurrent layers are made of."""
    return not LOOPS.isdisjoint(operations(graph))


def operations(graph: Any) -> Counter[str]:
    """Return how often each operation is in a graph and its functions."""
    return Counter(node.op for node in _nodes(graph))


def constant_bytes(graph: Any) -> int:
    """Return the size of all constants."""
    return sum(node.attr["value"].tensor.ByteSize() for node in _nodes(graph) if node.op == "Const")


def one_line(error: BaseException) -> str:
    """Return a framework's error as one line of a bearable length."""
    return " ".join(str(error).split())[:400]


def _computation(saved: savedmodel.SavedModel, name: str) -> Any:
    """Return what a signature computes, comparable: the functions that its own wrapper calls, and its interface."""
    signature = saved.signatures[name]
    graph = saved.meta_graph.graph_def
    nodes = {node.name: node for node in graph.node}
    bodies = {one.signature.name: one.node_def for one in graph.library.function}
    fetched = []
    for alias, spec in signature.outputs.items():
        owner, _, port = spec.node.partition(":")
        wrapper = nodes[owner].attr["f"].func.name if owner in nodes else ""
        inner = sorted(node.attr["f"].func.name for node in bodies.get(wrapper, ()) if "f" in node.attr)
        fetched.append((alias, spec.dtype.name, spec.shape, port, tuple(inner) or owner))
    fed = [(alias, spec.dtype.name, spec.shape) for alias, spec in signature.inputs.items()]
    return fed, fetched


def _named(tf: Any, part: Frozen) -> Any:
    specs = {
        name: tf.TensorSpec(spec.shape, spec.dtype.name, name=name) for name, spec in part.signature.inputs.items()
    }
    order = {tensor.name: place for place, tensor in enumerate(part.function.inputs)}
    places = {name: order[spec.node] for name, spec in part.signature.inputs.items()}
    fetched = {tensor.name: place for place, tensor in enumerate(part.function.outputs)}
    outputs = {name: fetched[spec.node] for name, spec in part.signature.outputs.items()}
    return tf.function(_caller(part.function, places, outputs)).get_concrete_function(**specs)


def _caller(function: Any, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Callable[..., dict[str, Any]]:
    def call(**given: Any) -> dict[str, Any]:
        values = function(*[given[name] for name in sorted(inputs, key=inputs.__getitem__)])
        flat = list(values) if isinstance(values, list | tuple) else [values]
        return {name: flat[place] for name, place in outputs.items()}

    return call


def _narrower(spec: TensorSpec, tensor: Any) -> tuple[int | None, ...] | None:
    """Return the shape that says most: freezing can fix what was free."""
    if tensor.shape.rank is None:
        return spec.shape
    shape = tuple(tensor.shape.as_list())
    if spec.shape is None or len(spec.shape) != len(shape):
        return shape
    return tuple(own if own is not None else known for own, known in zip(spec.shape, shape, strict=True))


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _tensorflow() -> Any:
    return importlib.import_module("tensorflow")
