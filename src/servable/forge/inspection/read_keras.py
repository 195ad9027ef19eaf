"""Keras models as graphs: each layer is an operation. The configuration says all; no layer is ever built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError, unimplemented
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import dtype_named
from servable.forge.inspection.assumed import assumed_shape, check_names, notes
from servable.forge.inspection.graph import Attribute, Body, Bound, Graph, Inspection, Node, Parameter
from servable.forge.inspection.keras_files import KerasFile, load, weight_paths
from servable.forge.inspection.keras_shapes import output_shape

_MODELS = frozenset({"Functional", "Model", "Sequential"})
_HIDDEN = frozenset({"name", "dtype", "trainable"})
_TENSOR = "__keras_tensor__"


def read(path: Path, bound: Bound) -> Inspection:
    """Read a ``.keras`` or ``.h5`` file. NOT_FOUND, DATA_LOSS; UNIMPLEMENTED for a model that only its code knows."""
    file = load(path)
    kind = str(file.config.get("class_name"))
    if kind not in _MODELS:
        raise unimplemented(
            f"{path} is a {kind}, whose layers only its own code knows: export it, servable export {path} OUT"
        )
    try:
        reader = _Reader(file, "", list(file.weights))
        layers = reader.layers(file.config)
        inputs = reader.inputs(file.config, layers)
        check_names(bound, {DEFAULT_SIGNATURE: Signature(DEFAULT_SIGNATURE, inputs, {})})
        shapes = {name: assumed_shape(spec, bound) for name, spec in inputs.items()}
        graph = reader.graph(file.config, shapes)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is not a model as Keras 2 or 3 writes it: {error!r}") from error
    outputs = {
        name.partition(":")[0]: TensorSpec(
            name.partition(":")[0], graph.tensors[name].dtype, _declared(graph.tensors[name], inputs), name
        )
        for name in graph.outputs
        if name in graph.tensors
    }
    facts = {"producer": f"keras {file.version}".strip(), "model": str(_config(file.config).get("name", kind))}
    signatures = {DEFAULT_SIGNATURE: Signature(DEFAULT_SIGNATURE, inputs, outputs)}
    return Inspection(
        "keras", path, signatures, {DEFAULT_SIGNATURE: graph}, facts, tuple(notes(inputs.values(), bound))
    )


def _declared(spec: TensorSpec, inputs: Mapping[str, TensorSpec]) -> tuple[int | None, ...] | None:
    """Return an output's shape with the batch as free as the inputs have it."""
    free = any(found.shape and found.shape[0] is None for found in inputs.values())
    if spec.shape is None:
        return None
    return (None, *spec.shape[1:]) if free and spec.shape else spec.shape


def _config(model: Mapping[str, Any]) -> Mapping[str, Any]:
    found = model["config"]
    if isinstance(found, list):  # a Sequential of Keras 2
        return {"layers": found}
    assert isinstance(found, dict)
    return found


@dataclass
class _Reader:
    """One model: the file's, or one that is a layer of it. ``scope`` is the folder of its weights."""

    file: KerasFile
    scope: str
    paths: Sequence[str]
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)

    def layers(self, model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return list(_config(model)["layers"])

    def inputs(self, model: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> dict[str, TensorSpec]:
        found = {}
        for layer in layers:
            if layer["class_name"] == "InputLayer":
                config = layer["config"]
                shape = config.get("batch_shape", config.get("batch_input_shape"))
                name = str(config["name"])
                found[name] = TensorSpec(name, dtype_named(_dtype(config)), _sizes(shape), f"{name}:0")
        if not found and layers:
            shape = layers[0]["config"].get("batch_input_shape") or (model.get("build_config") or {}).get("input_shape")
            name = str(layers[0]["config"]["name"])
            found[name] = TensorSpec(name, dtype_named("float32"), _sizes(shape) if shape else None, f"{name}:in")
        return found

    def graph(self, model: Mapping[str, Any], shapes: Mapping[str, tuple[int | None, ...] | None]) -> Graph:
        layers = self.layers(model)
        is_chain = not any(layer.get("inbound_nodes") for layer in layers)
        folders = weight_paths((str(layer["config"]["name"]), str(layer["class_name"])) for layer in layers)
        inputs = self.inputs(model, layers)
        for name, spec in inputs.items():
            self.tensors[spec.node] = TensorSpec(spec.node, spec.dtype, shapes.get(name))
        nodes: list[Node] = []
        last = next((spec.node for spec in inputs.values()), "")
        waiting = [(layer, call) for layer in layers for call in self._calls(layer, is_chain)]
        for layer, call in _ordered(waiting):
            sources = [last] if is_chain and layer["class_name"] != "InputLayer" else _tensors(call)
            node = self._node(layer, folders[str(layer["config"]["name"])], sources, call, nodes)
            nodes.append(node)
            last = node.outputs[0]
        ends = [last] if is_chain else _references(_config(model).get("output_layers", []))
        starts = [spec.node for spec in inputs.values()]
        return Graph("keras", tuple(nodes), self.tensors, tuple(starts), tuple(ends), self.parameters)

    def _calls(self, layer: Mapping[str, Any], is_chain: bool) -> list[Any]:
        is_called = is_chain or layer["class_name"] == "InputLayer"
        return list(layer.get("inbound_nodes") or []) or ([None] if is_called else [])

    def _node(
        self, layer: Mapping[str, Any], folder: str, sources: Sequence[str], call: Any, before: Sequence[Node]
    ) -> Node:
        config, kind = layer["config"], str(layer["class_name"])
        own = str(config["name"])
        calls = sum(1 for node in before if node.name == own or node.name.startswith(f"{own}#"))
        name = own if not calls else f"{own}#{calls}"
        output = f"{own}:{calls}" if calls else f"{own}:0"
        self._learn(call)
        weights = self._weights(own, folder)
        given = [self.tensors[source].shape if source in self.tensors else None for source in sources]
        known = [tuple(s for s in shape if s is not None) for shape in given if shape is not None and None not in shape]
        bodies: tuple[Body, ...] = ()
        if kind in _MODELS:
            inner = _Reader(self.file, f"{self._folder(own, folder)}layers/", self.paths)
            start = list(inner.inputs(layer, inner.layers(layer)))
            graph = inner.graph(layer, dict(zip(start, given, strict=False)))
            bodies = (Body("layers", graph, 1),)
            made = graph.tensors[graph.outputs[0]].shape if graph.outputs[0] in graph.tensors else None
        else:
            made = output_shape(kind, config, known) if len(known) == len(sources) else None
        if kind != "InputLayer":
            stated = self.tensors.get(output)
            if made is not None or stated is None:
                self.tensors[output] = TensorSpec(output, dtype_named(_dtype(config)), made)
        return Node(name, kind, (*sources, *weights), (output,), _attributes(config), bodies)

    def _folder(self, own: str, folder: str) -> str:
        if self.file.by_layer_name:
            return f"{self.scope}{own}/"
        root = self.scope or ("layers/" if any(path.startswith("layers/") for path in self.paths) else "")
        return f"{root}{folder}/"

    def _weights(self, own: str, folder: str) -> list[str]:
        prefix = self._folder(own, folder)
        found = [path for path in self.paths if path.startswith(prefix) and "/layers/" not in path[len(prefix) - 1 :]]
        for path in found:
            parameter = self.file.weights[path]
            self.tensors[path] = TensorSpec(path, dtype_named(parameter.dtype), parameter.shape)
            self.parameters[path] = parameter
        return found

    def _learn(self, call: Any) -> None:
        """Take the shapes that Keras wrote down for the tensors of a call, as far as they are closed."""
        for tensor in _stated(call):
            name = _reference(tensor["config"]["keras_history"])
            shape = _sizes(tensor["config"]["shape"])
            spec = self.tensors.get(name)
            if spec is None or (spec.shape is None and None not in shape):
                self.tensors[name] = TensorSpec(name, dtype_named(str(tensor["config"].get("dtype", "float32"))), shape)


def _ordered(calls: Sequence[tuple[Mapping[str, Any], Any]]) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Yield the calls, each after those that make what it takes; Keras writes them so, older files may not."""
    waiting = list(calls)
    made: set[str] = set()
    counts: dict[str, int] = {}
    while waiting:
        late: list[tuple[Mapping[str, Any], Any]] = []
        for layer, call in waiting:
            if all(name in made for name in _tensors(call)):
                yield layer, call
                own = str(layer["config"]["name"])
                counts[own] = counts.get(own, -1) + 1
                made.add(f"{own}:{counts[own]}")
            else:
                late.append((layer, call))
        if len(late) == len(waiting):
            raise ValueError("its layers take tensors that none of them makes")
        waiting = late


def _stated(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if value.get("class_name") == _TENSOR:
            yield value
        else:
            for part in value.values():
                yield from _stated(part)
    elif isinstance(value, list):
        for part in value:
            yield from _stated(part)


def _tensors(call: Any) -> list[str]:
    found = [_reference(tensor["config"]["keras_history"]) for tensor in _stated(call)]
    return found or _references(call)


def _references(value: Any) -> list[str]:
    """Return the tensors that a nest of ``[layer, call, number, ...]`` names, as Keras 2 writes them."""
    if isinstance(value, dict):
        return [name for part in value.values() for name in _references(part)]
    if not isinstance(value, list):
        return []
    if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int) and isinstance(value[2], int):
        return [_reference(value)]
    return [name for part in value for name in _references(part)]


def _reference(history: Sequence[Any]) -> str:
    return f"{history[0]}:{history[1]}"


def _sizes(shape: Any) -> tuple[int | None, ...]:
    return tuple(None if size is None else int(size) for size in shape)


def _dtype(config: Mapping[str, Any]) -> str:
    dtype = config.get("dtype", "float32")
    if isinstance(dtype, dict):
        dtype = dtype.get("config", {}).get("name", "float32")
    return {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}.get(str(dtype), str(dtype or "float32"))


def _attributes(config: Mapping[str, Any]) -> dict[str, Attribute]:
    """Return what a layer was told, as far as it is plain."""
    found: dict[str, Attribute] = {}
    for name, value in config.items():
        if name in _HIDDEN or "initializer" in name or "regularizer" in name or "constraint" in name:
            continue
        if isinstance(value, str | int | float | bool):
            found[name] = value
        elif isinstance(value, list) and all(isinstance(part, int | float | str) for part in value):
            found[name] = tuple(value)
        elif isinstance(value, dict) and name == "activation":
            found[name] = str(value.get("config", value.get("class_name")))
        elif isinstance(value, dict) and name == "layer":
            found[name] = str(value.get("class_name"))
    return found
