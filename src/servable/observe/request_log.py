"""The request log of one model: sampled requests with their answers, as records in files that follow each other.

The event loop only draws lots and appends to a bounded queue; a thread of its own encodes and writes. What does not
fit, or cannot be written, is dropped and counted: a slow disk costs records, never requests.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse
from servable.observe.log_options import RequestLogOptions

log = logging.getLogger("servable.observe")

MOST_WAITING = 1024
"""Records that may wait for the writer."""
MOST_WAITING_BYTES = 64 * 1024 * 1024
"""Bytes of tensors that may wait for it, unless a single record has more."""
CLOSE_TIMEOUT_S = 5.0

Encode = Callable[[InferRequest, InferResponse, float], bytes]
"""Makes a record of a request, its answer, and the time of that, in seconds since the epoch."""
Counted = Callable[[Code], None]
"""Called in any thread for each record, with what became of it."""


class _Entry(NamedTuple):
    request: InferRequest
    response: InferResponse
    time_s: float
    size: int


class RequestLog:
    """Picks and writes the requests of one model. ``picks`` and ``take`` belong to the event loop."""

    def __init__(self, options: RequestLogOptions, encode: Encode, counted: Counted) -> None:
        self.options = options
        self._encode = encode
        self._counted = counted
        self._entries: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._wanted = threading.Event()
        self._closing = False
        self._files = _Files(options)
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Return what is logged where."""
        return f"<RequestLog {self.options.sampling_rate:g} of the requests to {self.options.filename_prefix}-*>"

    def picks(self) -> bool:
        """Draw lots for one request."""
        return random.random() < self.options.sampling_rate  # noqa: S311  # a sample, not a secret

    def take(self, request: InferRequest, response: InferResponse) -> None:
        """Queue a picked request and its answer."""
        size = sum(array.nbytes for array in (*request.inputs.values(), *response.outputs.values()))
        waiting = len(self._entries)
        if waiting >= MOST_WAITING or (waiting and self._waiting_bytes + size > MOST_WAITING_BYTES):
            self._counted(Code.RESOURCE_EXHAUSTED)
            return
        self._waiting_bytes += size
        self._entries.append(_Entry(request, response, time.time(), size))
        if not self._wanted.is_set():
            self._wanted.set()

    def end(self) -> None:
        """Write what waits, then end; does not wait for that."""
        self._closing = True
        self._wanted.set()

    def close(self) -> None:
        """Write what waits, then end; waits for that, but not for ever."""
        self.end()
        self._thread.join(CLOSE_TIMEOUT_S)

    # -- the writer's thread --------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closing:
            self._wanted.wait()
            self._wanted.clear()
            self._drain()
        self._drain()
        self._files.close()

    def _drain(self) -> None:
        while self._entries:
            entry = self._entries.popleft()
            self._waiting_bytes -= entry.size
            self._counted(self._write(entry))

    def _write(self, entry: _Entry) -> Code:
        try:
            self._files.write(self._encode(entry.request, entry.response, entry.time_s), entry.time_s)
        except ServingError as error:
            self._complain(error.message)
            return error.code
        except OSError as error:
            self._complain(error.strerror or str(error))
            return Code.UNAVAILABLE
        self._trouble = ""
        return Code.OK

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:  # once, not for each record
            log.error("records of the request log %s are lost: %s", self.options.filename_prefix, trouble)
        self._trouble = trouble


class RequestLogs:
    """The request logs of all models, as they are configured now."""

    def __init__(self, encode: Callable[[RequestLogOptions], Encode], counted: Callable[[str, Code], None]) -> None:
        """``counted`` gets the model's name and what became of a record of its log, in any thread."""
        self._encode = encode
        self._counted = counted
        self.by_model: dict[str, RequestLog] = {}

    def follow(self, wanted: Mapping[str, RequestLogOptions]) -> dict[str, RequestLog]:
        """Log these models, each by its options, and no others. Logs whose options did not change go on."""
        before, after = self.by_model, {}
        for name, options in wanted.items():
            log_now = before.get(name)
            if log_now is None or log_now.options != options:
                log_now = RequestLog(options, self._encode(options), partial(self._counted, name))
            after[name] = log_now
        for name, log_then in before.items():
            if after.get(name) is not log_then:
                log_then.end()
        self.by_model = after
        return after

    def close(self) -> None:
        """End all of them; what was taken is written."""
        for each in self.by_model.values():
            each.end()
        for each in self.by_model.values():
            each.close()
        self.by_model = {}


class _Files:
    """Files of at most ``max_file_bytes``, each opened when its first record comes, the oldest removed if so wished."""

    def __init__(self, options: RequestLogOptions) -> None:
        self._options = options
        self._file = -1
        self._size = 0
        self._made: deque[Path] = deque()
        self._number = 0

    def write(self, record: bytes, now_s: float) -> None:
        """Append a record; ``OSError`` if that fails, and then nothing of it stays in the file."""
        if self._file < 0 or (self._size and self._size + len(record) > self._options.max_file_bytes):
            self.close()
            self._file = self._open(now_s)
            self._size = 0
        try:
            rest = memoryview(record)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += len(record)

    def _open(self, now_s: float) -> int:
        stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
        while True:
            self._number += 1
            path = Path(f"{self._options.filename_prefix}-{stamp}-{os.getpid()}-{self._number:05d}.tfrecord")
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
                break
        self._made.append(path)
        while self._options.max_files and len(self._made) > self._options.max_files:
            self._made.popleft().unlink(missing_ok=True)
        return file

    def close(self) -> None:
        """End the file, if one is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
