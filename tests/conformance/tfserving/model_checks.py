"""What gRPC says of models, by TensorFlow Serving's stubs: ``model_checks ADDRESS``."""

from __future__ import annotations

import functools
from typing import Any

import grpc
import ml_dtypes
import numpy as np
from tests.conformance.tfserving.checks import TIMEOUT_S, Api, checks_in, main, rule

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def metadata(api: Api, model: str, *fields: str) -> Any:
    request = api.get_model_metadata.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


def ask(api: Api, request: Any) -> Any:
    return api.prediction.GetModelMetadata(request, TIMEOUT_S)


@rule("metadata-2", "label-1", "signature-5")
def check_metadata_has_every_signature(api: Api) -> None:
    for label in (False, True):
        request = metadata(api, "heads", "signature_def", "signature_def")
        if label:
            request.model_spec.version_label = "stable"
        request.model_spec.signature_name = "flat"
        reply = ask(api, request)
        spec = reply.model_spec
        assert (spec.name, spec.version.value, spec.signature_name, spec.version_label) == ("heads", 1, "", "")
        assert list(reply.metadata) == ["signature_def"]
        packed = reply.metadata["signature_def"]
        assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        found = api.get_model_metadata.SignatureDefMap()
        assert packed.Unpack(found)
        assert len(found.signature_def) == 27, sorted(found.signature_def)
        flat = found.signature_def["flat"]
        assert flat.method_name == "tensorflow/serving/regress"
        assert (flat.inputs["inputs"].name, flat.inputs["inputs"].dtype) == ("examples:0", 7)
        assert [dim.size for dim in flat.inputs["inputs"].tensor_shape.dim] == [-1]
        assert found.signature_def["unnamed"].method_name == ""


@rule("metadata-1", "lookup-1", "lookup-2", "lookup-4")
def check_metadata_errors(api: Api) -> None:
    fails = functools.partial(api.fails, code=INVALID)
    none = api.get_model_metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
    fails(lambda: ask(api, none), text="Missing ModelSpec")
    fails(lambda: ask(api, metadata(api, "", "signature_def")), text="ModelSpec has no name specified.")
    # What is asked is looked at before the model.
    fails(
        lambda: ask(api, metadata(api, "nonesuch")),
        text="GetModelMetadataRequest must specify at least one metadata_field",
    )
    fails(
        lambda: ask(api, metadata(api, "nonesuch", "signature_def", "graph")),
        text="Metadata field graph is not supported",
    )
    api.fails(
        lambda: ask(api, metadata(api, "nonesuch", "signature_def")),
        NOT_FOUND,
        "Servable not found for request: Latest(nonesuch)",
    )


def status(api: Api, name: str, version: int | None = None, label: str | None = None) -> Any:
    request = api.get_model_status.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    return api.models.GetModelStatus(request, TIMEOUT_S).model_version_status


@rule("service-2", "state-1", "state-4")
def check_status_of_versions(api: Api) -> None:
    for arguments, versions in (
        ((), [3, 1]),
        ((1,), [1]),
        ((None, "old"), [1]),
        ((None, "a b"), [3]),
    ):
        found = status(api, "half_plus_two", *arguments)
        assert [each.version for each in found] == versions
        for each in found:
            assert each.state == api.get_model_status.ModelVersionStatus.AVAILABLE
            assert each.HasField("status")
            assert (each.status.error_code, each.status.error_message) == (0, "")


@rule("state-3", "lookup-1", "lookup-2")
def check_status_errors(api: Api) -> None:
    request = api.get_model_status.GetModelStatusRequest()
    api.fails(lambda: api.models.GetModelStatus(request, TIMEOUT_S), INVALID, "Missing ModelSpec")
    api.fails(lambda: status(api, ""), INVALID, "ModelSpec has no name specified.")
    api.fails(lambda: status(api, "nonesuch"), NOT_FOUND, "Could not find any versions of model nonesuch")
    api.fails(lambda: status(api, "half_plus_two", 2), NOT_FOUND, "Could not find version 2 of model half_plus_two")


@rule("select-1", "label-1", "predict-9")
def check_predict_by_version_and_label(api: Api) -> None:
    request = api.request("half_plus_two", x=api.typed("DT_FLOAT", [1, 1], float_val=[1.0]))
    assert api.call(request).model_spec.version.value == 3
    for label, version in (("old", 1), ("a b", 3)):
        request.model_spec.version_label = label
        spec = api.call(request).model_spec
        assert (spec.version.value, spec.version_label) == (version, "")
    request.model_spec.version.value = 1
    assert api.call(request).model_spec.version.value == 1
    request.model_spec.version_label = ""
    api.fails(lambda: api.call(request), INVALID, "Unrecognized servable version label: ")


TYPED: dict[str, tuple[str, str, Any, list[float | complex]]] = {
    "bfloat16": ("DT_BFLOAT16", "half_val", [0x3F80, 0x4000, 0xC040], [1, 2, -3]),
    "complex64": ("DT_COMPLEX64", "scomplex_val", [1.5, -2.0, 0.0, 1.0, 3.0, 0.0], [1.5 - 2j, 1j, 3]),
    "complex128": ("DT_COMPLEX128", "dcomplex_val", [0.1, -2.0, 0.0, 1e300, 3.0, 0.0], [0.1 - 2j, 1e300j, 3]),
    "float16": ("DT_HALF", "half_val", [0x3C00, 0x4000, 0xC200], [1, 2, -3]),
    "float8_e4m3fn": ("DT_FLOAT8_E4M3FN", "float8_val", b"\x38\x40\xc4", [1, 2, -3]),
    "int4": ("DT_INT4", "int_val", [1, 7, -8], [1, 7, -8]),
    "uint16": ("DT_UINT16", "int_val", [1, 0, 65535], [1, 0, 65535]),
}
"""Input of the signature ``types`` -> its type, the field of its values, three of them, and what they are."""


def same(api: Api, **inputs: Any) -> Any:
    request = api.request("heads", **inputs)
    request.model_spec.signature_name = "types"
    return api.call(request).outputs


@rule("tensor-1", "tensor-3", "tensor-4", "tensor-7")
def check_types_that_share_fields(api: Api) -> None:
    typed = {name: api.typed(dtype, [3], **{field: sent}) for name, (dtype, field, sent, _) in TYPED.items()}
    outputs = same(api, **typed)
    content = {
        name: api.content(dtype, np.array(values, getattr(ml_dtypes, name, name)))
        for name, (dtype, _, _, values) in TYPED.items()
    }
    for found in (outputs, same(api, **content)):
        for name, (dtype, field, sent, _) in TYPED.items():
            proto = found[f"same_{name}"]
            assert api.types.DataType.Name(proto.dtype) == dtype
            got = getattr(proto, field)
            assert (got if isinstance(got, bytes) else list(got)) == sent, (name, got)
            assert not proto.tensor_content


@rule("tensor-9")
def check_one_value_fills_the_shape_of_every_type(api: Api) -> None:
    few = {"complex64": [1.5, -2.0], "complex128": [0.5, 1.0], "float8_e4m3fn": b"\x38"}
    filled = {
        name: api.typed(dtype, [2, 2], **{field: few.get(name, sent[:1])})
        for name, (dtype, field, sent, _) in TYPED.items()
    }
    outputs = same(api, **filled)
    for name, (_, field, sent, _) in TYPED.items():
        got = getattr(outputs[f"same_{name}"], field)
        assert (got if isinstance(got, bytes) else list(got)) == few.get(name, sent[:1]) * 4, name


@rule("tensor-5", "tensor-15")
def check_resources_and_variants_are_refused(api: Api) -> None:
    for dtype in ("DT_RESOURCE", "DT_VARIANT", "DT_FLOAT_REF"):
        request = api.request("half_plus_two", x=api.typed(dtype, [1, 1]))
        api.fails(functools.partial(api.call, request), INVALID, "tensor parsing error: x")


def defaulted(api: Api, **inputs: list[float]) -> list[float]:
    given = {name: api.typed("DT_FLOAT", [len(values)], float_val=values) for name, values in inputs.items()}
    request = api.request("heads", **given)
    request.model_spec.signature_name = "defaulted"
    return list(api.call(request).outputs["sum"].float_val)


@rule("signature-3", "predict-4")
def check_defaults_stand_in_for_what_is_left_out(api: Api) -> None:
    assert defaulted(api, a=[1.0, 2.0]) == [11.0, 12.0]
    assert defaulted(api, a=[1.0, 2.0], b=[0.5]) == [1.5, 2.5]
    api.fails_with(
        lambda: defaulted(api, b=[1.0]),
        INVALID,
        "Signature input alias: a(feed name: given_a:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {b}, or default input alias set: {b}",
    )
    api.fails_with(
        lambda: defaulted(api, a=[1.0], z=[1.0]),
        INVALID,
        "Inputs contains invalid name. Used request inputs: {a}, request input: {a,z}",
    )


@rule("signature-2")
def check_what_tensorflow_adds_is_shown(api: Api) -> None:
    found = api.get_model_metadata.SignatureDefMap()
    ask(api, metadata(api, "heads", "signature_def")).metadata["signature_def"].Unpack(found)
    added = found.signature_def["__saved_model_init_op"]
    assert (added.method_name, dict(added.inputs)) == ("", {})
    assert added.outputs["__saved_model_init_op"].name == "start"
    assert list(found.signature_def["defaulted"].defaults["b"].float_val) == [10.0]


@rule("tensor-13", "signature-4", "predict-8")
def check_scalars_and_ranks_that_the_operations_take(api: Api) -> None:
    fields: dict[str, dict[str, Any]] = {
        "float8_e4m3fn": {"float8_val": b"\x38"},
        "complex64": {"scomplex_val": [1.0, 0.0]},
    }
    fields["complex128"] = {"dcomplex_val": [1.0, 0.0]}
    for unknown in (False, True):
        given = {
            name: api.typed(dtype, [], **fields.get(name, {field: list(sent[:1])}))
            for name, (dtype, field, sent, _) in TYPED.items()
        }
        for proto in given.values():
            proto.tensor_shape.unknown_rank = unknown
        for name, proto in same(api, **given).items():
            assert proto.HasField("tensor_shape"), name
            assert (list(proto.tensor_shape.dim), proto.tensor_shape.unknown_rank) == ([], False), name
    deep = api.typed("DT_FLOAT", [1, 1, 2], float_val=[1.0, 2.0])
    request = api.request("heads", x=deep)
    request.model_spec.signature_name = "predict"
    code, text = api.error_of(lambda: api.call(request))
    assert code is INVALID, "the operation refuses it, not a check of ranks"
    assert "MatMul" in text


@rule("status-1")
def check_long_details_are_cut(api: Api) -> None:
    request = api.request("heads")
    request.model_spec.signature_name = "s" * 3000
    code, text = api.error_of(lambda: api.call(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    begin = 'Serving signature key "' + "s" * 1100
    assert text == begin[:1024] + "...TRUNCATED"


CHECKS = checks_in(globals())

if __name__ == "__main__":
    main(CHECKS)
