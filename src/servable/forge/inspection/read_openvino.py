"""OpenVINO models as graphs, from their XML. Where sizes are open, OpenVINO says which follow from the inputs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from servable.core.errors import Code, ServingError, not_found
from servable.core.scratch import scratch
from servable.core.signatures import DEFAULT_SIGNATURE, Shape, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME, Array, dtype_named
from servable.engines.openvino import missing_part_of_ir
from servable.forge.inspection.assumed import assumed_shape, check_names, notes
from servable.forge.inspection.graph import Attribute, Body, Bound, Graph, Inspection, Node, Parameter, is_weight
from servable.forge.inspection.names import unique_names

_DTYPES = {
    "f16": "float16", "fp16": "float16", "bf16": "bfloat16", "f32": "float32", "fp32": "float32", "f64": "float64",
    "fp64": "float64", "boolean": "bool", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2", "string": "string",
    "f4e2m1": "float4_e2m1",
}  # fmt: skip
_SMALL_BYTES = 256
_TRUTH = frozenset({"true", "false"})


def read(path: Path, bound: Bound) -> Inspection:
    """Read an OpenVINO model. NOT_FOUND, or DATA_LOSS if it cannot be understood or lacks its weights."""
    if not path.exists():
        raise not_found(f"there is no file {path}")
    if (lacking := missing_part_of_ir(path)) is not None:
        raise ServingError(Code.DATA_LOSS, lacking)
    net = _parsed(path)
    try:
        signature = _signature(net)
        check_names(bound, {signature.name: signature})
        shapes = {spec.name: assumed_shape(spec, bound) for spec in signature.inputs.values()}
        said = notes(signature.inputs.values(), bound)
        if any(spec.shape != shapes[spec.name] for spec in signature.inputs.values()):
            graph, complaints = _reshaped(path, net, shapes)
        else:
            graph, complaints = _Reader(net, path.with_suffix(".bin")).graph(), []
    except (KeyError, ValueError, IndexError, AttributeError, RecursionError, StopIteration) as error:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error!r}") from error
    producer = next((found.get("value", "") for found in net.iter("info") if "Runtime" in found.get("name", "")), "")
    facts = {"producer": f"OpenVINO {producer}".strip(), "version": net.get("version", "")}
    signatures = {signature.name: signature}
    return Inspection("openvino", path, signatures, {signature.name: graph}, facts, (*said, *complaints))


def _parsed(path: Path) -> ET.Element:
    return ET.fromstring(path.read_bytes())  # noqa: S314  # a model is the operator's own; expat limits expansion


def _reshaped(path: Path, net: ET.Element, shapes: Mapping[str, Shape | None]) -> tuple[Graph, list[str]]:
    """Let OpenVINO write the model again, with the sizes of its inputs set."""
    import openvino

    wanted = {
        name: openvino.PartialShape([-1 if size is None else size for size in shape])
        for name, shape in shapes.items()
        if shape is not None
    }
    with scratch() as folder:
        xml, weights = folder / "model.xml", folder / "model.bin"
        try:
            model = openvino.Core().read_model(str(path))
            model.reshape(wanted)
            openvino.serialize(model, str(xml), str(weights))
        except Exception as error:  # noqa: BLE001  # OpenVINO raises what it likes
            reason = " ".join(str(error).split())[:200]
            return _Reader(net, path.with_suffix(".bin")).graph(), [f"OpenVINO cannot set these shapes: {reason}"]
        return _Reader(_parsed(xml), weights).graph(), []


def _signature(net: ET.Element) -> Signature:
    inputs, outputs = {}, {}
    layers = _layers(net)
    sources = _sources(net)
    for layer in layers.values():
        if layer.get("type") == "Parameter":
            port = next(layer.iterfind("output/port"))
            spec = _spec(port, _port_name(port, layer), layer)
            inputs[spec.name] = spec
        elif layer.get("type") == "Result":
            inner = next(layer.iterfind("input/port"))
            source, number = sources[layer.attrib["id"], inner.attrib["id"]]
            made = next(port for port in layers[source].iterfind("output/port") if port.attrib["id"] == number)
            name = layer.get("output_names", "").partition(",")[0] or _port_name(made, layers[source])
            outputs[name] = _spec(made, name, layers[source])
    return Signature(DEFAULT_SIGNATURE, inputs, outputs)


def _port_name(port: ET.Element, layer: ET.Element) -> str:
    return port.get("names", "").partition(",")[0] or layer.attrib["name"]


def _spec(port: ET.Element, name: str, layer: ET.Element) -> TensorSpec:
    return TensorSpec(name, dtype_named(dtype_name(port.get("precision", ""))), _shape(port, layer), name)


def _shape(port: ET.Element, layer: ET.Element) -> Shape | None:
    data = layer.find("data")
    if data is not None and data.get("shape", "").strip() == "...":
        return None
    sizes = tuple(int(dim.text or "-1") for dim in port.iterfind("dim"))
    return tuple(None if size < 0 else size for size in sizes)


def dtype_name(text: str) -> str:
    """Return our name of an element type of OpenVINO."""
    text = text.lower()
    if text in _DTYPES:
        return _DTYPES[text]
    if text[:1] in "iu" and text[1:].isdecimal():
        return f"{'u' if text[0] == 'u' else ''}int{text[1:]}"
    return {"bool": "bool"}.get(text, text)


def _layers(net: ET.Element) -> dict[str, ET.Element]:
    return {layer.attrib["id"]: layer for layer in net.iterfind("layers/layer")}


def _sources(net: ET.Element) -> dict[tuple[str, str], tuple[str, str]]:
    return {
        (edge.attrib["to-layer"], edge.attrib["to-port"]): (edge.attrib["from-layer"], edge.attrib["from-port"])
        for edge in net.iterfind("edges/edge")
    }


@dataclass
class _Reader:
    """One graph: the model's, or one inside of an operation."""

    net: ET.Element
    weights: Path

    def __post_init__(self) -> None:
        self.layers = _layers(self.net)
        self.sources = _sources(self.net)
        names = unique_names(layer.attrib["name"] for layer in self.layers.values())
        self.names = dict(zip(self.layers, names, strict=True))
        self.tensors: dict[str, TensorSpec] = {}
        self.parameters: dict[str, Parameter] = {}
        self.values: dict[str, Array] = {}
        self.made: dict[tuple[str, str], str] = {}

    def graph(self) -> Graph:
        for number, layer in self.layers.items():
            for index, port in enumerate(layer.iterfind("output/port")):
                name = f"{self.names[number]}:{index}"
                self.made[number, port.attrib["id"]] = name
                dtype = dtype_named(dtype_name(port.get("precision", "")))
                self.tensors[name] = TensorSpec(name, dtype, _shape(port, layer))
            if layer.get("type") == "Const":
                self._constant(number, layer)
        nodes = tuple(self._node(number, self.layers[number]) for number in self._order())
        inputs = [self.made[number, port] for (number, port) in self.made if self._is(number, "Parameter")]
        outputs = [node.inputs[0] for node in nodes if node.type == "Result" and node.inputs]
        return Graph("openvino", nodes, self.tensors, tuple(inputs), tuple(outputs), self.parameters, self.values)

    def _is(self, number: str, kind: str) -> bool:
        return self.layers[number].get("type") == kind

    def _order(self) -> Iterator[str]:
        """Yield the layers, each after those that it takes from."""
        needs: dict[str, list[str]] = {number: [] for number in self.layers}
        for (target, _), (source, _) in self.sources.items():
            needs[target].append(source)
        done: set[str] = set()
        for start in self.layers:
            stack = [(start, False)]
            while stack:
                number, is_ready = stack.pop()
                if is_ready:
                    yield number
                elif number not in done:
                    done.add(number)
                    stack.append((number, True))
                    stack += [(source, False) for source in needs[number]]

    def _constant(self, number: str, layer: ET.Element) -> None:
        data = layer.find("data")
        assert data is not None
        name = f"{self.names[number]}:0"
        dtype = dtype_name(data.get("element_type", ""))
        shape = tuple(int(size) for size in data.get("shape", "").split(",") if size.strip())
        offset, size = int(data.get("offset", 0)), int(data.get("size", 0))
        if is_weight(dtype, shape):
            self.parameters[name] = Parameter(self.names[number], dtype, shape, size)
        if size <= _SMALL_BYTES and dtype in ("int32", "int64", "bool"):
            with self.weights.open("rb") as file:
                file.seek(offset)
                self.values[name] = np.frombuffer(file.read(size), DTYPES_BY_NAME[dtype].numpy).reshape(shape)

    def _node(self, number: str, layer: ET.Element) -> Node:
        inputs = []
        for port in layer.iterfind("input/port"):
            source = self.sources.get((number, port.attrib["id"]))
            inputs.append("" if source is None else self.made[source])
        outputs = tuple(self.made[number, port.attrib["id"]] for port in layer.iterfind("output/port"))
        data = layer.find("data")
        attributes = {} if data is None else {name: _value(text) for name, text in data.attrib.items()}
        bodies = tuple(self._bodies(layer, inputs))
        return Node(self.names[number], layer.get("type", ""), tuple(inputs), outputs, attributes, bodies)

    def _bodies(self, layer: ET.Element, inputs: Sequence[str]) -> Iterator[Body]:
        for part in ("body", "then_body", "else_body"):
            inner = layer.find(part)
            if inner is not None:
                graph = _Reader(inner, self.weights).graph()
                yield Body(part, graph, self._runs(layer, graph, inputs) if part == "body" else None)

    def _runs(self, layer: ET.Element, graph: Graph, inputs: Sequence[str]) -> int | None:
        ports = [port.attrib["id"] for port in layer.iterfind("input/port")]
        if layer.get("type") == "TensorIterator":
            for entry in layer.iterfind("port_map/input"):
                if entry.get("axis") is None:
                    continue
                spec = self.tensors.get(inputs[ports.index(entry.attrib["external_port_id"])])
                size = None if spec is None or spec.shape is None else spec.shape[int(entry.attrib["axis"])]
                return None if size is None else size // max(1, abs(int(entry.get("part_size", 1))))
            return None
        count = self.values.get(inputs[0]) if inputs else None
        decides = next(
            (e for e in layer.iterfind("port_map/output") if e.get("purpose") == "execution_condition"), None
        )
        body = layer.find("body")
        if count is None or count.size != 1 or int(count.reshape(-1)[0]) < 0 or decides is None or body is None:
            return None
        result = decides.attrib["internal_layer_id"]
        source = next((f for (target, _), f in _sources(body).items() if target == result), None)
        inner = _Reader(body, self.weights)
        value = None if source is None else graph.values.get(f"{inner.names[source[0]]}:0")
        return int(count.reshape(-1)[0]) if value is not None and bool(value.reshape(-1)[0]) else None


def _value(text: str) -> Attribute:
    """Read an attribute: numbers, lists of them, truth values, else words."""
    if text in _TRUTH:
        return text == "true"
    parts = [part.strip() for part in text.split(",")]
    try:
        numbers: tuple[Attribute, ...] = tuple(int(part) for part in parts)
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers
