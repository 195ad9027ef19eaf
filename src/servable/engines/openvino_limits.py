"""What OpenVINO cannot compute exactly as TensorFlow does, found in the graph before it is compiled.

OpenVINO says itself when it knows no rule for an operation. The rest it gets wrong in silence, and that is listed
here, from answers of OpenVINO 2026.4 compared with those of TensorFlow 2.21:

* float64 and complex numbers are cast to float32; int64 to int32; uint64 saturates; bfloat16 comes back as float16;
* arithmetic on 8- and 16-bit integers saturates and rounds where TensorFlow wraps and truncates; float16 is not
  rounded between operations;
* a float too large for an integer type is cut to its ends, and int64's ends are those of int32;
* sums, products, divisions, reversals and more of 32-bit integers go through float32;
* assignments and assertions are left out; random numbers are others; ``Unique`` gives zeros; ``ScatterNd`` keeps one
  of the values that belong to one place, and does not add them.

What stays: NaN is not carried through comparisons, ``Maximum``, ``Minimum`` and ``Relu``; the mean of nothing is 0 and
not NaN; an index into an activation, unlike one into a table of known size, may be out of range and gives zeros.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from servable.core.errors import ServingError, unimplemented
from servable.core.signatures import Signature
from servable.engines import openvino_flow as flow
from servable.engines.graph import Graph, attribute, edge
from servable.engines.openvino_flow import DATA, SMALL, Bounds, Flow
from servable.engines.savedmodel import SavedModel
from servable.engines.tensor_proto import dtype_of, to_array

UNHELD_DTYPES = frozenset(
    {"float64", "complex64", "complex128", "uint64", "string", "bfloat16", "float8_e5m2", "float8_e4m3fn", "int4",
     "uint4", "qint8", "quint8", "qint16", "quint16", "qint32"}
)  # fmt: skip
_UNHELD_INSIDE = UNHELD_DTYPES - {"complex64"}  # a pair of float32, where OpenVINO knows the operation at all
_NARROW = frozenset({"int8", "int16", "uint8", "uint16", "uint32", "float16"})
_WIDE = frozenset({"int32", "int64"})

_WRONG = {
    "Unique": "OpenVINO gives wrong values for it",
    "UniqueV2": "OpenVINO gives wrong values for it",
    "UniqueWithCounts": "OpenVINO gives wrong values for it",
    "ScatterNd": "OpenVINO does not add up the values for one place",
    "DynamicPartition": "OpenVINO does not look whether the partitions fit the data",
    "CTCGreedyDecoder": "OpenVINO gives its result another shape",
    "Assert": "OpenVINO leaves it out",
    "CheckNumerics": "OpenVINO leaves it out",
    "CheckNumericsV2": "OpenVINO leaves it out",
}
_WRONG_FAMILIES = {
    "Assign": "OpenVINO forgets what a call assigns",
    "Segment": "OpenVINO does not look whether the segments fit the data",
    "UnsortedSegment": "OpenVINO does not look whether the segments fit the data",
    "ResourceScatter": "OpenVINO forgets what a call assigns",
    "Random": "OpenVINO draws other numbers",
    "Stateless": "OpenVINO draws other numbers",
    "Decode": "OpenVINO does not decode",
    "ParseExample": "OpenVINO does not parse",
    "ParseSingle": "OpenVINO does not parse",
    "LookupTable": "OpenVINO has no tables of strings",
    "HashTable": "OpenVINO has no tables of strings",
}
_NOT_OF_THE_FAMILY = frozenset({"StatelessIf", "StatelessWhile", "StatelessCase"})

# Operations that put integers elsewhere, or compare them, and are exact for every type.
_MOVING = frozenset(
    {"Identity", "IdentityN", "Snapshot", "StopGradient", "PreventGradient", "Reshape", "ExpandDims", "Squeeze",
     "Transpose", "Concat", "ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Slice", "StridedSlice", "Gather",
     "GatherV2", "GatherNd", "ResourceGather", "ResourceGatherNd", "Tile", "BroadcastTo", "Fill", "Pad", "PadV2",
     "MirrorPad", "Select", "SelectV2", "Where", "ReverseV2", "ReverseSequence", "Roll", "ZerosLike", "OnesLike",
     "Const", "Placeholder", "PlaceholderWithDefault", "VarHandleOp", "ReadVariableOp", "Cast", "Shape", "ShapeN",
     "Size", "Rank", "OneHot", "Range", "EnsureShape", "TopKV2", "ArgMax", "ArgMin", "PartitionedCall",
     "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "Switch",
     "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "NoOp", "DepthToSpace", "SpaceToDepth",
     "TensorListReserve", "TensorListFromTensor", "TensorListStack", "TensorListGetItem", "TensorListSetItem",
     "TensorListLength", "TensorListResize", "TensorListPushBack", "TensorListPopBack", "TensorListConcatV2",
     "TensorListElementShape", "EmptyTensorList", "DynamicStitch", "ParallelDynamicStitch", "InvertPermutation",
     "TensorScatterUpdate", "BatchToSpaceND", "SpaceToBatchND", "Maximum", "Minimum", "Max", "Min", "Equal",
     "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual", "MatrixBandPart", "Bucketize", "SparseReshape"}
)  # fmt: skip
# Exact on 32-bit integers of moderate size, and giving integers that are no larger.
_TAME = frozenset(
    {"Neg", "Abs", "Sign", "FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod", "BitwiseAnd", "BitwiseOr",
     "BitwiseXor", "RightShift"}
)  # fmt: skip
_DIVISIONS = frozenset({"FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod"})
_SUMS = frozenset({"Add", "AddV2", "Sub", "AddN"})
# Their results are counts, positions or truth values: small, whatever went in.
_COUNTING = frozenset(
    {"Shape", "ShapeN", "Size", "Rank", "ArgMax", "ArgMin", "Where", "Equal", "NotEqual", "LessEqual", "Greater",
     "GreaterEqual", "LogicalAnd", "LogicalOr", "LogicalNot", "All", "Any", "Range", "InvertPermutation",
     "ZerosLike", "OnesLike", "OneHot", "Sign", "TensorListLength"}
)  # fmt: skip
_SAME_ELEMENTS = frozenset(
    {"Identity", "Snapshot", "StopGradient", "Reshape", "ExpandDims", "Squeeze", "Transpose", "EnsureShape",
     "ReadVariableOp"}
)  # fmt: skip
# Attributes that give the type of axes, sizes and positions, not of what is computed.
_INDEX_TYPES = frozenset(
    {"Tidx", "Tindices", "Tshape", "Tpaddings", "Tdim", "Tdims", "Taxis", "Tmultiples", "Tperm", "Index",
     "out_type", "output_type", "Tblock_shape", "Tcrops", "out_idx", "Tlen", "Tsplits", "index_type",
     "Tsegmentids", "Tnumsegments", "Tsegments", "TI", "Tshift", "Tlabels", "Tstart", "Tsize"}
)  # fmt: skip


def check(model: SavedModel, signature: Signature) -> dict[str, Bounds]:
    """Return the bounds of the signature's integer inputs; UNIMPLEMENTED names what OpenVINO cannot hold."""
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs.values():
            if spec.dtype.name in UNHELD_DTYPES or spec.dtype.itemsize == 0 or not spec.node:
                raise refusal(model, signature, f"its {kind} {spec.name!r} is {spec.dtype}, which OpenVINO cannot hold")
    analysis = _Analysis(model, signature)
    analysis.run()
    return analysis.bounds


def refusal(model: SavedModel, signature: Signature, reason: str) -> ServingError:
    """Return the error for a signature that only TensorFlow computes exactly."""
    return unimplemented(
        f"OpenVINO cannot serve signature {signature.name!r} of {model.directory} exactly: {reason}; "
        "pip install 'servable[tensorflow]' serves it"
    )


class _Analysis:
    """Follows the integers of one signature through the graph and the functions it calls."""

    def __init__(self, model: SavedModel, signature: Signature) -> None:
        self.bounds: dict[str, Bounds] = {}
        self._model = model
        self._signature = signature
        self._graph: Graph = model.graph
        self._inputs = {edge(spec.node).source: name for name, spec in signature.inputs.items()}
        self._calls: dict[tuple[str, tuple[Flow, ...]], list[Flow]] = {}
        for name, spec in signature.inputs.items():
            exact = flow.exact_bounds(spec.dtype.numpy)
            if exact is not None:
                self.bounds[name] = exact

    def run(self) -> None:
        fetches = [spec.node for spec in self._signature.outputs.values()]
        for node in self._graph.all_reached(fetches):
            self._check_operation(node)
        for node in self._graph.all_reached(fetches):
            self._check_dtypes(node)
        known: dict[str, list[Flow]] = {}
        for node in self._graph.reached(fetches):
            known[node.name] = self._node(node, known)
        for name, spec in self._signature.inputs.items():
            node = self._graph.nodes.get(edge(spec.node).source)
            if node is None or not node.op.startswith("Placeholder"):
                raise self._refuse(f"its input {name!r} feeds {spec.node}, which is not a placeholder")

    def _refuse(self, reason: str) -> ServingError:
        return refusal(self._model, self._signature, reason)

    def _node(self, node: Any, known: dict[str, list[Flow]]) -> list[Flow]:
        """Return what is known of each output of a node; one entry stands for all where they need not be told apart."""
        inputs = [self._input(text, known) for text in node.input if not text.startswith("^")]
        functions = self._graph.called_by(node)
        if functions:
            return self._call(node, functions, inputs)
        self._check_integers(node, inputs)
        return [self._result(node, inputs)]

    def _input(self, text: str, known: dict[str, list[Flow]]) -> Flow:
        source, port, _ = edge(text)
        flows = known.get(source)
        if not flows:  # a cycle of an old loop
            return DATA
        return flows[port] if port < len(flows) else flows[0]

    def _check_operation(self, node: Any) -> None:
        reason = _WRONG.get(node.op)
        if reason is None and node.op not in _NOT_OF_THE_FAMILY:
            reason = next((why for family, why in _WRONG_FAMILIES.items() if node.op.startswith(family)), None)
        if reason is not None:
            raise self._refuse(f"operation {node.op} (node {node.name}): {reason}")

    def _check_dtypes(self, node: Any) -> None:
        if node.op == "VarHandleOp" and dtype_of(attribute(node, "dtype").type).name != "float32":
            dtype = dtype_of(attribute(node, "dtype").type)
            raise self._refuse(f"variable {node.name} is {dtype}, which OpenVINO does not hold exactly")
        for dtype_name in _types(node, index_types=True):
            if dtype_name in _UNHELD_INSIDE:
                raise self._refuse(
                    f"operation {node.op} (node {node.name}) on {dtype_name}, which OpenVINO cannot hold"
                )

    def _check_integers(self, node: Any, inputs: list[Flow]) -> None:
        if node.op == "Cast":
            pair = dtype_of(attribute(node, "SrcT").type).name, dtype_of(attribute(node, "DstT").type).name
            if pair[0].startswith("float") and pair[1] in _NARROW | {"int64"} - {"float16"}:
                raise self._refuse(
                    f"operation Cast (node {node.name}) from {pair[0]} to {pair[1]}: it cuts differently"
                )
        if node.op in _MOVING:
            return
        types = set(_types(node, index_types=False))
        if node.op in _DIVISIONS and types & _WIDE and inputs[1].data:
            raise self._refuse(f"operation {node.op} (node {node.name}): it does not refuse to divide by zero")
        data = [given for given in inputs if given.data]
        if narrow := types & _NARROW:
            raise self._refuse(f"operation {node.op} (node {node.name}) computes {narrow.pop()}, inexact in OpenVINO")
        if not (wide := types & _WIDE) or not data or node.op in _TAME or (node.op in _SUMS and len(data) == 1):
            return
        if node.op in _COUNTING:
            return
        raise self._refuse(
            f"operation {node.op} (node {node.name}) on {wide.pop()} that may become too large for OpenVINO, which "
            f"computes integers exactly up to {flow.EXACT_INTEGER} only"
        )

    def _call(self, node: Any, functions: list[str], inputs: list[Flow]) -> list[Flow]:
        if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
            return self._function(functions[0], inputs)
        if node.op in ("If", "StatelessIf", "Case", "StatelessCase"):
            branches = [self._function(name, inputs[1:]) for name in functions]
            return [flow.merged(list(outputs)) for outputs in zip(*branches, strict=True)]
        if node.op in ("While", "StatelessWhile"):
            return self._loop(node, inputs)
        for name in functions:
            self._function(name, [DATA] * len(self._graph.functions[name].signature.input_arg))
        return [DATA]

    def _loop(self, node: Any, carried: list[Flow]) -> list[Flow]:
        while True:
            self._function(attribute(node, "cond").func.name, carried)
            after = self._function(attribute(node, "body").func.name, carried)
            merged = [flow.merged([before, now]) for before, now in zip(carried, after, strict=True)]
            if merged == carried:
                return merged
            carried = merged

    def _function(self, name: str, arguments: list[Flow]) -> list[Flow]:
        key = name, tuple(arguments)
        if key not in self._calls:
            self._calls[key] = [DATA] * len(self._graph.functions[name].signature.output_arg)  # if it calls itself
            self._calls[key] = self._body(name, arguments)
        return self._calls[key]

    def _body(self, name: str, arguments: list[Flow]) -> list[Flow]:
        definition = self._graph.functions[name]
        names = [argument.name for argument in definition.signature.input_arg]
        known = {name: [given] for name, given in zip(names, arguments, strict=True)}
        for node in self._graph.reached_in(name):
            known[node.name] = self._node(node, known)
        return [self._input(definition.ret[output.name], known) for output in definition.signature.output_arg]

    def _result(self, node: Any, inputs: list[Flow]) -> Flow:
        operation = node.op
        if operation in ("Gather", "GatherV2", "ResourceGather"):
            self._bound_index(node, inputs)
            return inputs[0].moved()
        if operation in _SAME_ELEMENTS:
            return inputs[0]
        if operation == "Cast":
            return _cast(node, inputs[0])
        if operation in ("Add", "AddV2"):
            return flow.added(inputs[0], inputs[1])
        if operation in ("Select", "SelectV2"):
            return flow.selected(*inputs[:3])
        if operation == "Less":
            return flow.less(inputs[0], inputs[1])
        if operation == "StridedSlice":
            return flow.element(inputs[0], inputs[1], shrinks=attribute(node, "shrink_axis_mask").i == 1)
        if operation == "TopKV2":
            return flow.merged(inputs).moved() if set(_types(node, index_types=False)) & _WIDE else SMALL
        return self._source(node) or (SMALL if operation in _COUNTING else flow.merged(inputs).moved())

    def _source(self, node: Any) -> Flow | None:
        """Return what is known of a node that has no inputs to speak of, or ``None`` if it is not such a node."""
        if node.name in self._inputs and node.op.startswith("Placeholder"):
            return Flow(data=True, origin=self._inputs[node.name])
        if node.op.startswith("Placeholder"):
            return DATA
        if node.op == "VarHandleOp":
            return Flow(rows=_first(attribute(node, "shape").shape.dim))
        if node.op == "Const":
            return self._constant(node)
        return None

    def _constant(self, node: Any) -> Flow:
        proto = attribute(node, "value").tensor
        rows = _first(proto.tensor_shape.dim)
        if dtype_of(proto.dtype).name not in {"int32", "int64", "uint32"}:
            return Flow(rows=rows)
        array = to_array(proto)
        info = (-(2**31), 2**31 - 1, -(2**63), 2**63 - 1)  # the ends of a type stand for "no limit"
        for number in array[abs(array) > flow.EXACT_INTEGER].reshape(-1):
            if int(number) not in info:
                raise self._refuse(f"the constant {node.name} holds {number}, too large for OpenVINO to keep exactly")
        return flow.constant(array, rows)

    def _bound_index(self, node: Any, inputs: list[Flow]) -> None:
        table, index = inputs[0], inputs[1]
        on_rows = len(inputs) < 3 or inputs[2].number == 0
        if on_rows and table.rows is not None and index.origin in self.bounds:
            bounds = flow.index_bounds(index, table.rows)
            self.bounds[index.origin] = bounds.within(self.bounds[index.origin])


def _cast(node: Any, given: Flow) -> Flow:
    source, target = dtype_of(attribute(node, "SrcT").type).name, dtype_of(attribute(node, "DstT").type).name
    if source == "bool" or target.startswith("float") or target == "bool":
        return SMALL
    return DATA if source.startswith("float") else given


def _first(dims: Any) -> int | None:
    return dims[0].size if len(dims) and dims[0].size >= 0 else None


def _types(node: Any, *, index_types: bool) -> Iterable[str]:
    """Yield the names of the element types that a node's attributes give."""
    for name, value in node.attr.items():
        if name.startswith("_") or (name in _INDEX_TYPES and not index_types):
            continue
        kind = value.WhichOneof("value")
        if kind == "type":
            yield dtype_of(value.type).name
        elif kind == "list":
            yield from (dtype_of(number).name for number in value.list.type)
