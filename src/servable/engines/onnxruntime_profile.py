"""What ONNX Runtime tells of its operations: a session that was created to be profiled tells once, when it is asked."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from servable.core.spans import Span

_US = 1e-6


class SessionProfile:
    """The profile of one session, in a folder of its own until somebody has read it."""

    def __init__(self, session_options: Any) -> None:
        self._folder = tempfile.mkdtemp(prefix="servable-onnxruntime-")
        session_options.enable_profiling = True
        session_options.profile_file_prefix = str(Path(self._folder) / "profile")
        self._began: float | None = None
        self._told = False

    def begin(self) -> bool:
        """Begin; False if the session has told already, or is being looked at."""
        if self._told or self._began is not None:
            return False
        self._began = time.monotonic()
        return True

    def end(self, session: Any) -> list[Span]:
        """Return what the session did since ``begin``; all of it stays in its memory until now."""
        began, self._began, self._told = self._began, None, True
        # It counts from a time of the clock that tells the time of day.
        started = session.get_profiling_start_time_ns() * 1e-9 - (time.time() - time.monotonic())
        try:
            events = json.loads(Path(session.end_profiling()).read_bytes())
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return [span for span in spans_of(events, started) if began is not None and span.began >= began]

    def close(self) -> None:
        """Forget it."""
        shutil.rmtree(self._folder, ignore_errors=True)


def spans_of(events: Iterable[Mapping[str, Any]], started: float) -> Iterator[Span]:
    """Yield the runs of the session and its nodes, ``name of the node:operation``, from its trace."""
    for event in events:
        operation = event.get("args", {}).get("op_name", "")
        kernel = operation and str(event["name"]).endswith("_kernel_time")
        if event.get("ph") == "X" and (kernel or event["name"] == "model_run"):
            node = str(event["name"]).removesuffix("_kernel_time")
            name = f"{node}:{operation}" if kernel else node
            yield Span(f"onnxruntime {event['tid']}", name, started + event["ts"] * _US, event["dur"] * _US)
