from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from servable.core.errors import ServingError
from servable.observe.access_log import MOST_WAITING, Access, AccessLog, json_line, open_access_log, text_line
from servable.observe.instruments import Count
from servable.observe.metrics import Metrics

OK = Access(
    1_700_000_000.25, "10.0.0.1:5", "grpc", "POST", "/a.B/C", "m", 3, 200, "OK", 17, 21, 0.0012345, 0.0001, 0.001
)
UNKNOWN = OK._replace(wire="rest", model="", version=None, code="", queue_s=None, compute_s=None)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@dataclass
class Opened:
    log: AccessLog
    overflow: Count
    failed: Count


def opened(path: Path, *, as_json: bool = False) -> Opened:
    overflow, failed = Count(), Count()
    return Opened(AccessLog(path, as_json=as_json, overflow=overflow, failed=failed), overflow, failed)


def test_a_json_line() -> None:
    assert json.loads(json_line(OK)) == {
        "time": "2023-11-14T22:13:20.250000Z", "peer": "10.0.0.1:5", "wire": "grpc", "method": "POST",
        "route": "/a.B/C", "model": "m", "version": 3, "status": 200, "code": "OK", "bytes_in": 17, "bytes_out": 21,
        "duration_ms": 1.234, "queue_ms": 0.1, "compute_ms": 1.0,
    }  # fmt: skip
    left_out = {"model", "version", "code", "queue_ms", "compute_ms"}
    assert json.loads(json_line(OK)).keys() - json.loads(json_line(UNKNOWN)).keys() == left_out


def test_a_text_line() -> None:
    assert text_line(OK) == (
        b"2023-11-14T22:13:20.250000Z 10.0.0.1:5 grpc POST /a.B/C model=m version=3 status=200 code=OK in=17 out=21 "
        b"ms=1.234 queue_ms=0.1 compute_ms=1.0\n"
    )
    assert text_line(UNKNOWN).endswith(b" rest POST /a.B/C status=200 in=17 out=21 ms=1.234\n")


def test_a_client_cannot_forge_a_line_or_a_field() -> None:
    evil = OK._replace(route="/a\nb c=\x1b[2J\\é", model="x status=1\r\n\udc80")
    for line in (text_line(evil), json_line(evil)):
        assert line.count(b"\n") == 1
        assert b"\x1b" not in line
    assert rb" /a\nb\x20c=\x1b[2J\\\xe9 model=x\x20status=1\r\n\udc80 version=3" in text_line(evil)
    assert json.loads(json_line(evil))["model"] == "x status=1\r\n\\udc80"


def test_lines_are_written_in_order_and_all_of_them_at_the_end(tmp_path: Path) -> None:
    found = opened(tmp_path / "log", as_json=True)
    for number in range(1000):
        found.log.write(OK._replace(bytes_in=number))
    found.log.close()
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [json.loads(line)["bytes_in"] for line in lines] == list(range(1000))
    assert (found.overflow.value, found.failed.value) == (0, 0)


def test_lines_appear_while_the_server_runs_and_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    found = opened(path)
    found.log.write(OK)
    until(lambda: path.read_bytes().count(b"\n") == 2)
    found.log.close()
    assert path.read_bytes().startswith(b"old\n")


def test_rotation_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    found = opened(path)
    found.log.write(OK._replace(bytes_in=1))
    path.rename(tmp_path / "log.1")
    found.log.reopen()
    until(path.exists)
    found.log.write(OK._replace(bytes_in=2))
    found.log.close()
    assert b"in=1 " in (tmp_path / "log.1").read_bytes()
    assert b"in=2 " in path.read_bytes()
    assert b"in=1 " not in path.read_bytes()


def test_a_rotation_that_fails_goes_on_in_the_old_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    found = opened(folder / "log")
    folder.rename(tmp_path / "moved")
    found.log.reopen()
    until(lambda: "cannot open the access log" in caplog.text)
    found.log.write(OK)
    found.log.close()
    assert (tmp_path / "moved" / "log").read_bytes() == text_line(OK)


def test_a_full_disk_costs_lines_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    found = opened(Path("/dev/full"))
    found.log.write(OK)
    until(lambda: found.failed.value == 1)
    found.log.write(OK)
    found.log.write(OK)
    found.log.close()
    assert found.failed.value == 3
    assert caplog.text.count("lines of the access log are lost: No space left on device") == 1


def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    found = opened(path)
    written = 3 * MOST_WAITING
    for number in range(written):
        found.log.write(OK._replace(bytes_in=number))
    assert found.overflow.value > 0
    os.set_blocking(reader, True)
    kept = written - found.overflow.value
    received = b""
    while received.count(b"\n") < kept:
        received += os.read(reader, 1 << 16)
    found.log.close()
    os.close(reader)
    assert received.count(b"\n") == kept
    assert b" in=0 " in received


def test_what_the_option_may_be(tmp_path: Path) -> None:
    metrics = Metrics(list, lambda _: False)
    assert open_access_log("off", "auto", metrics) is None
    found = open_access_log(str(tmp_path / "log"), "auto", metrics)
    assert found is not None
    found.write(OK)
    found.close()
    assert json.loads((tmp_path / "log").read_bytes())["model"] == "m"
    assert b'servable_access_log_dropped_total{reason="overflow"} 0.0' in metrics.exposition()
    with pytest.raises(ServingError, match=r"cannot open the access log .*/none/log: No such file or directory"):
        open_access_log(str(tmp_path / "none" / "log"), "auto", metrics)
