from __future__ import annotations

import logging
import resource
import signal
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.observe.log_options import RequestLogOptions
from servable.observe.request_log import MOST_WAITING, RequestLog, RequestLogs

ANSWER = InferResponse(ModelRef("m", 1), "", {"y": np.zeros(1, np.float32)})


def asked(value: int) -> InferRequest:
    return InferRequest(ModelRef("m"), {"x": np.array([value])})


def encode(request: InferRequest, response: InferResponse, time_s: float) -> bytes:
    assert time_s > 1e9
    return b"%08d\n" % int(request.inputs["x"][0])


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def text(folder: Path) -> list[int]:
    return [int(line) for path in files(folder) for line in path.read_text().split()]


def test_records_are_written_in_order_and_all_of_them_at_the_end(tmp_path: Path) -> None:
    counts: Counter[Code] = Counter()
    log = RequestLog(RequestLogOptions(str(tmp_path / "deep" / "log"), 1.0), encode, lambda code: counts.update([code]))
    for value in range(500):
        log.take(asked(value), ANSWER)
    log.close()
    assert text(tmp_path / "deep") == list(range(500))
    (path,) = files(tmp_path / "deep")
    assert path.name.startswith("log-2")
    assert path.suffix == ".tfrecord"
    assert counts == {Code.OK: 500}


def test_files_follow_each_other_and_the_oldest_go(tmp_path: Path) -> None:
    options = RequestLogOptions(str(tmp_path / "log"), 1.0, max_file_bytes=30, max_files=2)
    log = RequestLog(options, encode, lambda code: None)
    for value in range(20):
        log.take(asked(value), ANSWER)
    log.close()
    assert text(tmp_path) == [15, 16, 17, 18, 19], "three records a file; the last two files are left"
    assert len(files(tmp_path)) == 2


def test_without_requests_there_is_no_file(tmp_path: Path) -> None:
    log = RequestLog(RequestLogOptions(str(tmp_path / "log"), 1.0), encode, lambda code: None)
    log.close()
    assert not files(tmp_path)


@pytest.mark.parametrize(("rate", "least", "most"), [(0.0, 0, 0), (1.0, 1000, 1000), (0.5, 400, 600)])
@pytest.mark.rule("log-1")
def test_a_share_of_the_requests_is_picked(tmp_path: Path, rate: float, least: int, most: int) -> None:
    log = RequestLog(RequestLogOptions(str(tmp_path / "log"), rate), encode, lambda code: None)
    assert least <= sum(log.picks() for _ in range(1000)) <= most
    log.close()


def test_what_the_writer_cannot_follow_is_dropped_and_counted(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()
    counts: Counter[Code] = Counter()

    def slow(request: InferRequest, response: InferResponse, time_s: float) -> bytes:
        entered.set()
        assert gate.wait(10)
        return b"x"

    log = RequestLog(RequestLogOptions(str(tmp_path / "log"), 1.0), slow, lambda code: counts.update([code]))
    log.take(asked(0), ANSWER)
    assert entered.wait(10)
    for value in range(MOST_WAITING + 5):
        log.take(asked(value), ANSWER)
    assert counts == {Code.RESOURCE_EXHAUSTED: 5}
    huge = InferRequest(ModelRef("m"), {"x": np.broadcast_to(np.zeros(1), (10_000_000,))})
    log.take(huge, ANSWER)
    assert counts == {Code.RESOURCE_EXHAUSTED: 6}
    gate.set()
    log.close()
    assert counts[Code.OK] == MOST_WAITING + 1


def test_a_disk_that_fills_costs_whole_records_and_one_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts: Counter[Code] = Counter()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = RequestLog(RequestLogOptions(str(tmp_path / "log"), 1.0), encode, lambda code: counts.update([code]))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
        for value in range(10):
            log.take(asked(value), ANSWER)
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert text(tmp_path) == [0, 1, 2, 3], "the record that did not fit left nothing behind"
    assert counts == {Code.OK: 4, Code.UNAVAILABLE: 6}
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_record_that_cannot_be_made_costs_no_other(tmp_path: Path) -> None:
    counts: Counter[Code] = Counter()

    def fails(request: InferRequest, response: InferResponse, time_s: float) -> bytes:
        if request.inputs["x"][0] == 1:
            raise ServingError(Code.INTERNAL, "no")
        return encode(request, response, time_s)

    log = RequestLog(RequestLogOptions(str(tmp_path / "log"), 1.0), fails, lambda code: counts.update([code]))
    for value in range(3):
        log.take(asked(value), ANSWER)
    log.close()
    assert text(tmp_path) == [0, 2]
    assert counts == {Code.OK: 2, Code.INTERNAL: 1}


def test_logs_follow_the_configuration(tmp_path: Path) -> None:
    counts: Counter[tuple[str, Code]] = Counter()
    logs = RequestLogs(lambda options: encode, lambda name, code: counts.update([(name, code)]))
    first, second = (RequestLogOptions(str(tmp_path / name / "log"), 1.0) for name in ("one", "two"))
    kept = logs.follow({"a": first, "b": first})
    for log in kept.values():
        log.take(asked(1), ANSWER)
    after = logs.follow({"a": first, "b": second})
    assert after["a"] is kept["a"]
    assert after["b"] is not kept["b"]
    after["b"].take(asked(2), ANSWER)
    kept["b"].close()
    logs.close()
    assert text(tmp_path / "one") == [1, 1]
    assert text(tmp_path / "two") == [2]
    assert counts == {("a", Code.OK): 1, ("b", Code.OK): 2}
    assert logs.by_model == {}
