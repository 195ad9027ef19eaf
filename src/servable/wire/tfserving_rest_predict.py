"""The bodies of predict in TensorFlow Serving's REST API, in row and in columnar format, both directions.

Row format is ``instances`` and ``predictions``: a list of examples. Columnar format is ``inputs`` and ``outputs``: a
tensor for each name. Beyond TensorFlow Serving, a body may choose outputs: ``"output_filter": ["name", ...]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from servable.core.errors import ServingError, internal, invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import BOOL, FLOAT64, INT64, STRING, UINT64, Array, DType
from servable.wire import json_dialect, json_writer
from servable.wire.json_dialect import excerpt
from servable.wire.json_tensors import (
    Shape,
    Values,
    exact_values,
    from_values,
    is_base64,
    may_hold_bool,
    pack,
    tensor,
)  # fmt: skip

_Specs = Mapping[str, TensorSpec]
_NEEDS_OBJECTS = "as multiple input tensors required as per tensorinfo_map"


class PredictBody:
    """A body that has been read, but not yet converted: that takes the signature, which it names.

    ``signature_name`` "" is the default signature; ``output_filter`` empty is all outputs. ``row_format`` is the
    format of the request, which the reply must have too.
    """

    __slots__ = ("_bools", "_document", "output_filter", "row_format", "signature_name")

    def __init__(self, document: dict[str, Any], *, bools: bool) -> None:
        self._document = document
        self._bools = bools
        self.row_format = "instances" in document
        self.signature_name: str = document.get("signature_name", "")
        if type(self.signature_name) is not str:
            _wrong_document(document, "not formatted correctly. 'signature_name' key must be a string value.")
        self.output_filter = _output_filter(document) if "output_filter" in document else ()

    def to_inputs(self, signature: Signature) -> dict[str, Array]:
        """Return the tensors for a signature; INVALID_ARGUMENT or UNIMPLEMENTED says what is wrong with them."""
        document, specs = self._document, signature.inputs
        if not specs:
            raise invalid_argument(f"Failed to get input map for signature: {self.signature_name or 'DEFAULT'}")
        if self.row_format:
            if "inputs" in document:
                _wrong_document(
                    document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
                )
            return self._from_rows(document["instances"], specs)
        if "inputs" in document:
            return self._from_columns(document["inputs"], specs)
        raise invalid_argument("Missing 'inputs' or 'instances' key")

    def _from_rows(self, rows: Any, specs: _Specs) -> dict[str, Array]:
        if type(rows) is not list:
            _wrong_document(self._document, "Expecting 'instances' to be an list/array")
        if not rows:
            _wrong_document(self._document, "No values in 'instances' array")
        if _is_named(rows[0]):
            inputs = _pack_named_rows(rows, specs, self._bools)
            return _exact_named_rows(rows, specs) if inputs is None else inputs
        if len(specs) > 1:
            raise invalid_argument(f"instances is a plain list, but expecting list of objects {_NEEDS_OBJECTS}")
        for name, spec in specs.items():
            array = pack(rows, spec.dtype, self._bools)
            if array is not None:
                return {name: array}
        return _exact_plain_rows(rows, specs)

    def _from_columns(self, columns: Any, specs: _Specs) -> dict[str, Array]:
        if not _is_named(columns):
            if len(specs) > 1:
                raise invalid_argument(f"inputs is a plain value/list, but expecting an object {_NEEDS_OBJECTS}")
            return {name: tensor(columns, spec.dtype, self._bools) for name, spec in specs.items()}
        inputs = {}
        for name, spec in specs.items():
            if name not in columns:
                raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
            inputs[name] = tensor(columns[name], spec.dtype, self._bools)
        return inputs


def parse_predict_body(body: bytes) -> PredictBody:
    """Read a body as far as that is possible without the signature; INVALID_ARGUMENT says what is wrong."""
    document = json_dialect.loads(body)
    if type(document) is not dict:
        raise invalid_argument(f"JSON Value: {excerpt(document)} Is not object")
    return PredictBody(document, bools=may_hold_bool(body))


def encode_predict_response(outputs: Mapping[str, Array], *, row_format: bool) -> bytes:
    """Return the body of a reply in the request's format; INVALID_ARGUMENT for outputs that cannot take it."""
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    if row_format:
        _check_rows(outputs)
    if len(outputs) == 1:
        for name, array in outputs.items():
            return json_writer.dumps_tensor("predictions" if row_format else "outputs", name, array)
    if row_format:
        return json_writer.dumps_rows({}, "predictions", outputs)
    return json_writer.dumps_tensors({}, "outputs", outputs)


def encode_predict_request(
    inputs: Mapping[str, Array],
    signature_name: str = "",
    output_filter: Sequence[str] = (),
    *,
    row_format: bool = False,
) -> bytes:
    """Return the body that sends ``inputs``, always by name; INVALID_ARGUMENT for what this API cannot carry.

    Row format takes inputs of equal dim 0 only. TensorFlow Serving ignores ``output_filter``.
    """
    document: dict[str, Any] = {}
    if signature_name:
        document["signature_name"] = signature_name
    if output_filter:
        document["output_filter"] = list(output_filter)
    if not row_format:
        return json_writer.dumps_tensors(document, "inputs", inputs)
    _check_rows(inputs)
    return json_writer.dumps_rows(document, "instances", inputs)


def decode_predict_response(body: bytes, outputs: _Specs | None = None) -> dict[str, Array]:
    """Return the tensors of a reply; INTERNAL if it is no predict reply.

    ``outputs`` are those that were asked for, as the signature has them. A reply with one output does not name it,
    and JSON does not tell element types: without ``outputs`` the name is then the reply's own key (``outputs``,
    ``predictions``), and numbers become int64, uint64 if they must, or float64.
    """
    try:
        document = json_dialect.loads(body)
        if type(document) is dict and "outputs" in document:
            return _decode_columns(document["outputs"], outputs)
        if type(document) is dict and type(document.get("predictions")) is list:
            return _decode_rows(document["predictions"], outputs)
    except ServingError as error:
        raise internal(f"the server sent a predict reply that cannot be read: {error.message}") from None
    raise internal(f"the server sent what is not a predict reply: {excerpt(document)}")


def _output_filter(document: dict[str, Any]) -> tuple[str, ...]:
    names = document["output_filter"]
    if type(names) is list and all(type(name) is str for name in names):
        return tuple(names)
    return _wrong_document(document, "not formatted correctly. 'output_filter' key must be a list of strings.")


def _wrong_document(document: dict[str, Any], problem: str) -> NoReturn:
    raise invalid_argument(f"JSON Value: {excerpt(document)} {problem}")


def _is_named(value: Any) -> bool:
    """Tell an object that maps names to tensors from a tensor; base64 is a tensor's element."""
    return type(value) is dict and not is_base64(value)


def _pack_named_rows(rows: list[Any], specs: _Specs, bools: bool) -> dict[str, Array] | None:
    """Return the columns of plain, regular rows, or ``None``."""
    inputs = {}
    count = len(specs)
    for row in rows:
        if type(row) is not dict or len(row) != count:
            return None
    for name, spec in specs.items():
        try:
            column = [row[name] for row in rows]
        except KeyError:
            return None
        array = pack(column, spec.dtype, bools)
        if array is None:
            return None
        inputs[name] = array
    return inputs


class _Column:
    """The values of one input, gathered row by row; rows must agree in shape."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.values: Values = []
        self.shape: Shape | None = None
        self.rows = 0
        self.size = 0

    def add(self, item: Any) -> None:
        values, shape = exact_values(item, self.dtype)
        if self.shape is None:
            self.shape, self.size = shape, len(values)
        elif len(values) != self.size:
            raise invalid_argument(f"Expecting tensor size: {self.size} but got: {len(values)}")
        elif shape != self.shape:
            raise invalid_argument(f"Expecting shape {_bracketed(self.shape)} but got: {_bracketed(shape)}")
        self.values.extend(values)
        self.rows += 1

    def array(self) -> Array:
        return from_values(self.values, (self.rows, *(self.shape or ())), self.dtype)


def _exact_plain_rows(rows: list[Any], specs: _Specs) -> dict[str, Array]:
    ((name, spec),) = specs.items()
    column = _Column(spec.dtype)
    for index, row in enumerate(rows):
        if _is_named(row):
            raise invalid_argument(f"Expecting value/list but got object at item {index} of input list")
        try:
            column.add(row)
        except ServingError as error:
            raise invalid_argument(f"Failed to process element: {index} of 'instances' list. Error: {error}") from None
    return {name: column.array()}


def _exact_named_rows(rows: list[Any], specs: _Specs) -> dict[str, Array]:
    columns = {name: _Column(spec.dtype) for name, spec in specs.items()}
    for index, row in enumerate(rows):
        if not _is_named(row):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        for name, item in row.items():
            try:
                if name not in columns:
                    raise invalid_argument(f"JSON object: does not have named input: {name}")
                columns[name].add(item)
            except ServingError as error:
                raise invalid_argument(
                    f"Failed to process element: {index} key: {name} of 'instances' list. Error: {error}"
                ) from None
        if len(row) != len(columns):
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. "
                f"JSON object: {excerpt(row)} keys must be equal to: {','.join(sorted(columns))}"
            )
    return {name: column.array() for name, column in columns.items()}


def _bracketed(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"


def _check_rows(tensors: Mapping[str, Array]) -> None:
    """Refuse tensors that cannot be written row by row."""
    batch: int | None = None
    for name, array in tensors.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch is None:
            batch = array.shape[0]
        elif array.shape[0] != batch:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: {batch}"
            )


def _decode_columns(columns: Any, specs: _Specs | None) -> dict[str, Array]:
    if not _is_named(columns):
        return {_only_name(specs, "outputs"): _decode(columns, _only_spec(specs))}
    return {name: _decode(value, (specs or {}).get(name)) for name, value in columns.items()}


def _decode_rows(rows: list[Any], specs: _Specs | None) -> dict[str, Array]:
    if not rows and specs:
        return {name: _no_rows(spec) for name, spec in specs.items()}
    if not rows or not _is_named(rows[0]):
        return {_only_name(specs, "predictions"): _decode(rows, _only_spec(specs))}
    names = rows[0].keys()
    if not all(type(row) is dict and row.keys() == names for row in rows):
        raise internal("the predictions do not all have the same outputs")
    return {name: _decode([row[name] for row in rows], (specs or {}).get(name)) for name in names}


def _only_name(specs: _Specs | None, otherwise: str) -> str:
    return next(iter(specs)) if specs and len(specs) == 1 else otherwise


def _only_spec(specs: _Specs | None) -> TensorSpec | None:
    return next(iter(specs.values())) if specs and len(specs) == 1 else None


def _no_rows(spec: TensorSpec) -> Array:
    inner = [size or 0 for size in (spec.shape or ())[1:]]
    return from_values([], (0, *inner), spec.dtype)


def _decode(value: Any, spec: TensorSpec | None) -> Array:
    return tensor(value, _guess(value) if spec is None else spec.dtype)


def _guess(value: Any) -> DType:
    """Return the element type that holds a value; the conversion reports what no type holds."""
    types: set[type] = set()
    unsigned = False
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) is list:
            pending.extend(item)
        else:
            types.add(type(item))
            unsigned = unsigned or (type(item) is int and item >= 2**63)
    if types & {str, dict}:
        return STRING
    if types == {bool}:
        return BOOL
    if types == {int}:
        return UINT64 if unsigned else INT64
    return FLOAT64
