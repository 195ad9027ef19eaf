from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError, invalid_argument
from servable.core.messages import InferRequest, ModelRef
from servable.lifecycle.warmup_file import MOST_RECORDS, WARMUP_FILE, replay, warmup_file

HERE = Path("the/file")


def requests_of(record: bytes) -> list[InferRequest]:
    return [InferRequest(ModelRef("m"), {"x": np.frombuffer(bytes([value]), np.uint8)}) for value in record]


@pytest.mark.rule("warmup-1", "warmup-2")
def test_records_run_in_order_and_as_often_as_asked() -> None:
    ran: list[int] = []
    records = [b"\x01", b"\x02\x03", b""]
    assert replay(records, HERE, requests_of, lambda request: ran.append(int(request.inputs["x"][0])), 2) == 3
    assert ran == [1, 1, 2, 2, 3, 3]


def test_the_first_error_ends_it_and_names_the_record() -> None:
    ran: list[int] = []

    def run(request: InferRequest) -> None:
        value = int(request.inputs["x"][0])
        if value == 2:
            raise invalid_argument("no such input")
        ran.append(value)

    with pytest.raises(ServingError, match=r"no such input \(record 2 of the/file\)") as raised:
        replay([b"\x01", b"\x02", b"\x03"], HERE, requests_of, run)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert ran == [1]


@pytest.mark.rule("warmup-3")
def test_too_many_records_are_refused_before_any_runs() -> None:
    ran: list[InferRequest] = []
    assert replay([b""] * MOST_RECORDS, HERE, requests_of, ran.append) == MOST_RECORDS
    with pytest.raises(ServingError, match=r"exceeds the maximum \(1000\) at the/file"):
        replay([b"\x01"] * (MOST_RECORDS + 1), HERE, requests_of, ran.append)
    assert ran == []


def test_the_file_lies_in_the_version_of_any_artifact(tmp_path: Path) -> None:
    assert warmup_file(tmp_path) is None
    (tmp_path / WARMUP_FILE).parent.mkdir()
    (tmp_path / WARMUP_FILE).touch()
    assert warmup_file(tmp_path) == tmp_path / WARMUP_FILE, "a SavedModel is the version's directory"
    assert warmup_file(tmp_path / "model.onnx") == tmp_path / WARMUP_FILE
