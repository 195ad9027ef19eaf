"""Model status and metadata in TensorFlow Serving's REST API: its messages in protobuf's JSON form, both directions.

In that form 64-bit integers are strings, enums are names, bytes are base64, and members with default values are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from google.protobuf import json_format

from servable import protos
from servable.core.errors import Code, ServingError, internal
from servable.core.messages import ModelRef
from servable.core.signatures import Shape, Signature, TensorSpec
from servable.core.status import VersionState, VersionStatus
from servable.core.tensors import Array, DType, dtype_of
from servable.wire import json_dialect
from servable.wire.tensor_proto import NUMBERS, declared_dtype, decode_tensor, number_of

_PRETTY = orjson.OPT_INDENT_2


def encode_status(statuses: Iterable[VersionStatus]) -> bytes:
    """Return the reply to a request for the status of a model: its versions in the order given."""
    versions = [
        {
            "version": str(status.version),
            "state": status.state.name,
            "status": {
                "error_code": "OK" if status.error is None else status.error.code.name,
                "error_message": "" if status.error is None else _printable(status.error.message),
            },
        }
        for status in statuses
    ]
    return orjson.dumps({"model_version_status": versions}, option=_PRETTY)


def decode_status(body: bytes) -> list[VersionStatus]:
    """Return the versions in a status reply; INTERNAL if it is none. Members that are missing have their defaults."""
    document = json_dialect.loads(body)
    try:
        return [_version_status(version) for version in document.get("model_version_status", [])]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise internal(f"the server sent what is no model status: {json_dialect.excerpt(document)}") from None


def encode_metadata(model: ModelRef, signatures: Mapping[str, Signature]) -> bytes:
    """Return the reply to a request for the metadata of a model. ``model`` has the version that was found."""
    document = {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version or 0)},
        "metadata": {
            "signature_def": {"signature_def": {name: _signature(each) for name, each in signatures.items()}},
        },
    }
    return orjson.dumps(document, option=_PRETTY)


def decode_metadata(body: bytes) -> tuple[ModelRef, dict[str, Signature]]:
    """Return model and signatures in a metadata reply; INTERNAL if it is none."""
    document = json_dialect.loads(body)
    try:
        spec = document["model_spec"]
        found = document["metadata"]["signature_def"]["signature_def"]
        signatures = {name: _read_signature(name, found[name]) for name in found}
        return ModelRef(spec["name"], int(spec["version"])), signatures
    except (AttributeError, KeyError, TypeError, ValueError, json_format.ParseError):
        raise internal(f"the server sent what is no model metadata: {json_dialect.excerpt(document)}") from None


def _version_status(version: Mapping[str, Any]) -> VersionStatus:
    status = version.get("status", {})
    code = Code[status.get("error_code", "OK")]
    error = None if code is Code.OK else ServingError(code, status.get("error_message", ""))
    return VersionStatus(int(version.get("version", 0)), VersionState[version["state"]], error)


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {name: _tensor_info(spec) for name, spec in signature.inputs.items()},
        "outputs": {name: _tensor_info(spec) for name, spec in signature.outputs.items()},
        "method_name": signature.method_name,
        "defaults": {name: _tensor(array) for name, array in signature.defaults.items()},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape or ()]
    return {
        "dtype": protos.tensorflow.DataType.Name(number_of(spec.dtype)),
        "tensor_shape": {"dim": dims, "unknown_rank": spec.shape is None},
        "name": spec.node or spec.name,
    }


def _tensor(array: Array) -> Any:
    message = protos.tensorflow.TensorProto(dtype=NUMBERS[dtype_of(array).name])
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    if array.dtype.hasobject:
        message.string_val.extend(array.reshape(-1).tolist())
    else:
        message.tensor_content = array.tobytes()
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _read_signature(name: str, found: Mapping[str, Any]) -> Signature:
    inputs, outputs = _read_specs(found.get("inputs", {})), _read_specs(found.get("outputs", {}))
    defaults = {
        alias: decode_tensor(json_format.ParseDict(value, protos.tensorflow.TensorProto(), ignore_unknown_fields=True))
        for alias, value in found.get("defaults", {}).items()
    }
    return Signature(name, inputs, outputs, found.get("method_name", ""), defaults)


def _read_specs(infos: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            name, _read_dtype(info["dtype"]), _read_shape(info.get("tensor_shape", {})), info.get("name", "")
        )
        for name, info in infos.items()
    }


def _read_dtype(name: str) -> DType:
    return declared_dtype(protos.tensorflow.DataType.Value(name))


def _read_shape(shape: Mapping[str, Any]) -> Shape | None:
    if shape.get("unknown_rank", False):
        return None
    sizes = [int(dim.get("size", 0)) for dim in shape.get("dim", [])]
    return tuple(None if size < 0 else size for size in sizes)


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
