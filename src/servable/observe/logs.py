"""Log lines on stderr, for people or as JSON. The rings log through ``logging``; structlog renders."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog


def is_json(line_format: str, stream: TextIO | None) -> bool:
    """Return whether lines in the format console, json or auto are JSON on a stream, or (``None``) in a file."""
    return line_format == "json" or (line_format == "auto" and (stream is None or not stream.isatty()))


def configure_logs(level: str, line_format: str, stream: TextIO | None = None) -> None:
    """Send the package's log lines of ``level`` and above to ``stream`` (stderr); format console, json or auto."""
    target = stream or sys.stderr
    as_json = is_json(line_format, target)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=target.isatty(), pad_event_to=0)]
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger("servable")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
