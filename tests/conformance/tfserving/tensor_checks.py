"""How tensors are read, by TensorFlow Serving's stubs: ``tensor_checks ADDRESS`` of a server of the models that

``tests/e2e/live_models.py`` makes.
"""

from __future__ import annotations

from typing import Any

import grpc
from tests.conformance.serving_api_checks import TYPED
from tests.conformance.tfserving.checks import TIMEOUT_S, Api, checks_in, main, rule

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def half(api: Api, dtype: str = "DT_FLOAT", rows: int = 2, **values: Any) -> list[float]:
    """Return what half_plus_two answers to a column."""
    return list(api.call(api.request("half_plus_two", x=api.typed(dtype, [rows, 1], **values))).outputs["y"].float_val)


def same(api: Api, rows: int, **given: dict[str, Any]) -> Any:
    """Return the outputs of ``types`` for some inputs; the others are left empty, which is all zeros."""
    inputs = {name: api.typed(dtype, [rows], **given.get(name, {})) for name, (dtype, _, _) in TYPED.items()}
    return api.call(api.request("types", **inputs)).outputs


@rule("tensor-2")
def check_narrow_integers_are_cut_to_their_bits(api: Api) -> None:
    outputs = same(
        api, 2, uint8={"int_val": [300, -1]}, int8={"int_val": [200, -129]}, int16={"int_val": [65537, -1]},
        uint16={"int_val": [-1, 65536]},
    )  # fmt: skip
    found = {name: list(outputs[f"same_{name}"].int_val) for name in ("uint8", "int8", "int16", "uint16")}
    assert found == {"uint8": [44, 255], "int8": [-56, 127], "int16": [1, -1], "uint16": [65535, 0]}


@rule("tensor-10", "tensor-1")
def check_no_values_are_zeros_of_every_type(api: Api) -> None:
    outputs = same(api, 3)
    for name, (_, field, _) in TYPED.items():
        empty = b"" if name == "string" else False if name == "bool" else 0
        assert list(getattr(outputs[f"same_{name}"], field)) == [empty] * 3, name


@rule("tensor-6")
def check_content_wins_over_values(api: Api) -> None:
    assert half(api, tensor_content=b"\0\0\x80\x3f\0\0\0\x40", float_val=[9.0, 9.0]) == [2.5, 3.0]


@rule("tensor-8")
def check_strings_as_content(api: Api) -> None:
    outputs = same(api, 3, string={"tensor_content": b"\x02\x00\x05abhello"})
    assert list(outputs["same_string"].string_val) == [b"ab", b"", b"hello"]


@rule("tensor-11")
def check_values_beyond_the_shape_are_not_looked_at(api: Api) -> None:
    assert half(api, rows=1, float_val=[1.0, 8.0, 9.0]) == [2.5]


@rule("tensor-12")
def check_values_of_another_type_are_not_looked_at(api: Api) -> None:
    assert half(api, int_val=[5, 6], double_val=[7.0]) == [2.0, 2.0]


@rule("tensor-16")
def check_the_version_number_does_not_matter(api: Api) -> None:
    assert half(api, float_val=[2.0, 4.0], version_number=7) == [3.0, 4.0]


@rule("message-2")
def check_unknown_fields_are_passed_over(api: Api) -> None:
    request = api.request("half_plus_two", x=api.typed("DT_FLOAT", [1, 1], float_val=[2.0]))
    unknown = b"\xc2\x3e\x03abc" + b"\xc8\x3e\x05"  # fields 1000 and 1001: three bytes, and a number
    call = api.channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        None,
        api.predict.PredictResponse.FromString,  # type: ignore[attr-defined]
    )
    # Field 13 of the options is in the published package, and not in the messages of the server's own sources.
    options = b"\x3a\x04\x6a\x02\x08\x05"
    reply = call(unknown + request.SerializeToString() + options + unknown, timeout=TIMEOUT_S)
    assert list(reply.outputs["y"].float_val) == [3.0]


@rule("service-6")
def check_options_for_streams_change_nothing(api: Api) -> None:
    request = api.request("half_plus_two", x=api.typed("DT_FLOAT", [2, 1], float_val=[2.0, 4.0]))
    plain = api.call(request)
    request.client_id = b"someone"
    request.predict_streamed_options.request_state = 1
    request.predict_streamed_options.split_dimensions["x"] = 0
    request.predict_streamed_options.return_single_response = True
    request.request_options.deterministic_mode = 1
    request.request_options.return_stoptokens.append(3)
    assert api.call(request) == plain


CHECKS = checks_in(globals())

if __name__ == "__main__":
    main(CHECKS)
