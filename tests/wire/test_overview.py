from __future__ import annotations

import pytest

from servable.core.errors import Code, ServingError, not_found
from servable.core.signatures import Signature, TensorSpec
from servable.core.status import VersionState, VersionStatus
from servable.core.tensors import FLOAT32, STRING, dtype_named
from servable.wire.overview import VersionOverview, decode_overview, encode_overview

INVALID = dtype_named("invalid")


def test_an_overview_survives_the_wire() -> None:
    signature = Signature(
        "serving_default",
        {"x": TensorSpec("x", FLOAT32, (None, 3))},
        {"y": TensorSpec("y", STRING, None), "i": TensorSpec("i", INVALID, ())},
    )
    overview = {
        "good": [
            VersionOverview(VersionStatus(3, VersionState.LOADING), {}),
            VersionOverview(
                VersionStatus(2, VersionState.AVAILABLE, None, "onnxruntime", "f32", "the native engine"),
                {"serving_default": signature},
            ),
        ],
        "bad": [VersionOverview(VersionStatus(1, VersionState.END, not_found("no file")), {})],
        "none": [],
    }
    read = decode_overview(encode_overview(overview))
    assert read.keys() == overview.keys()
    assert read["good"] == overview["good"]
    error = read["bad"][0].status.error
    assert isinstance(error, ServingError)
    assert (error.code, error.message) == (Code.NOT_FOUND, "no file")


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"models": 3}', b'{"models": [{"name": "x"}]}', b"<html>"])
def test_another_document_is_refused(document: bytes) -> None:
    with pytest.raises(ServingError, match="no server overview"):
        decode_overview(document)
