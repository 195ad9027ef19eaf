"""The access log: one line for each request, formatted and written by a thread of its own.

The event loop only appends to a bounded queue. What does not fit, or cannot be written, is dropped and counted: a slow
disk costs lines, never requests.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import orjson

from servable.core.errors import failed_precondition
from servable.observe.instruments import Count
from servable.observe.logs import is_json
from servable.observe.metrics import Metrics

log = logging.getLogger("servable.observe")

MOST_WAITING = 10_000
"""Lines that may wait for the writer."""
CHUNK_LINES = 256
"""Lines formatted and written at once."""
GATHER_S = 0.05
"""How long the writer lets lines gather, so that it wakes 20 times a second at most."""
CLOSE_TIMEOUT_S = 5.0
_MS = 1000.0


class Access(NamedTuple):
    """One request and its reply. Times in seconds, sizes in bytes of body; ``None`` and "" are unknown.

    ``time_s`` is since the epoch, when the reply was handed over. ``code`` is gRPC's; ``status`` is HTTP's.
    """

    time_s: float
    peer: str
    wire: str
    method: str
    route: str
    model: str
    version: int | None
    status: int
    code: str
    bytes_in: int
    bytes_out: int
    duration_s: float
    queue_s: float | None = None
    compute_s: float | None = None


def open_access_log(target: str, line_format: str, metrics: Metrics) -> AccessLog | None:
    """Return the log that an option names: a file, ``-`` for stderr, ``off`` for none.

    FAILED_PRECONDITION if the file cannot be opened.
    """
    if target in {"", "off"}:
        return None
    path = None if target == "-" else Path(target).absolute()
    as_json = is_json(line_format, sys.stderr if path is None else None)
    dropped = metrics.dropped_lines
    try:
        return AccessLog(path, as_json=as_json, overflow=dropped("overflow"), failed=dropped("failed"))
    except OSError as error:
        raise failed_precondition(f"cannot open the access log {target}: {error.strerror}") from None


class AccessLog:
    """Writes to a file, or to stderr if ``path`` is ``None``. ``write`` may be called on the event loop only."""

    def __init__(self, path: Path | None, *, as_json: bool, overflow: Count, failed: Count) -> None:
        """Open the file; ``OSError`` if that fails. ``overflow`` and ``failed`` count lines that were dropped."""
        self._path = path
        self._format = json_line if as_json else text_line
        self._overflow = overflow
        self._failed = failed
        self._lines: deque[Access] = deque()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._reopening = False
        self._trouble = ""
        self._file = self._open()
        self._thread = threading.Thread(target=self._work, name="access log", daemon=True)
        self._thread.start()

    def write(self, access: Access) -> None:
        """Queue a line."""
        if len(self._lines) >= MOST_WAITING:
            self._overflow.value += 1
            return
        self._lines.append(access)
        if not self._wanted.is_set():
            self._wanted.set()

    def reopen(self) -> None:
        """Go on in a file of the same name: what rotates logs has moved the old one away."""
        self._reopening = True
        self._wanted.set()

    def close(self) -> None:
        """Write what waits, then end."""
        self._closing.set()
        self._wanted.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    # -- the writer's thread --------------------------------------------------------------------------------------

    def _open(self) -> int:
        if self._path is None:
            return os.dup(2)
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wanted.wait()
            self._closing.wait(GATHER_S)
            self._wanted.clear()
            if self._reopening:
                self._reopening = False
                # Lines that waited were answered before the rotation: they belong to the old file.
                self._drain()
                self._open_anew()
            self._drain()
        self._drain()
        os.close(self._file)

    def _open_anew(self) -> None:
        try:
            opened = self._open()
        except OSError as error:
            log.error("cannot open the access log %s anew, going on in the old file: %s", self._path, error)  # noqa: TRY400  # the error says it all
            return
        os.close(self._file)
        self._file = opened

    def _drain(self) -> None:
        lines = self._lines
        while lines:
            chunk = [lines.popleft() for _ in range(min(len(lines), CHUNK_LINES))]
            self._put(b"".join(map(self._format, chunk)), len(chunk))

    def _put(self, data: bytes, count: int) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self._failed.value += count
            trouble = error.strerror or str(error)
            if trouble != self._trouble:  # once, not for each line
                log.error("lines of the access log are lost: %s", trouble)  # noqa: TRY400  # the error says it all
            self._trouble = trouble
        else:
            self._trouble = ""


def json_line(access: Access) -> bytes:
    """Return the line as a JSON object; what is unknown is left out."""
    fields: dict[str, object] = {"time": _time(access.time_s), "peer": _clean(access.peer), "wire": access.wire}
    fields |= {"method": access.method, "route": access.route}
    if access.model:
        fields["model"] = _clean(access.model)
    if access.version is not None:
        fields["version"] = access.version
    fields["status"] = access.status
    if access.code:
        fields["code"] = access.code
    fields |= {"bytes_in": access.bytes_in, "bytes_out": access.bytes_out}
    fields["duration_ms"] = _milliseconds(access.duration_s)
    if access.queue_s is not None and access.compute_s is not None:
        fields |= {"queue_ms": _milliseconds(access.queue_s), "compute_ms": _milliseconds(access.compute_s)}
    return orjson.dumps(fields) + b"\n"


def text_line(access: Access) -> bytes:
    """Return the line for people: words, then ``name=value``. What a client sent cannot begin a line or a field."""
    words = [_time(access.time_s), access.peer, access.wire, _one_word(access.method), _one_word(access.route)]
    if access.model:
        words.append(f"model={_one_word(access.model)}")
    if access.version is not None:
        words.append(f"version={access.version}")
    words.append(f"status={access.status}")
    if access.code:
        words.append(f"code={access.code}")
    words += [f"in={access.bytes_in}", f"out={access.bytes_out}", f"ms={_milliseconds(access.duration_s)}"]
    if access.queue_s is not None and access.compute_s is not None:
        words += [f"queue_ms={_milliseconds(access.queue_s)}", f"compute_ms={_milliseconds(access.compute_s)}"]
    return " ".join(words).encode("utf-8", "backslashreplace") + b"\n"


def _time(seconds: float) -> str:
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1e6):06d}Z"


@lru_cache(maxsize=8)
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _milliseconds(seconds: float) -> float:
    return round(seconds * _MS, 3)


def _clean(text: str) -> str:
    """Return the text with what UTF-8 cannot hold spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _one_word(text: str) -> str:
    if text.isprintable() and " " not in text and "\\" not in text:
        return text
    return text.encode("unicode_escape").decode().replace(" ", "\\x20")
